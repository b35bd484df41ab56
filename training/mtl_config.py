"""What a run of several tasks is told: one upstream, a section for each task, and how they share a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ..errors import UserError
from ..own_code import known_as
from ..upstream.base import UpstreamConfig
from .balance import BalanceConfig
from .config import (
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
    demo_recipe,
    identity_of,
    merge,
    resolve,
    task_default,
    to_mapping,
)
from .sampling import SamplingConfig
from .strict import SEED, bind, plain

TASK_KEYS = ("corpus", "labels", "select_by", "init_head")  # of a task's section, beside the task's own


@dataclass(frozen=True)
class MtlConfig:
    """All that decides what a run of several tasks computes."""

    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    tasks: dict[str, Any] = field(default_factory=dict)  # name -> its run's config; in yaml, what differs from the defaults
    shared_weights: bool = False  # one weighted sum for all tasks (the paper's) instead of one each
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    select: Literal["last", "gain"] = "last"  # which step is kept as the best: the last (the paper), or that of most gain
    baselines: dict[str, float] = field(default_factory=dict)  # task -> dev score of its single-task run, for select: gain
    seed: Annotated[int, SEED] = 1

    @property
    def runs(self) -> Mapping[str, RunConfig]:
        """The tasks' own configs."""
        return self.tasks


def resolve_mtl(layers: Sequence[Mapping[str, Any]], *, heard: bool = True) -> MtlConfig:
    """Return the config from mappings in rising precedence; every mistake is reported at once.

    Where nothing of the corpora will be heard, those whose readers are not here are taken as they are told.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    errors: list[str] = []
    sections = values.get("tasks") or {}
    if not isinstance(sections, Mapping) or not sections:
        raise UserError("Expected tasks, found none. Add --tasks emotion,ks (or a mapping `tasks:` to the recipe).")
    config = bind(MtlConfig, {**values, "tasks": {}}, "", errors)
    shared: dict[str, Any] = {key: values[key] for key in ("upstream", "seed") if key in values}
    shared |= {key: plain(getattr(config, key)) for key in ("optimizer", "training")}
    runs = {}
    for name, section in sections.items():
        try:
            runs[name] = task_config(name, dict(section or {}), shared, heard=heard)
        except UserError as problem:
            errors += [f"{name}: {line}" for line in str(problem).splitlines()]
    unknown = [name for name in config.baselines if name not in sections]
    errors += [f"Expected a task of the run in 'baselines', found '{name}'." for name in unknown]
    if config.select == "gain" and {*sections} - {*config.baselines}:
        missing = ", ".join(name for name in sections if name not in config.baselines)
        errors.append(f"Expected baselines of all tasks for select=gain, found none of {missing}. Run --scenario single first.")
    if errors:
        raise UserError("\n".join(errors))
    return replace(config, tasks=runs)


def task_config(name: str, section: dict[str, Any], shared: Mapping[str, Any], *, heard: bool = True) -> RunConfig:
    """Return one task as a run of its own would have it, on the run's upstream, optimizer and steps."""
    task = known_as(str(section.pop("task", name)), "task", "--tasks")
    size = section.pop("batch_size", None)
    demo = demo_recipe(task) if (section.get("corpus") or {}).get("demo") else {}
    known = {*TASK_KEYS, task}
    strange = sorted({*section} - known)
    if strange:
        raise UserError(f"Unknown option 'tasks.{name}.{strange[0]}'. A task has: batch_size, task, {', '.join(sorted(known))}.")
    below = {key: value for key, value in merge(task_default(task), demo).items() if key in known}
    batch = {} if size is None else {"training": {"batch_size": size}}
    return resolve([below, shared, {"task": task, **section}, batch], heard=heard)


def mtl_mapping(config: MtlConfig) -> dict[str, Any]:
    """Return the resolved config as a recipe."""
    mapping = plain(replace(config, tasks={}))
    return {**mapping, "tasks": {name: section_of(run) for name, run in config.runs.items()}}


def section_of(run: RunConfig) -> dict[str, Any]:
    """Return what a task's section of a recipe holds."""
    whole = to_mapping(run)
    return {"task": run.task, "batch_size": run.training.batch_size} | {key: whole[key] for key in (*TASK_KEYS, run.task)}


def mtl_identity(config: MtlConfig) -> dict[str, Any]:
    """Return the part of a config that decides the numbers."""
    mapping, runs = mtl_mapping(config), {name: identity_of(run) for name, run in config.runs.items()}
    told = {"log_every", "save_every"}
    training = {key: value for key, value in mapping["training"].items() if key not in told}
    one = next(iter(runs.values()))
    tasks = {
        name: {key: run[key] for key in (*TASK_KEYS, config.runs[name].task)} | {"batch_size": run["training"]["batch_size"]}
        for name, run in runs.items()
    }
    same = {key: one[key] for key in ("optimizer", "upstream")}
    return {**mapping, "training": training, **same, "tasks": tasks}


def without(config: MtlConfig, task: str) -> MtlConfig:
    """Return the run of all tasks but one."""
    return replace(
        config,
        tasks={name: run for name, run in config.runs.items() if name != task},
        baselines={name: value for name, value in config.baselines.items() if name != task},
        balance=replace(config.balance, weights={name: value for name, value in config.balance.weights.items() if name != task}),
    )


def is_mtl(folder: Path) -> bool:
    """Return whether a run folder holds a run of several tasks."""
    from .config import read_yaml

    return "tasks" in read_yaml(folder / "config.yaml")
