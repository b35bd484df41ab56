"""The schema of a run's config."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from ...core.options import ABOVE_0, AT_LEAST_0, SEED, UP_TO_MILLIONS, plain
from ...downstream.base import takes_teacher
from ...downstream.labels import LabelsConfig
from ...downstream.masks import MasksConfig
from ...training.balance import BalanceConfig
from ...training.config import OptimizerConfig, TrainingConfig
from ...training.sampling import SamplingConfig
from ...upstream.base import TEACHER, Role, UpstreamConfig

MODES = ("off", "auto", "on", "check")  # of the store; anything else is its folder


@dataclass(frozen=True)
class CorpusConfig:
    """The `corpus:` section: which corpus, and how it is split."""

    name: str = ""  # "": the task's usual corpus
    data: str | None = None  # folder or manifest; None: $HEADWATER_DATA/<name> or the user's config file
    protocol: str = ""  # "": the reader's first
    fold: int = 1  # of the protocol, from 1
    options: dict[str, Any] = field(default_factory=dict)  # the reader's own
    demo: bool = False  # --demo: the miniature that is made on the spot
    demo_scale: Annotated[float, ABOVE_0] = 1.0  # size of the miniature
    skip_broken: bool = False  # pass over audio that cannot be read, and say so; false: stop
    transcripts: str | None = None  # a table of id and text, or a model of `corpus transcribe`; None: the corpus' own words
    missing_text: Literal["refuse", "drop", "empty"] = "refuse"  # of an utterance without a transcript, where text is read


@dataclass(frozen=True)
class StoreConfig:
    """The `store:` section: features of a frozen upstream, computed once. It changes a run's time, and the last digits."""

    mode: str = "auto"  # off, auto (where it fits), on, check (compare one batch with the full computation), or a folder
    # of frames; auto: float16 where they fit the limit, else int8 where those do
    precision: Literal["auto", "float16", "int8"] = "auto"
    limit: str | None = None  # 20GB; None: the smaller of 50 GB and a quarter of the free disk
    memory: str = "4GB"  # means above this are read from the disk
    crops: Annotated[int, ABOVE_0] = 4  # stretches that are stored of each training utterance, where a task uses random ones


@dataclass(frozen=True)
class ExactConfig:
    """The `exact:` section: how solver=exact computes a linear head. It has no learning rate, no steps and no seed."""

    penalty: Annotated[float, ABOVE_0] | None = None  # of the weights' squares; None: chosen on what is held out
    evenness: Annotated[float, AT_LEAST_0] | None = (
        None  # pull of the layers' mixture towards the even one; None: chosen likewise
    )
    judge: Literal["auto", "dev", "parts"] = (
        "auto"  # what chooses: dev, dev and parts of train in turn; auto: dev if large enough
    )
    keep: str = (
        "auto"  # what the run answers with: mixture, the number of a layer, or auto, whichever does best on what is held out
    )
    gain: list[float] | None = None  # by which ratings are spread; None: until they vary as those of dev do
    each_layer: bool = True  # a head on each layer alone, too
    together: bool = False  # a head on all layers at once, too: for the curve, at about twice the time


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
class TaskConfig:
    """One task of a run: its corpus, its labels, its head. A task is called by its key in `RunConfig.tasks`."""

    task: str = ""  # -d: a name, of a folder of downstream/
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    expert: Any = None  # the task's own section, spelled with the task's name in yaml
    select_by: str = ""  # the metric that chooses the best step; "": the corpus' usual one
    report_by: str = ""  # the metric that a table of several tasks shows; "": select_by
    init_head: str | None = None  # -i: a run folder whose head and layer weights are the start
    roles: list[Role] = field(default_factory=list)  # which of the run's upstreams the task uses; []: all of them
    batch_size: Annotated[int, UP_TO_MILLIONS] | None = None  # None: training.batch_size

    @property
    def reported(self) -> str:
        """The metric that stands in a table for this task."""
        return self.report_by or self.select_by


