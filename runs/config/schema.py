"""What a run is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ...core.options import ABOVE_0, SEED, plain
from ...core.run_folder import RunFolder
from ...downstream.labels import LabelsConfig
from ...training.balance import BalanceConfig
from ...training.config import OptimizerConfig, TrainingConfig
from ...training.sampling import SamplingConfig
from ...upstream.base import Modality, UpstreamConfig

MODES = ("off", "auto", "on", "check")  # of the store; anything else is its folder


@dataclass(frozen=True)
class CorpusConfig:
    """The `corpus:` section: what is heard, and how it is split."""

    name: str = ""  # "": the task's usual corpus
    data: str | None = None  # folder or manifest; None: $HEADWATER_DATA/<name> or the user's config file
    protocol: str = ""  # "": the reader's first
    fold: int = 1
    options: dict[str, Any] = field(default_factory=dict)  # the reader's own
    demo: bool = False
    demo_scale: Annotated[float, ABOVE_0] = 1.0
    skip_broken: bool = False
    transcripts: str | None = None  # a table of id and text, or a model of `corpus transcribe`; None: the corpus' own words
    missing_text: Literal["refuse", "drop", "empty"] = "refuse"  # of an utterance without a transcript, where text is read


@dataclass(frozen=True)
class StoreConfig:
    """The `store:` section: features of a frozen upstream, computed once. It changes how long a run takes, not what it is."""

    mode: str = "auto"  # off, auto (where it fits), on, check (compare one batch with the full computation), or a folder
    limit: str | None = None  # 20GB; None: the smaller of 50 GB and a quarter of the free disk
    memory: str = "4GB"  # means above this are read from the disk
    crops: Annotated[int, ABOVE_0] = 4  # stretches that are stored of each training utterance, where a task hears random ones


@dataclass(frozen=True)
class Reference:
    """A published value, printed beside the user's own where everything named agrees."""

    upstream: str = ""
    corpus: str = ""
    protocol: str = ""
    metric: str = ""
    value: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class RunConfig:
    """All that decides what a run computes, and where it reads."""

    task: str = ""
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)  # what listens; "" as its name: nothing does
    text_upstream: UpstreamConfig = field(default_factory=UpstreamConfig)  # what reads
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    expert: Any = None  # the task's own section, spelled with the task's name in yaml
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    select_by: str = ""  # "": the corpus' usual metric
    split: Literal["", "all"] = ""  # all: a final model, trained on every split of its corpus; nothing is held out
    steps_from: str | None = None  # of a final model: the run (or plan) whose best step says for how long
    init_head: str | None = None  # -i: a run folder whose head and layer weights are the start
    seed: Annotated[int, SEED] = 1
    folds: list[int] = field(default_factory=list)  # a plan's folds, where the recipe names them
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)  # runs in order, what is different in each; the last reports
    reference: list[Reference] = field(default_factory=list)


def roles_of(config: RunConfig) -> dict[Modality, UpstreamConfig]:
    """Return the upstreams that a run asks for, by role."""
    asked: dict[Modality, UpstreamConfig] = {"audio": config.upstream, "text": config.text_upstream}
    return {role: section for role, section in asked.items() if section.name}


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """Return the resolved config as a recipe: the task's section under the task's name."""
    mapping = plain(config)
    section = mapping.pop("expert")
    return {"task": mapping.pop("task"), **mapping, config.task: section}


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


def mtl_mapping(config: MtlConfig) -> dict[str, Any]:
    """Return the resolved config as a recipe."""
    mapping = plain(replace(config, tasks={}))
    return {**mapping, "tasks": {name: section_of(run) for name, run in config.runs.items()}}


def section_of(run: RunConfig) -> dict[str, Any]:
    """Return what a task's section of a recipe holds."""
    whole = to_mapping(run)
    return {"task": run.task, "batch_size": run.training.batch_size} | {key: whole[key] for key in (*TASK_KEYS, run.task)}


def is_mtl(folder: Path) -> bool:
    """Return whether a run folder holds a run of several tasks."""
    return "tasks" in RunFolder(folder).read().config()
