"""The status of a plan: which of its runs wait, run, are done or failed, read from their folders and from Slurm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import FolderInUse, RunFolder
from .cluster.queue import Job, ended, queue
from .cluster.record import Submitted, read_submitted
from .record import PlannedRun, read_record
from .standing import standing, step_of

WAITING, RUNNING, STOPPED, DONE, FAILED, UNKNOWN = "waiting", "running", "stopped", "done", "failed", "unknown"
STATES = (RUNNING, WAITING, DONE, STOPPED, FAILED, UNKNOWN)
LAST_BYTES = 8192  # of a log: its last line is among them
OWN_LINES = ("submitit ", "slurmstepd", "srun: ")  # in front of what others print into our logs
TABLES = "tables"
Jobs = Mapping[str, Job]  # by id


@dataclass(frozen=True)
class RunStatus:
    """Where a run of a plan stands."""

    name: str
    state: str
    step: int = 0
    steps: int = 0  # at most
    pace: float | None = None  # steps a second
    left: float | None = None  # seconds, at most
    note: str = ""  # a score, why it waits, what stopped it
    job: str = ""


@dataclass(frozen=True)
class PlanStatus:
    """Where a plan stands."""

    folder: Path
    runs: Sequence[RunStatus]
    tables: RunStatus | None  # the last job of a plan on a cluster
    notes: Sequence[str]  # what could not be found out

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in which state."""
        states = [run.state for run in self.runs]
        return {state: states.count(state) for state in STATES if state in states}


def plan_status(folder: Path) -> PlanStatus:
    """Return where the runs of a plan stand; Slurm is asked where the plan went there."""
    there = RunFolder(folder)
    record = read_record(folder)
    submitted = read_submitted(folder) if there.jobs.is_file() else None
    listed = {run.name: run for run in record.runs} if record else {}
    found = [PlannedRun(name, 0) for name in names_below(folder) if name not in listed]
    found += [
        PlannedRun(name, 0) for name in (submitted.jobs if submitted else ()) if name not in {*listed, *names_below(folder)}
    ]
    runs = [*listed.values(), *found]
    if not runs:
        raise UserError(f"Expected a plan or a run in '{folder}', found neither. Check the path.")
    jobs, notes = jobs_of(submitted, [run.name for run in runs if not RunFolder(folder / run.name).is_finished])
    failed = record.failed if record else {}
    rows = [status_of(run, folder, submitted, jobs, failed.get(run.name, "")) for run in runs]
    return PlanStatus(folder, rows, tables_status(folder, submitted, jobs), notes)


def names_below(folder: Path) -> list[str]:
    """Return the runs at or below a folder."""
    return [place.relative_to(folder).as_posix() for place in RunFolder(folder).below()]


def jobs_of(submitted: Submitted | None, unfinished: Sequence[str]) -> tuple[Jobs | None, list[str]]:
    """Return what Slurm knows of a plan's jobs (None: it could not be asked), and what it could not say."""
    if submitted is None:
        return {}, []
    try:
        jobs = queue(submitted.name)
    except UserError as problem:
        return None, [f"{problem} Below stands what the folders show."]
    wanted = {submitted.jobs[name] for name in unfinished if name in submitted.jobs} | {submitted.tables} - {""}
    try:
        return {**ended(wanted - {*jobs}), **jobs}, []
    except UserError:  # many sites keep no accounts: the log has what stopped a run
        return jobs, []


