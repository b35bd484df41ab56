"""Where the runs of a plan are trained: --launch local, slurm, or none."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from ...core.process import in_launch
from .console import print_result

if TYPE_CHECKING:
    from ...plans.cluster.submit import Submission
    from ...plans.execute import Part
    from ...runs.runtime import Runtime

LOCAL, SLURM, NONE = "local", "slurm", "none"
NOT_FINISHED = "it is not finished, and --launch none trains nothing"
# what the last job's command says otherwise: flag -> words behind it
REPLACED = {"--launch": 1, "--profile": 1, "--again": 0, "-n": 1, "--expname": 1, "-p": 1, "--expdir": 1, "--quiet": 0}


def add_launch(add: Callable[..., Any]) -> None:
    """Add the flags to a parser."""
    help_text = (
        "where runs are trained: local (here, default), slurm (each is a job), none (only write the tables of those there)"
    )
    add("--launch", choices=(LOCAL, SLURM, NONE), default=LOCAL, help=help_text)
    help_text = "the profile for --launch slurm: partition, GPUs, time (docs/guides/clusters.md)"
    add("--profile", metavar="NAME", help=help_text)


def refuse_launch(flags: Namespace) -> None:
    """Refuse flags that do not go together."""
    if flags.launch != SLURM:
        if flags.profile:
            raise UserError(f"Expected --launch slurm beside --profile {flags.profile}, found none. Add it.")
        return
    if flags.jobs > 1:
        raise UserError(
            f"Expected no --jobs beside --launch slurm, found --jobs {flags.jobs}. Slurm runs as many as `at_once` of the "
            "profile allows: leave --jobs out."
        )
    if in_launch():
        raise UserError(
            "Expected one process for --launch slurm, found torchrun. `processes` of the profile says how many a run has."
        )


def unfinished(parts: Sequence[Part], folder: Path) -> dict[str, str]:
    """Return the runs that --launch none passes over, with the reason."""
    from ...core.run_folder import RunFolder

    return {part.name: NOT_FINISHED for part in parts if not RunFolder(folder / part.name).is_finished}


def refuse_unfinished(parts: Sequence[Part], folder: Path) -> None:
    """Refuse --launch none for a plan whose table needs runs that are not there."""
    lacking = [*unfinished(parts, folder)]
    if lacking:
        raise UserError(
            f"Expected all of the {len(parts)} runs in '{folder}' finished for --launch none, found that {', '.join(lacking[:4])}"
            f"{' …' * (len(lacking) > 4)} {'is' if len(lacking) == 1 else 'are'} not. See `headwater status {folder}`."
        )


def submitted(
    words: Sequence[str],
    flags: Namespace,
    parts: Sequence[Part],
    folder: Path,
    runtime: Runtime,
    passed_over: Mapping[str, str] | None = None,
) -> Submission | None:
    """Submit what is left of a plan, and print what became of it; None: all of it is finished, only tables are left.

    `words` is the user's command, its verb first.
    """
    from ...plans.cluster.profile import read_profile
    from ...plans.cluster.submit import submit

    name, profile = read_profile(flags.profile)
    found = submit(parts, folder, runtime, profile, words_of_tables(words, folder), passed_over)
    if not found.new and not found.at_work:
        return None
    print_result(*lines_of(found, name, len(parts), folder))
    return found


def lines_of(found: Submission, profile: str, count: int, folder: Path) -> list[str]:
    """Return what a submission came to, in words."""
    from ...core.run_folder import RunFolder

    others = [f"{len(found.done)} finished"] * bool(found.done)
    others += [f"{len(found.at_work)} at work already ({', '.join(arrays_of(found.at_work))})"] * bool(found.at_work)
    others += [f"{len(found.lost)} passed over"] * bool(found.lost)
    rest = f"; {', '.join(others)}" * bool(others)
    jobs = f" as job{'s' * (len(arrays_of(found.new)) > 1)} {', '.join(arrays_of(found.new))}" if found.new else ""
    return [
        f"submitted {len(found.new)} of {count} run{'s' * (count > 1)} to Slurm{jobs}, profile {profile}{rest}",
        *[f"tables    job {found.tables}, after the last run: its log has them"] * bool(found.tables),
        f"logs      {RunFolder(folder).cluster.path}",
        f"look      headwater status {folder}",
    ]


def arrays_of(jobs: Mapping[str, str]) -> list[str]:
    """Return the ids of jobs, an array counted once."""
    return [*dict.fromkeys(job.partition("_")[0] for job in jobs.values())]


def words_of_tables(words: Sequence[str], folder: Path) -> list[str]:
    """Return the command that writes the tables of a plan: the user's own, in the folder that this one went to.

    >>> words_of_tables(["mtl", "-u", "fbank", "--launch=slurm", "-n", "mine"], Path("result/mine"))
    ['mtl', '-u', 'fbank', '-p', 'result/mine', '--launch', 'none']
    """
    kept, passed = list[str](), 0
    for word in words:
        flag, equals, _ = word.partition("=")
        if passed:
            passed -= 1
        elif flag in REPLACED:
            passed = 0 if equals else REPLACED[flag]
        elif word[:2] in ("-n", "-p") and len(word) > 2:  # -nNAME
            continue
        else:
            kept.append(word)
    return [*kept, "-p", str(folder), "--launch", NONE]
