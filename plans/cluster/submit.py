"""Submit the runs of a plan to Slurm: an array for those that are ready together, the others behind what they start from."""

from __future__ import annotations

import importlib.util
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...core import process as children
from ...core.errors import UserError
from ...core.files import write_json
from ...core.installation import install_command
from ...core.run_folder import RunFolder
from ...core.user_config import config_file
from ...plugins.code import refuse_edited
from ...runs.log.trackers import refuse_unknown
from ...runs.runtime import PlanPlace, Runtime
from ..execute import Part, has_lost_its_start, planned, refuse_foreign
from ..record import write_record
from .job import TablesJob, job_of
from .profile import Profile, of_tables, shell_lines
from .queue import cancel, queue
from .record import read_submitted

LARGEST_ARRAY = 1000  # Slurm's own limit is 1001, where a site has set no other


@dataclass(frozen=True)
class Submission:
    """What a submission came to."""

    new: Mapping[str, str]  # run -> job
    at_work: Mapping[str, str]  # run -> job of an earlier submission
    done: Sequence[str]
    lost: Mapping[str, str]  # run -> why it was not submitted
    tables: str = ""


def refuse_no_cluster() -> None:
    """Refuse a machine that cannot submit: without submitit, or without Slurm."""
    if importlib.util.find_spec("submitit") is None:
        raise UserError(f"Expected submitit for --launch slurm, found none. Run: {install_command('cluster')}")
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise UserError(
                f"Expected Slurm's {program} on this machine for --launch slurm, found none. Type the command where `sbatch` "
                "works (a login node), or leave --launch out."
            )


def submit(
    parts: Sequence[Part],
    folder: Path,
    runtime: Runtime,
    profile: Profile,
    words: Sequence[str],
    passed_over: Mapping[str, str] | None = None,
) -> Submission:
    """Submit every run that is neither finished nor at work, and behind them the command (`words`) that writes the tables."""
    refuse_no_cluster()
    refuse_edited()
    for part in parts:
        refuse_unknown(part.config)  # before jobs wait for hours to say so
    lost = dict(passed_over or {})
    for name, reason in foreign(parts, folder).items():
        if passed_over is None:
            raise UserError(reason)
        lost[name] = reason
    there = RunFolder(folder)
    with there.cluster.locked():  # two submissions at once would both find the same runs left
        before = read_submitted(folder)
        known = queue(before.name) if before.jobs else {}
        at_work = {run: job for run, job in before.jobs.items() if job in known and known[job].is_open}
        done = [part.name for part in parts if RunFolder(folder / part.name).is_finished]
        begun = {*done, *at_work}
        left = [part for part in parts if part.name not in begun and part.name not in lost and not has_lost_its_start(part, lost)]
        if len(parts) > 1:
            write_record(folder, planned(parts), lost)
        if not left:
            return Submission({}, at_work, done, lost, before.tables)
        sender = Sender(folder.resolve(), before.name, profile)
        own = replace(runtime, quiet=False)  # a log is read when something is wrong
        places = {part.name: PlanPlace(number, len(parts)) for number, part in enumerate(parts, 1)}
        now = before
        for ready, needs in waves(left, begun):
            behind = [job for need in needs if (job := now.jobs.get(need)) and need not in done]
            jobs = sender.send([job_of(part, folder, replace(own, place=places[part.name])) for part in ready], behind)
            now = replace(now, jobs={**now.jobs, **dict(zip((part.name for part in ready), jobs, strict=True))})
            write_json(there.jobs, asdict(now))  # at once: a submission that is cut off knows what it has sent
        new = {part.name: now.jobs[part.name] for part in left}
        if len(parts) > 1:
            if before.tables and before.tables in known and known[before.tables].is_waiting:
                cancel(before.tables)  # it would not wait for the new runs
            waits = [now.jobs[part.name].partition("_")[0] for part in parts if part.name in {*new, *at_work}]
            now = replace(now, tables=sender.send([TablesJob(words)], waits, of_tables(profile))[0])
            write_json(there.jobs, asdict(now))
    return Submission(new, at_work, done, lost, now.tables)


def foreign(parts: Sequence[Part], folder: Path) -> dict[str, str]:
    """Return the runs in whose folders others stand, as far as it can be told before the runs are there that they start from."""
    found = {}
    for part in parts:
        if all(RunFolder(folder / need).is_finished for need in part.needs.values()):
            try:
                refuse_foreign(part, folder)
            except UserError as problem:
                found[part.name] = str(problem)
    return found


def waves(left: Sequence[Part], there: set[str]) -> list[tuple[list[Part], list[str]]]:
    """Return the runs that start from the same others together, each after those that it starts from.

    `there` are the runs that are finished or at work: nothing waits for their submission.
    """
    groups: dict[tuple[str, ...], list[Part]] = {}
    for part in left:
        groups.setdefault(tuple(sorted({*part.needs.values()})), []).append(part)
    sent, found = set(there), list[tuple[list[Part], list[str]]]()
    while groups:
        ready = [needs for needs in groups if {*needs} <= sent]
        assert ready, f"runs wait for others that are not in the plan: {[*groups]}"
        for needs in ready:
            runs = groups.pop(needs)
            found += [(runs[begin : begin + LARGEST_ARRAY], [*needs]) for begin in range(0, len(runs), LARGEST_ARRAY)]
        sent |= {part.name for runs, _ in found for part in runs}
    return found


@dataclass(frozen=True)
class Sender:
    """How jobs get to Slurm: by submitit, with their logs in the plan's folder."""

    folder: Path
    name: str
    profile: Profile

    def send(self, jobs: Sequence[Callable[[], None]], behind: Sequence[str], profile: Profile | None = None) -> list[str]:
        """Submit jobs as one array, behind the end of others; return their ids."""
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedSubmissionError, UncompletedJobError

        profile = profile or self.profile
        parameters = {**profile.parameters(), "job_name": self.name, "stderr_to_stdout": True, "wckey": None}
        if behind:  # however they ended: a job looks itself whether what it starts from is there, and says so
            parameters["dependency"] = "afterany:" + ":".join(dict.fromkeys(behind))
        exported = {name: children.environment()[name] for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
        parameters["setup"] = shell_lines(profile, {**exported, "OMP_NUM_THREADS": str(profile.cpus)})
        place = RunFolder(self.folder).cluster.path
        executor = SlurmExecutor(place, max_num_timeout=profile.restarts)
        there = {*place.iterdir()}
        try:
            with redirect_stderr(io.StringIO()):  # what it prints of a mistake stands in the message, too
                executor.update_parameters(**parameters)
                with executor.batch():
                    sent = [executor.submit(job) for job in jobs]
        except (FailedSubmissionError, UncompletedJobError) as problem:
            for path in {*place.iterdir()} - there:
                path.unlink()
            found = "; ".join(line.removeprefix("sbatch: error: ") for line in str(problem).splitlines())
            raise UserError(
                f"Expected sbatch to take {len(jobs)} job{'s' * (len(jobs) > 1)}, found: {found.rstrip('.')}. "
                f"Mend the profile in '{config_file()}'."
            ) from None
        return [job.job_id for job in sent]
