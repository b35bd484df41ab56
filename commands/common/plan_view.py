"""Plans of many runs on the terminal: what is left of them, and running it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import print_note, print_result
from .launch import NONE, submitted, unfinished

if TYPE_CHECKING:
    from ...plans.execute import Part
    from ...runs.config.schema import RunConfig
    from ...runs.runtime import Runtime


Runs = Mapping[str, "Sequence[Part]"]  # part of a plan -> its runs


def outlook_rows(
    wanted: Runs, everything: Runs, folder: Path, missing: Mapping[str, str], foreign: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Return what is done and left of each part: runs, steps, GB of checkpoints, hours where a pace is known.

    `foreign` are the runs (by folder) in whose place another one stands.
    """
    from ...plans.forecast import outlook

    others = {run.name: run for of_part in everything.values() for run in of_part}
    rows = []
    for name, runs in wanted.items():
        own = [run for run in runs if run.name not in (foreign or {})]
        view = outlook(own, folder, others)
        left = len(runs) - view.done
        row = {"part": name, "runs": str(len(runs)), "done": str(view.done), "left": str(left)}
        row |= {"steps left": f"{view.steps:,}", "GB": gigabytes(view.size), "hours left": hours(view.seconds)}
        notes = ["corpus missing"] * (name in missing) + [f"other runs there: {len(runs) - len(own)}"] * (len(own) < len(runs))
        rows.append(row | {"": ", ".join(notes)})
    return rows


def grid_text(config: RunConfig, parts: Sequence[Part], folder: Path) -> str:
    """Return what a plan of folds, seeds and settings would run: its settings and stages as rows, what is done and left."""
    from ...analysis.table import render
    from ...runs.config.schema import roles_of

    tasks = ", ".join(config.tasks)
    rows: dict[str, list[Part]] = {}
    for part in parts:
        rows.setdefault(" ".join(filter(None, (part.setting, part.stage))) or tasks, []).append(part)
    drawn = {"folds": sorted({part.fold for part in parts}), "seeds": sorted({part.seed for part in parts})}
    upstreams = " + ".join(section.name for section in roles_of(config).values())
    table = outlook_rows(rows, rows, folder, {})
    return "\n".join(
        [
            f"plan      {upstreams}: {tasks}",
            *(f"{kind:<9} {', '.join(map(str, numbers))}" for kind, numbers in drawn.items()),
            render(table),
            f"folder    {folder}",
            *hours_lines(table),
        ]
    )


def footnotes(config: RunConfig, folder: Path, parts: Sequence[Part]) -> list[str]:
    """Return what stands under the table: where everything lies, what draws it, and which experiment this was not."""
    from ...core.options import read_yaml
    from ...runs.config.recipes import RECIPES

    lines = [f"results: {folder}"]
    if len({part.config.upstream.layer for part in parts}) > 1:
        lines.append(f"drawn by: headwater plot layers --probe {folder}")
    for task in () if config.is_joint else config.tasks.values():
        recipe = RECIPES / "superb" / f"{task.task}.yaml"
        superb = read_yaml(recipe)["corpus"] if recipe.is_file() else {}
        if superb.get("name") == task.corpus.name and superb.get("protocol") != task.corpus.protocol:
            lines.append(
                f"protocol {task.corpus.protocol} with {config.upstream.padding} padding is Headwater's own; "
                f"SUPERB's experiment is -c superb/{task.task}"
            )
    return lines


def hours_lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what to do for hours that are not known yet."""
    from ...plans.forecast import FIRST_STEPS

    unknown = any(row["hours left"] == "-" for row in rows)
    text = f"hours     are known once a run of a part has saved {FIRST_STEPS} steps: --plan again, also while it runs"
    return [text] * unknown


def run_left(runs: Runs, folder: Path, flags: Namespace, missing: Mapping[str, str], by: Sequence[str] = ()) -> dict[str, str]:
    """Run what is left and can be run; return what lacks a run, with the reason."""
    from ...plans.execute import run_parts

    everything, failed_before, runtime = whole_plan(runs, flags, missing, by)
    if flags.launch == NONE:
        failed_before = {**unfinished(everything, folder), **failed_before}
    try:
        _, failed = run_parts(everything, folder, runtime, flags.jobs, failed_before)
    except KeyboardInterrupt:
        print_note("the same command goes on where it was")
        raise
    return by_part(runs, failed)


def by_part(runs: Runs, failed: Mapping[str, str]) -> dict[str, str]:
    """Return which parts lack a run, with the first reason."""
    lacking = {name: [failed[run.name] for run in of_part if run.name in failed] for name, of_part in runs.items()}
    return {name: reasons[0] for name, reasons in lacking.items() if reasons}


def submit_left(
    words: Sequence[str], runs: Runs, folder: Path, flags: Namespace, missing: Mapping[str, str], by: Sequence[str] = ()
) -> int | None:
    """Submit what is left and can be run, and return the exit code; None: all is finished, and tables can be written."""
    everything, failed_before, runtime = whole_plan(runs, flags, missing, by)
    found = submitted(words, flags, everything, folder, runtime, failed_before)
    if found is None:
        return None
    print_result(*(f"missing   {name}: {reason}" for name, reason in by_part(runs, found.lost).items()))
    return 3 if found.lost else 0


def whole_plan(
    runs: Runs, flags: Namespace, missing: Mapping[str, str], by: Sequence[str]
) -> tuple[list[Part], dict[str, str], Runtime]:
    """Return all runs of a plan, those that cannot be run with the reason, and where they compute."""
    from ...runs.runtime import Runtime

    everything = [run for of_part in runs.values() for run in of_part]
    cannot = {run.name: missing[name] for name, of_part in runs.items() if name in missing for run in of_part}
    layers = {run.config.upstream.layer for run in everything if not run.config.is_joint}
    return everything, cannot, Runtime(flags.device, flags.quiet, share_layers=len(layers) > 1, by=tuple(by), named=True)


def gigabytes(size: float | None) -> str:
    """Return a size as the plan shows it; heads alone are next to nothing."""
    return "-" if size is None else f"{size / 1e9:.1f}" if size >= 5e7 else "< 0.1"


def hours(seconds: float | None) -> str:
    """Return a time as the plan shows it."""
    return "-" if seconds is None else f"{seconds / 3600:.1f}" if seconds >= 360 else f"{seconds / 3600:.2f}"