def status_of(run: PlannedRun, folder: Path, submitted: Submitted | None, jobs: Jobs | None, failed: str) -> RunStatus:
    """Return where one run stands; `failed` is why a local plan has no result of it."""
    place, job_id = RunFolder(folder / run.name), submitted.jobs.get(run.name, "") if submitted else ""
    if place.is_finished:
        return finished_status(run, place, job_id)
    steps = run.steps or steps_of(place)
    step = min(step_of(place.metrics), steps or step_of(place.metrics))
    row = RunStatus(run.name, UNKNOWN, step, steps, job=job_id)
    job = jobs.get(job_id) if jobs else None
    if job is not None and job.is_waiting:
        return replace(row, state=WAITING, note=f"goes on at step {step}; " * bool(step) + waits(job, run))
    if (job is not None and job.is_open) or is_in_use(place):
        pace = pace_of(place, step)
        return replace(row, state=RUNNING, pace=pace, left=(steps - step) / pace if pace and steps else None)
    if submitted is not None and job_id:
        log = submitted.log(job_id)
        line = last_line(folder / log)
        if jobs is None:  # it may wait, too
            return replace(row, note=f"{line} ({log})" * bool(line))
        state = f"{job.state}: " if job is not None and job.state not in ("FAILED", "COMPLETED") else ""
        return replace(row, state=FAILED, note=f"{state}{line or 'its log is empty'} ({log})")
    if why := last_line(place.stopped) or failed:
        return replace(row, state=FAILED, note=why)
    if place.config.is_file():
        return replace(row, state=STOPPED, note="nobody is at work on it: the same command goes on")
    return replace(row, state=WAITING, note=f"starts from {', '.join(run.needs)}" * bool(run.needs))


def finished_status(run: PlannedRun, place: RunFolder, job: str) -> RunStatus:
    """Return the status of a run that is done."""
    result = place.read().result()
    seconds, step = float(result.get("environment", {}).get("seconds", 0.0)), int(result.get("steps", 0))
    return RunStatus(run.name, DONE, step, run.steps or step, step / seconds if seconds else None, 0.0, score_note(result), job)


def is_in_use(place: RunFolder) -> bool:
    """Return whether a process is at work in a folder."""
    try:
        place.refuse_in_use()
    except FolderInUse:
        return True
    return False


def waits(job: Job, run: PlannedRun) -> str:
    """Return what a job waits for."""
    start = f"starts from {', '.join(run.needs)}; " * (bool(run.needs) and job.reason == "Dependency")
    return f"{start}Slurm: {job.reason or job.state.capitalize()}"


def pace_of(place: RunFolder, step: int) -> float | None:
    """Return a run's steps a second: over its saved steps, else since its process began."""
    saved, seconds = standing(place.path)
    if saved and seconds:
        return saved / seconds
    try:
        seconds = place.metrics.stat().st_mtime - place.lock.stat().st_mtime
    except OSError:  # it has logged nothing yet
        return None
    return step / seconds if step and seconds > 0 else None


def steps_of(place: RunFolder) -> int:
    """Return how many steps a run's config has."""
    return int(place.read().config().get("training", {}).get("steps", 0)) if place.config.is_file() else 0


def last_line(path: Path) -> str:
    """Return the last line of a log that the program itself printed."""
    lines = [line.strip() for line in read_end(path).splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(OWN_LINES)]
    return (own or lines or [""])[-1]


def read_end(path: Path) -> str:
    """Return the end of a log; of one that is not there, nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def score_note(result: Mapping[str, Any]) -> str:
    """Return the score of a finished run of one task on test, by the metric that chose its step."""
    metric, scores = result.get("select_by"), result.get("scores", {})
    value = scores.get("test", {}).get(metric)
    return f"test {metric} {value:.3f}" if isinstance(value, float) else ""


def tables_status(folder: Path, submitted: Submitted | None, jobs: Jobs | None) -> RunStatus | None:
    """Return where the last job of a plan stands, which writes its tables."""
    if submitted is None or not submitted.tables:
        return None
    job, log = (jobs or {}).get(submitted.tables), submitted.log(submitted.tables)
    row = RunStatus(TABLES, UNKNOWN, job=submitted.tables, note=str(log))
    if job is not None and job.is_open:
        waiting = job.is_waiting
        return replace(row, state=WAITING if waiting else RUNNING, note=f"Slurm: {job.reason}" if waiting else str(log))
    if submitted.ended_well(submitted.tables, folder) and (job is None or job.state == "COMPLETED"):
        return replace(row, state=DONE)
    return row if jobs is None else replace(row, state=FAILED, note=f"{last_line(folder / log)} ({log})")
