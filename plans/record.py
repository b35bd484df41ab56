"""The record of a plan: which runs it has, and why some of them have no result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..core.files import damaged_json, made, plain_disk_errors, read_json, write_json
from ..core.process import is_main
from ..core.run_folder import RunFolder


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan: how many steps it has at most, and the runs that it starts from."""

    name: str  # folder below the plan's
    steps: int
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Record:
    """What plan.json says: the runs of the last command, and what stopped some of them."""

    runs: Sequence[PlannedRun] = ()
    failed: Mapping[str, str] = field(default_factory=dict)  # run -> why it has no result


def write_record(folder: Path, runs: Sequence[PlannedRun], failed: Mapping[str, str]) -> None:
    """Write plan.json."""
    if is_main():
        with plain_disk_errors(folder):
            write_json(RunFolder(folder).plan, asdict(Record(runs, failed)))


def read_record(folder: Path) -> Record | None:
    """Return what plan.json says; None where there is none: one run, or a plan from before there were records."""
    path = RunFolder(folder).plan
    if not path.is_file():
        return None
    content: Mapping[str, Any] = read_json(path, ("runs", "failed"))
    try:
        return Record([PlannedRun(**row) for row in content["runs"]], dict(content["failed"]))
    except (TypeError, ValueError) as problem:  # rows of another kind
        raise damaged_json(path, str(problem)) from None


@contextmanager
def recorded(folder: Path, runs: Sequence[PlannedRun], failed: Mapping[str, str]) -> Iterator[None]:
    """Keep the record of a plan while it runs; `failed` is read again at its end.

    A plan that begins nothing leaves no record.
    """
    with made(folder):
        write_record(folder, runs, failed)
        try:
            yield
        finally:
            if is_main():
                if [*folder.iterdir()] == [RunFolder(folder).plan]:
                    RunFolder(folder).plan.unlink()
                else:
                    write_record(folder, runs, failed)
