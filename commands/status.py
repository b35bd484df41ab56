"""Show where a plan stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from .common.console import print_note, print_result
from .common.shell import Parser

if TYPE_CHECKING:
    from ..plans.status import PlanStatus, RunStatus

HELP = "show which runs of a plan wait, run (pace, time left), are done or failed, here or on Slurm"
EXAMPLE = "headwater status result/mtl/mine"


def main(arguments: Sequence[str]) -> int:
    """Print the runs of a plan with their states."""
    parser = Parser("headwater status", "Show where the runs of a plan stand; nothing is changed.", EXAMPLE)
    parser.add_argument("plan", metavar="PLAN", help="the folder of a plan, or of one run")
    parser.add_argument("--json", action="store_true", help="print it as json")
    flags = parser.parse_args(arguments)
    from ..plans.status import plan_status

    folder = Path(flags.plan).expanduser()
    if not folder.is_dir():
        raise UserError(f"Expected the folder of a plan, found none at '{flags.plan}'. Check the path.")
    status = plan_status(folder)
    if flags.json:
        print_result(json.dumps({**asdict(status), "folder": str(folder), "counts": status.counts}, indent=2, ensure_ascii=False))
        return 0
    print_note(*(f"note      {note}" for note in status.notes))
    print_result(*lines_of(status))
    return 0


def lines_of(status: PlanStatus) -> list[str]:
    """Return a plan's status as a table."""
    from ..analysis.columns import render

    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items())
    rows = [*status.runs, *[status.tables] * (status.tables is not None)]
    return [f"plan      {status.folder}: {counts}", render([row_of(run, status.folder) for run in rows if run])]


def row_of(run: RunStatus, folder: Path) -> dict[str, str]:
    """Return a run's row; a head that is solved takes one step, and has no pace worth a number."""
    from ..core.text import duration

    steps = f"{run.step} of {run.steps}" if run.steps else f"{run.step}" * bool(run.step)
    return {
        "run": folder.resolve().name if run.name == "." else run.name,
        "state": run.state,
        "step": steps,
        "steps/s": "" if run.pace is None or run.steps == 1 else f"{run.pace:.2f}",
        "left": f"at most {duration(run.left)}" if run.left else "",
        "job": run.job,
        "": run.note,
    }
