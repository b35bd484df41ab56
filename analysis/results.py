"""The scores of runs and plans as rows, for a table or a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder

Row = dict[str, Any]
OF_WHAT = ("run", "task", "upstream", "corpus", "protocol", "fold", "seed", "runs")
COLUMNS = (*OF_WHAT, "split", "metric", "value", "low", "high", "spread", "marks")


def result_rows(*folders: str | Path, each: bool = False) -> list[Row]:
    """Return a row for each metric of each split of the runs and plans in some folders, and of those below them.

    A plan counts as one: the predictions of its folds and seeds pooled. With `each`, its runs count instead.
    """
    rows = [row for folder in folders for path in found_below(Path(folder).expanduser(), each) for row in rows_of(path)]
    if not rows:
        places = ", ".join(f"'{folder}'" for folder in folders) or "no folder"
        raise UserError(f"Expected finished runs in the folders given, found none in {places}. Train a run first.")
    return rows


def found_below(place: Path, each: bool) -> list[Path]:
    """Return the folders of finished runs at a place or below it, of plans in place of their runs."""
    results = sorted({path.parent for path in place.rglob(RunFolder(place).result.name)})
    plans = [] if each else [path for path in results if RunFolder(path).runs() is not None]
    runs = [path for path in results if RunFolder(path).is_finished and not any(path.is_relative_to(plan) for plan in plans)]
    return sorted([*plans, *runs])


def rows_of(folder: Path) -> Iterator[Row]:
    """Yield the rows of one run or plan: one task, or several with the weights that are kept as the best."""
    result, there = RunFolder(folder).read().result(), RunFolder(folder).runs()
    seeds = {result["seed"]} if there is None else {row["seed"] for row in there}
    for name, facts in tasks_in(result).items():
        shared = {"run": str(folder), "task": name, "upstream": result["upstream"]}
        shared |= {key: facts.get(key) for key in ("corpus", "protocol", "fold")}
        shared |= {"seed": next(iter(seeds)) if len(seeds) == 1 else None, "runs": 1 if there is None else len(there)}
        for split, numbers in (scores_of(facts) if there is None else pooled_scores(facts)).items():
            for metric, found in numbers.items():
                yield {**shared, "split": split, "metric": metric, **found, "marks": " ".join(result["marks"])}


def tasks_in(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what a result says of each of its tasks."""
    several = result.get("tasks")
    return {name: {**facts, **facts.get("best", {})} for name, facts in several.items()} if several else {result["task"]: result}


def scores_of(facts: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    """Return the numbers of a run by split and metric."""
    return {
        split: {name: numbers(value, facts["intervals"][split].get(name)) for name, value in scores.items()}
        for split, scores in facts["scores"].items()
    }


def pooled_scores(facts: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    """Return the numbers of a plan by split and metric: of all predictions pooled; of dev, which is not pooled, the mean."""
    found: dict[str, dict[str, Row]] = {}
    for split, means in facts["mean"].items():
        pooled = facts["pooled"].get(split) or {}
        scores, intervals = pooled.get("scores", {}), pooled.get("intervals", {})
        found[split] = {
            name: numbers(scores.get(name, mean["mean"]), intervals.get(name), mean["spread"]) for name, mean in means.items()
        }
    return found


def numbers(value: float | None, interval: Any, spread: float | None = None) -> Row:
    """Return a score, the ends of its 95 % interval, and its spread over the runs of a plan."""
    low, high = interval or (None, None)
    return {"value": value, "low": low, "high": high, "spread": spread}
