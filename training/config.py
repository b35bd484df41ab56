"""What a run is told: dataclasses, then a recipe, then flags; nothing is loaded before all of it is right."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml

from ..corpus.base import Reader, default_corpus, get_reader, registered_corpora
from ..downstream.base import Task, built_in_tasks, load_task, task_folder
from ..downstream.labels import LabelsConfig
from ..errors import UserError, nearest
from ..own_code import FLAGS, SECTIONS, Kind, known_as, suspect_paths
from ..upstream.base import Modality, UpstreamConfig
from .strict import ABOVE_0, AT_LEAST_0, DECAY, SEED, bind, convert, plain


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
class OptimizerConfig:
    """The `optimizer:` section."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Annotated[float, ABOVE_0] = 1e-3  # of heads
    weights_lr: Annotated[float, AT_LEAST_0] | None = None  # of layer weights; None: as the heads'
    upstream_lr: Annotated[float, AT_LEAST_0] = 1e-5  # of a finetuned upstream
    layer_decay: Annotated[float, DECAY] = 1.0  # a block's rate is upstream_lr x layer_decay^(blocks above it)
    weight_decay: Annotated[float, AT_LEAST_0] = 0.0
    clip: Annotated[float, ABOVE_0] = 1.0  # largest norm of the gradient
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Annotated[int, AT_LEAST_0] = 0
    schedule_steps: Annotated[int, ABOVE_0] | None = None  # at which the schedule has ended; None: with the last step


@dataclass(frozen=True)
class TrainingConfig:
    """The `training:` section."""

    steps: Annotated[int, ABOVE_0] = 10_000
    batch_size: Annotated[int, ABOVE_0] = 32  # utterances in a step, over all pieces and processes
    eval_every: Annotated[int, ABOVE_0] = 200
    patience: Annotated[int, ABOVE_0] | None = None  # evaluations without a better one; None: train all steps
    log_every: Annotated[int, ABOVE_0] = 20
    save_every: Annotated[int, ABOVE_0] = 200
    piece_seconds: Annotated[float, ABOVE_0] = 60.0  # padded audio in one pass
    piece_size: Annotated[int, ABOVE_0] | None = None  # utterances in one pass; None: as many as the seconds allow
    sort_pieces: bool = True  # by length, so that little is padded
    piece_overhead: Annotated[float, AT_LEAST_0] = 1.0  # seconds of audio that one more pass takes as long as
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    gradient_checkpointing: bool = False  # -f: less memory for more time, blocks are run again in the backward pass


MODES = ("off", "auto", "on", "check")  # of the store; anything else is its folder


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


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return a recipe's mapping, or say what is wrong with the file."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"Expected a recipe (yaml) at '{path}', found no file. Check the path of -c.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as problem:
        raise UserError(f"Expected yaml in '{path}', found {yaml_mistake(problem)}. Mend the file.") from None
    if not isinstance(content, dict):
        raise UserError(f"Expected a mapping of options in '{path}', found {type(content).__name__}. Write `key: value` lines.")
    suspect_paths(content)
    return content


def yaml_mistake(problem: Exception) -> str:
    """Return what is wrong with a yaml file, and where."""
    mark = getattr(problem, "problem_mark", None)
    if mark is None:
        return " ".join(str(problem).split())
    return f"in line {mark.line + 1}, column {mark.column + 1}: {getattr(problem, 'problem', '')}"


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping in which the second one's leaves stand over the first one's."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """Return `optimizer.lr=1e-4` as a nested mapping."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"Expected `-o key=value`, found '{text}'. For instance: -o optimizer.lr=1e-4")
    try:
        leaf = yaml.safe_load(value) if value.strip() else ""
    except yaml.YAMLError:
        raise UserError(f"Expected a yaml value after '{key}=', found '{value}'. Quote it for the shell.") from None
    nested: Any = leaf
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return nested


RECIPES = Path(__file__).parents[1] / "recipes"


def find_recipe(name: str) -> Path:
    """Return a recipe by its path, or one of ours by its name (`superb/emotion`)."""
    ours = RECIPES / (name if name.endswith(".yaml") else f"{name}.yaml")
    own = RECIPES.parent / name  # `recipes/superb/emotion.yaml`, typed outside the clone
    found = next((path for path in (Path(name), ours, own) if path.is_file()), None)
    if found is None:
        known = [str(path.relative_to(RECIPES).with_suffix("")) for path in sorted(RECIPES.rglob("*.yaml"))]
        raise UserError(f"Expected a recipe after -c, found no file '{name}'.{nearest(name, known)} Ours: {', '.join(known)}.")
    return found


def task_default(task: str) -> dict[str, Any]:
    """Return what a task's folder sets for the bare command."""
    folder = task_folder(known_as(task, "task"))
    path = folder and folder / "default.yaml"
    return read_yaml(path) if path and path.is_file() else {}