@dataclass(frozen=True)
class RunConfig:
    """All that decides what a run computes, and where it reads.

    A recipe of one task is the short spelling: the task's options stand at the top. One of several has a mapping `tasks`.
    """

    tasks: dict[str, TaskConfig] = field(default_factory=dict)  # by name: what a recipe of one task has at its top
    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)  # of audio; "" as its name: none
    text_upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    teacher: UpstreamConfig = field(default_factory=UpstreamConfig)  # frozen: whose layers a task has its upstream learn
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    # how heads come about: adam, by steps; exact, as the solution of a convex problem (linear heads on frozen upstreams);
    # auto: exact, unless an option asks for what only adam has
    solver: Literal["adam", "exact", "auto"] = "adam"
    exact: ExactConfig = field(default_factory=ExactConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    masks: MasksConfig = field(default_factory=MasksConfig)  # SpecAugment on the features of every task
    shared_weights: bool = False  # one weighted sum for all tasks (the paper's) instead of one each
    own_adapters: bool = False  # an adapter for each task over one frozen upstream, instead of one for all
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    # which step is kept as the best: that of the best dev score (of one task), the last (the paper), or that of most gain
    select: Literal["metric", "last", "gain"] = "metric"
    baselines: dict[str, float] = field(default_factory=dict)  # task -> dev score of its single-task run, for select: gain
    split: Literal["", "all"] = ""  # all: a final model, trained on every split of its corpus; nothing is held out
    steps_from: str | None = None  # of a final model: the run (or plan) whose best step says for how long
    track: str = ""  # trackers beside TensorBoard, as wandb,mlflow: their packages are not ours, and settings are their own
    seed: Annotated[int, SEED] = 1  # of every random draw
    folds: list[int] = field(default_factory=list)  # a plan's folds, where the recipe names them
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)  # runs in order, what is different in each; the last reports
    reference: list[Reference] = field(default_factory=list)  # published values, and what they hold for

    @property
    def is_joint(self) -> bool:
        """Whether this is a run of several tasks, which may be one task that others were left out of."""
        return self.select != "metric"

    @property
    def only(self) -> TaskConfig:
        """The task of a run of one."""
        assert not self.is_joint, f"expected a run of one task, found the joint run of {', '.join(self.tasks)}"
        return next(iter(self.tasks.values()))

    def with_only(self, task: TaskConfig) -> RunConfig:
        """Return a run of one task with that task changed."""
        return replace(self, tasks={task.task: task})


# of a task in either spelling, beside the task's own section
TASK_KEYS = ("corpus", "labels", "select_by", "report_by", "init_head")
ONE_ONLY = ("reference",)  # of a recipe of one task
SEVERAL_ONLY = ("tasks", "shared_weights", "own_adapters", "sampling", "balance", "select", "baselines")  # of a recipe of several
# the words that a recipe has for itself: no task may be called so
RECIPE_WORDS = frozenset({field.name for kind in (RunConfig, TaskConfig) for field in fields(kind)})


def roles_of(config: RunConfig, task: TaskConfig | None = None) -> dict[Role, UpstreamConfig]:
    """Return the upstreams of a run, or those that one of its tasks uses, by role."""
    sections: dict[Role, UpstreamConfig] = {"audio": config.upstream, "text": config.text_upstream, TEACHER: config.teacher}
    taken = [role for role in sections if role != TEACHER or task is None or takes_teacher(task.expert)]
    used = (task.roles if task else []) or taken
    return {role: section for role, section in sections.items() if section.name and role in used}


def batch_size_of(config: RunConfig, task: TaskConfig) -> int:
    """Return how many utterances of a task a step has, over all pieces and processes."""
    return task.batch_size or config.training.batch_size


def alone(config: RunConfig, name: str) -> RunConfig:
    """Return one task of a run as a run of its own would have it, on the same upstreams, optimizer and steps."""
    if not config.is_joint:
        return config
    task, there = config.tasks[name], roles_of(config, config.tasks[name])
    usual = RunConfig()
    return replace(
        config,
        tasks={task.task: replace(task, roles=[], batch_size=None)},
        upstream=there.get("audio", UpstreamConfig()),
        text_upstream=there.get("text", UpstreamConfig()),
        teacher=there.get(TEACHER, UpstreamConfig()),
        training=replace(config.training, batch_size=batch_size_of(config, task)),
        **{key: getattr(usual, key) for key in SEVERAL_ONLY if key != "tasks"},
    )


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """Return the resolved config as a recipe, in the spelling that it has."""
    shared = plain(replace(config, tasks={}))
    if config.is_joint:
        tasks = {name: {"task": task.task, "batch_size": batch_size_of(config, task)} for name, task in config.tasks.items()}
        tasks = {name: section | section_of(config.tasks[name]) for name, section in tasks.items()}
        return {key: value for key, value in shared.items() if key not in ONE_ONLY} | {"tasks": tasks}
    own = {"task": config.only.task, **section_of(config.only)}
    return own | {key: value for key, value in shared.items() if key not in SEVERAL_ONLY}


def section_of(task: TaskConfig) -> dict[str, Any]:
    """Return a task's options as a recipe has them: its own section under its name."""
    options = plain(task)
    chosen = {key: options[key] for key in (*TASK_KEYS, *["roles"] * bool(task.roles))}
    return {**chosen, task.task: options["expert"]}
