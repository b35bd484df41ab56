"""Profiles of a cluster: what a job asks Slurm for, in the user's config file."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from ...core.errors import UserError, nearest
from ...core.options import ABOVE_0, AT_LEAST_0, bind
from ...core.user_config import config_file, configured

SECTION = "cluster"  # of the user's config file
EXAMPLE = "cluster: {profiles: {gpu: {partition: gpu, gpus: 1, cpus: 8, memory: 32GB, time: 4h}}}"
UNITS = {"d": 1440, "h": 60, "m": 1}  # minutes
OURS = ("array", "dependency", "error", "job-name", "open-mode", "output", "signal")  # of sbatch: each job has its own
WRITTEN = {name.replace("-", "_"): name for name in ("partition", "account", "qos")}


@dataclass(frozen=True)
class Profile:
    """What each run of a plan asks Slurm for."""

    partition: str | None = None  # null: the cluster's own default
    account: str | None = None
    qos: str | None = None
    gpus: Annotated[int, AT_LEAST_0] = 0  # of a run
    processes: Annotated[int, ABOVE_0] = 1  # of a run, as many as its gpus: it trains on all of them
    cpus: Annotated[int, ABOVE_0] = 1  # of a process, and its threads
    memory: str | None = None  # 32GB
    time: str = "24h"  # a run that is cut off is queued again, and goes on: 30m, 4h, 1d12h
    restarts: Annotated[int, AT_LEAST_0] = 10  # after so many of these limits a run counts as failed
    at_once: Annotated[int, ABOVE_0] = 256  # runs of an array
    setup: list[str] = field(default_factory=list)  # lines of shell in front of each run: module load cuda
    sbatch: list[str] = field(default_factory=list)  # other options of sbatch: --constraint=a100
    tables: dict[str, Any] = field(default_factory=dict)  # what is different for the last job, which writes the tables

    @property
    def minutes(self) -> int:
        """The time limit of a run."""
        return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([dhm])", self.time))

    def parameters(self) -> dict[str, Any]:
        """Return the profile in submitit's words."""
        named = {name: getattr(self, name) for name in WRITTEN}
        named |= {"mem": self.memory and self.memory.replace(" ", ""), "gpus_per_node": self.gpus or None}
        own = dict(map(sbatch_option, self.sbatch))
        return {
            **{name: value for name, value in named.items() if value is not None},
            "time": self.minutes,
            "ntasks_per_node": self.processes,
            "cpus_per_task": self.cpus,
            "array_parallelism": self.at_once,
            # srun does not take the number of CPUs from its job in every version of Slurm
            "srun_args": [f"--cpus-per-task={self.cpus}"],
            "additional_parameters": {"requeue": True, **own},
        }


def read_profile(name: str | None) -> tuple[str, Profile]:
    """Return the profile of a name with its name: without one the `default`, or the only one that there is."""
    path, content = config_file(), configured(SECTION, EXAMPLE)
    if not content:
        raise UserError(
            f"Expected profiles of the cluster in '{path}', found none. Write them as in docs/guides/clusters.md: {EXAMPLE}"
        )
    other = next((key for key in content if key not in ("default", "profiles")), None)
    if other is not None:
        near = nearest(str(other), ("default", "profiles"))
        raise UserError(f"Unknown option '{SECTION}.{other}' in '{path}'.{near} Known: default, profiles.")
    profiles = content.get("profiles")
    if not isinstance(profiles, Mapping) or not profiles:
        raise UserError(f"Expected a mapping `cluster.profiles` in '{path}', found {profiles!r}. For instance: {EXAMPLE}")
    chosen = name or content.get("default") or (next(iter(profiles)) if len(profiles) == 1 else None)
    known = ", ".join(map(str, profiles))
    if chosen is None:
        raise UserError(
            f"Expected --profile with one of {known}, or `default: NAME` below `cluster` in '{path}', found neither. Name one."
        )
    if chosen not in profiles:
        raise UserError(f"Expected a profile of '{path}', found '{chosen}'.{nearest(str(chosen), profiles)} There: {known}.")
    errors: list[str] = []
    profile = checked(profiles[chosen] or {}, f"profiles.{chosen}", errors)
    if errors:
        raise UserError("\n".join(f"{error} (in '{path}')" for error in errors))
    return str(chosen), profile


def of_tables(profile: Profile) -> Profile:
    """Return what the last job asks for, which computes little."""
    return bind(Profile, {**asdict(profile), **profile.tables, "tables": {}}, "", [])


def checked(values: Any, where: str, errors: list[str]) -> Profile:
    """Return a profile; what is wrong with it goes into `errors`."""
    if isinstance(values, Mapping) and not isinstance(values.get("time", ""), str):  # yaml reads 4:00:00 as 14400
        errors.append(
            f"Expected a time such as 30m, 4h or 1d12h at '{where}.time', found the number {values['time']}. Add a unit."
        )
        values = {key: value for key, value in values.items() if key != "time"}
    profile: Profile = bind(Profile, values, where, errors)
    if not re.fullmatch(r"(\d+d)?(\d+h)?(\d+m)?", profile.time) or not profile.minutes:
        errors.append(f"Expected a time such as 30m, 4h or 1d12h at '{where}.time', found '{profile.time}'. Write it so.")
    if profile.memory is not None and not re.fullmatch(r"\d+ ?[KMGT]B?", profile.memory):
        errors.append(f"Expected memory such as 32GB at '{where}.memory', found '{profile.memory}'. Write it so.")
    for line in profile.sbatch:
        option, _ = sbatch_option(line)
        named = {
            "cpus-per-task": "cpus",
            "gpus-per-node": "gpus",
            "mem": "memory",
            "time": "time",
            **{v: v for v in WRITTEN.values()},
        }
        if option in OURS:
            errors.append(
                f"Expected other options at '{where}.sbatch', found --{option}, which each job has of its own. Leave it out."
            )
        elif option in named:
            errors.append(f"Expected '{where}.{named[option]}', found --{option} at '{where}.sbatch'. Write it there.")
        elif not line.strip().removeprefix("#SBATCH").strip().startswith("--"):
            errors.append(f"Expected options such as --constraint=a100 at '{where}.sbatch', found '{line}'. Begin it with --.")
    if profile.tables:
        checked({key: value for key, value in profile.tables.items() if key != "tables"}, f"{where}.tables", errors)
        if "tables" in profile.tables:
            errors.append(f"Unknown option '{where}.tables.tables'. Leave it out.")
    return profile


def sbatch_option(line: str) -> tuple[str, str | bool]:
    """Return an option of sbatch as its name and value.

    >>> sbatch_option("#SBATCH --constraint=a100"), sbatch_option("--exclusive")
    (('constraint', 'a100'), ('exclusive', True))
    """
    name, _, value = re.sub(r"^#SBATCH\s+", "", line.strip()).partition("=") if "=" in line else line.strip().partition(" ")
    return name.strip().lstrip("-"), value.strip() or True


def shell_lines(profile: Profile, exported: Mapping[str, str]) -> list[str]:
    """Return the lines of shell that stand in front of each run: the user's, and the environment that a run needs."""
    return [*profile.setup, *(f"export {name}={shlex.quote(value)}" for name, value in exported.items())]