def demo_recipe(task: str) -> dict[str, Any]:
    """Return what differs for a task on its demo corpus."""
    path = RECIPES / "demo" / f"{task}.yaml"
    return read_yaml(path) if path.is_file() else {}


def resolve(layers: Sequence[Mapping[str, Any]], *, heard: bool = True) -> RunConfig:
    """Return the run's config from mappings in rising precedence; every mistake is reported at once.

    Where nothing of the corpus will be heard, one whose reader is not here is taken as it is told.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    name = values.get("task") or ""
    if not name:
        raise UserError("Expected a task, found none. Add `-d emotion` (or `task: emotion` to the recipe).")
    errors: list[str] = []
    values = named(values)
    task = load_task(values["task"])
    if "expert" in values:
        errors.append(f"Unknown option 'expert'. The task's own section is called '{task.name}'.")
        values.pop("expert")
    values["reference"] = values.get("reference") or []
    config = bind(RunConfig, values, "", errors, spelled={"expert": task.name})
    section = {} if config.expert is None else config.expert
    config = dataclasses.replace(config, expert=bind(task.options, section, task.name, errors))
    if heard or config.corpus.name in registered_corpora():
        config = _complete(config, task, errors)
    if errors:
        raise UserError("\n".join(errors))
    return config


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in which paths to one's own code, all of them typed too, gave way to the names behind them."""
    told = dict(values, task=known_as(str(values["task"]), "task"))
    kinds: dict[str, tuple[Kind, str]] = {key: ("upstream", FLAGS[role]) for role, key in SECTIONS.items()}
    for key, (kind, flag) in {**kinds, "corpus": ("corpus", FLAGS["corpus"])}.items():
        section = told.get(key)
        if isinstance(section, Mapping) and isinstance(section.get("name"), str):
            told[key] = {**section, "name": known_as(section["name"], kind, flag)}
    return told


def _complete(config: RunConfig, task: Task, errors: list[str]) -> RunConfig:
    """Fill in what depends on other fields: the corpus, its protocol, the metric that selects."""
    corpus = config.corpus
    is_manifest = corpus.data is not None and not corpus.name and Path(corpus.data).suffix in {".csv", ".tsv", ".jsonl"}
    try:
        question = task.question(config.expert)
        reader = get_reader(corpus.name or ("manifest" if is_manifest else default_corpus(question.name)))
    except UserError as problem:
        errors.append(str(problem))
        return config
    # of a question of the user's own no reader knows whether it serves it: the labels that it asks for decide
    if question.name not in reader.tasks and question.name in built_in_tasks():
        errors.append(f"Corpus '{reader.name}' does not serve task '{question.name}' (it serves: {', '.join(reader.tasks)}).")
    if not question.label and "label_required" in reader.options:
        corpus = dataclasses.replace(corpus, options={"label_required": False, **corpus.options})
    errors += [*idle_options(config), *final_mistakes(config), *schedule_mistakes(config)]
    if config.split:  # one run on all of it: folds are no more
        config = dataclasses.replace(config, folds=[], steps_from=_absolute(config.steps_from))
    mode = config.store.mode
    if mode not in MODES and os.sep not in mode and not Path(mode).is_dir():
        folder = f"For a folder of that name write ./{mode}."
        errors.append(f"Expected --store {', '.join(MODES)} or a folder, found '{mode}'.{nearest(mode, MODES)} {folder}")
    select_by = config.select_by or reader.select_by.get(question.name, question.primary_metric)
    if select_by not in question.metrics:
        errors.append(f"Expected 'select_by' to be one of {', '.join(question.metrics)}, found {select_by!r}.")
    return dataclasses.replace(config, corpus=complete_corpus(corpus, reader, errors), select_by=select_by)


def idle_options(config: RunConfig) -> list[str]:
    """Return what is said of the options of an upstream that a run does not have: none may be passed over in silence."""
    sections, there = {"upstream": config.upstream, "text_upstream": config.text_upstream}, roles_of(config)
    if not there:  # told where it is asked for
        return []
    idle = []
    for name, section in sections.items():
        told = [field.name for field in dataclasses.fields(section) if getattr(section, field.name) != field.default]
        if not section.name and told:
            other = next(key for key in sections if key != name)
            flag = {"upstream": "-u", "text_upstream": "--text-upstream"}[name]
            idle.append(
                f"Expected {flag} beside '{name}.{told[0]}' (-k, -l, -s and --normalize-layers are of -u), found a run without. "
                f"Name that upstream, or write -o {other}.{told[0]}=…"
            )
    return idle


