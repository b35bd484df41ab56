"""The scores of runs as rows, for a table or a DataFrame of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder

Row = dict[str, Any]


def results(*folders: str | Path) -> list[Row]:
    """Return a row for each metric of each split of the runs in some folders, and of those below them.

    `pandas.DataFrame(headwater.results("result"))` is a table of them; `low` and `high` are the ends of the 95 % interval.
    """
    rows = [row for folder in folders for path in run_folders(Path(folder).expanduser()) for row in rows_of(path)]
    if not rows:
        places = ", ".join(f"'{folder}'" for folder in folders) or "no folder"
        raise UserError(f"Expected finished runs in the folders given, found none in {places}. Train a run first.")
    return rows


def run_folders(place: Path) -> list[Path]:
    """Return the folders of finished runs at a place or below it."""
    own = [place] if RunFolder(place).is_finished else []
    return [*own, *(path for path in RunFolder(place).below() if path != place and RunFolder(path).is_finished)]


def rows_of(folder: Path) -> Iterator[Row]:
    """Yield the rows of one run: one task, or several with the weights that are kept as the best."""
    result = RunFolder(folder).read().result()
    tasks = {name: {**facts, **facts["best"]} for name, facts in result["tasks"].items()} if "tasks" in result else {}
    for name, facts in (tasks or {result["task"]: result}).items():
        shared = {"run": str(folder), "task": name, "upstream": result["upstream"], "seed": result["seed"]}
        shared |= {key: facts.get(key) for key in ("corpus", "protocol", "fold")} | {"marks": " ".join(result["marks"])}
        for split, scores in facts["scores"].items():
            yield from ({**shared, "split": split, **row} for row in metric_rows(scores, facts["intervals"][split]))


def metric_rows(scores: Mapping[str, float | None], intervals: Mapping[str, Any]) -> Iterator[Row]:
    """Yield each metric with its interval."""
    for metric, value in scores.items():
        low, high = intervals.get(metric) or (None, None)
        yield {"metric": metric, "value": value, "low": low, "high": high}
