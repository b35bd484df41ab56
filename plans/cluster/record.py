"""The record of what was submitted of a plan: which run is which job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.files import damaged_json, read_json
from ...core.run_folder import RunFolder


@dataclass(frozen=True)
class Submitted:
    """What jobs.json says: which run of a plan is which job."""

    name: str  # of all the jobs, in the queue
    jobs: Mapping[str, str] = field(default_factory=dict)  # run -> the id of its last job
    tables: str = ""  # the last job, which writes the tables; "": the plan is one run

    def log(self, job: str) -> Path:
        """Return the log of a job, below the plan's folder."""
        return RunFolder(Path()).cluster.path / f"{job}_0_log.out"

    def ended_well(self, job: str, folder: Path) -> bool:
        """Return whether a job of a plan came to its end: submitit writes its result then."""
        return (RunFolder(folder).cluster.path / f"{job}_0_result.pkl").is_file()


def read_submitted(folder: Path) -> Submitted:
    """Return what was submitted of a plan before; of a new plan, the name that its jobs will have."""
    path = RunFolder(folder).jobs
    if path.is_file():
        try:
            return Submitted(**read_json(path, ("name", "jobs", "tables")))
        except TypeError as problem:  # keys that are not ours
            raise damaged_json(path, str(problem)) from None
    return Submitted("headwater-" + re.sub(r"[^\w.+-]+", "_", folder.resolve().name))