def complete_corpus(corpus: CorpusConfig, reader: Reader, errors: list[str]) -> CorpusConfig:
    """Return a corpus' section with its protocol and its reader's options checked against what the reader knows."""
    protocol = corpus.protocol or reader.default_protocol
    if protocol not in reader.protocols:
        close, known = nearest(protocol, reader.protocols), ", ".join(reader.protocols)
        errors.append(f"Expected 'corpus.protocol' of {reader.name} to be one of {known}, found '{protocol}'.{close}")
    elif not 1 <= corpus.fold <= reader.protocols[protocol]:
        folds = reader.protocols[protocol]
        errors.append(f"Expected 'corpus.fold' between 1 and {folds} (protocol {protocol}), found {corpus.fold}.")
    if corpus.demo and reader.make_demo is None:
        with_demo = "Leave out --demo, or choose a corpus that has one: `headwater corpus list`."
        errors.append(f"Corpus '{reader.name}' has no demo. {with_demo}")
    options, hints = {}, get_type_hints(reader.read)
    for key, value in corpus.options.items():
        place = f"corpus.options.{key}"
        if key not in reader.options:
            known = ", ".join(reader.options) or "none"
            errors.append(f"Unknown option '{place}'.{nearest(key, reader.options)} {reader.name} has: {known}.")
            continue
        try:
            options[key] = convert(hints[key], value, place, errors)
        except ValueError as problem:
            errors.append(str(problem))
    data = _absolute(corpus.data)
    told = corpus.transcripts
    if told and os.path.exists(os.path.expanduser(told)):  # a table; a model's name otherwise
        told = os.path.abspath(os.path.expanduser(told))
    return dataclasses.replace(corpus, name=reader.name, data=data, protocol=protocol, options=options, transcripts=told)


def final_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the options of a final model: how long it is trained has to be tried before, on held-out data."""
    if config.split and not config.steps_from:
        return [
            "Expected 'steps_from' beside split=all, found none: with nothing held out, no step can be chosen. Add "
            "-o split=all steps_from=RUN, a run or plan with the same options that chose its step on dev."
        ]
    if config.steps_from and not config.split:
        return ["Expected split=all beside 'steps_from', found a run with a dev split, which chooses its own. Leave it out."]
    return []


def schedule_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the end of a schedule: behind it there is no rate."""
    end, steps = config.optimizer.schedule_steps, config.training.steps
    if end is None or config.split or end >= steps:  # a final model's are those of the earlier run
        return []
    return [
        f"Expected optimizer.schedule_steps of at least training.steps ({steps}), found {end}. "
        "Raise it, or leave it out: the schedule then ends with the last step."
    ]


def _absolute(place: str | None) -> str | None:
    return place and os.path.abspath(os.path.expanduser(place))


def roles_of(config: RunConfig) -> dict[Modality, UpstreamConfig]:
    """Return the upstreams that a run asks for, by role."""
    asked: dict[Modality, UpstreamConfig] = {"audio": config.upstream, "text": config.text_upstream}
    return {role: section for role, section in asked.items() if section.name}


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """Return the resolved config as a recipe: the task's section under the task's name."""
    mapping = plain(config)
    section = mapping.pop("expert")
    return {"task": mapping.pop("task"), **mapping, config.task: section}


def identity_of(config: RunConfig) -> dict[str, Any]:
    """Return the part of a config that decides the numbers: no path, no published value, no plan, no log."""
    mapping = to_mapping(config)
    for key in ("reference", "folds", "stages", "store", "steps_from", *(() if config.split else ("split",))):
        mapping.pop(key)
    # what was added since the first runs counts where it is used: those runs stay what they are
    texts = bool(config.text_upstream.name) or load_task(config.task).question(config.expert).writes
    unused = {"data", "skip_broken"} | (set() if texts else {"transcripts", "missing_text"})
    mapping["corpus"] = {key: value for key, value in mapping["corpus"].items() if key not in unused}
    if mapping["corpus"].get("transcripts"):
        mapping["corpus"]["transcripts"] = Path(mapping["corpus"]["transcripts"]).name
    options = {key: value for key, value in mapping["corpus"]["options"].items() if key != "audio_root"}
    mapping["corpus"]["options"] = options
    if mapping["optimizer"]["schedule_steps"] is None:  # as above
        mapping["optimizer"].pop("schedule_steps")
    told = {"log_every", "save_every"}  # what is told on the way
    mapping["training"] = {key: value for key, value in mapping["training"].items() if key not in told}
    for key, section in (("upstream", config.upstream), ("text_upstream", config.text_upstream)):
        mapping[key] = {name: value for name, value in mapping[key].items() if name != "path"}
        mapping[key]["name"] = _without_path(section.name)
    if not config.text_upstream.name:
        mapping.pop("text_upstream")
    mapping["init_head"] = config.init_head and Path(config.init_head).name
    if mapping[config.task].get("modality_dropout") == 0:  # as above
        mapping[config.task] = {key: value for key, value in mapping[config.task].items() if key != "modality_dropout"}
    return mapping


def _without_path(name: str) -> str:
    """A folder counts by its name; what is in it counts by the hash of its weights."""
    return Path(name).name if Path(name).expanduser().is_dir() else name
