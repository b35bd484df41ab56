"""Slurm's queue: which jobs wait, which run, and how those that are gone came to their end."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass

from ...core.errors import UserError

OPEN = (
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "RESIZING",
    "STOPPED",
    "SIGNALING",
)
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING")
SECONDS = 60  # for Slurm to answer


@dataclass(frozen=True)
class Job:
    """What Slurm knows of a job."""

    state: str  # PENDING, RUNNING, COMPLETED, TIMEOUT …
    reason: str = ""  # why it waits

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN

    @property
    def is_waiting(self) -> bool:
        """Whether it waits."""
        return self.state in WAITING


def queue(name: str) -> dict[str, Job]:
    """Return the jobs of a name, by id, with those that Slurm has not forgotten yet."""
    text = output(["squeue", "--noheader", "--array", "--states=all", f"--name={name}", "--format=%i|%T|%r"])
    rows = [line.strip().split("|") for line in text.splitlines() if line.count("|") == 2]
    return {job: Job(state, "" if reason == "None" else reason) for job, state, reason in rows}


def ended(jobs: Collection[str]) -> dict[str, Job]:
    """Return how jobs came to their end that the queue has forgotten, from Slurm's accounts."""
    if not jobs:
        return {}
    text = output(["sacct", "--noheader", "--parsable2", "--format=JobID,State", f"--jobs={','.join(sorted(jobs))}"])
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 1]
    return {job: Job(state.split(" ")[0]) for job, state in rows if re.fullmatch(r"\d+(_\d+)?", job)}


def cancel(job: str) -> None:
    """Take a job out of the queue."""
    output(["scancel", job])


def output(command: list[str]) -> str:
    """Return what a program of Slurm's prints."""
    if shutil.which(command[0]) is None:
        raise UserError(f"Expected Slurm's {command[0]} on this machine, found none. Type it where `sbatch` works.")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"Expected an answer from {command[0]}, found none in {SECONDS} s. Is Slurm up? Try again.") from None
    if done.returncode:
        found = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1].rstrip(".")
        raise UserError(f"Expected {command[0]} to work, found: {found}. Is Slurm up? Try again.")
    return done.stdout
