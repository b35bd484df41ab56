"""From a config to everything a run needs: corpora, examples, upstreams, experts, model, identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..core.errors import UserError
from ..corpus.base import Corpus, Utterance
from ..corpus.batch import Example
from ..corpus.read import corpus_root, load_corpus
from ..corpus.transcription.transcribe import with_transcripts
from ..downstream.base import Expert, Question, Task
from ..downstream.load import load_task
from ..downstream.tables import tables_of
from ..plugins.provenance import identity_of_code
from ..training.balance import Balancer, make_balancer
from ..training.batches import derive_seed
from ..training.eight_bits import refuse_eight_bits
from ..training.model import Model
from ..training.sharding import refuse_unshardable, refuse_whole_gradients
from ..training.source import Source
from ..training.step import TaskData, shared_weights
from ..upstream.adapters import WITHOUT, add_adapter, over_same_weights
from ..upstream.base import TEACHER, Role, Upstream, UpstreamConfig, modality_of
from ..upstream.load import find_upstream, load_upstream
from .config.identity import fingerprint, identity_of
from .config.schema import CorpusConfig, RunConfig, TaskConfig, batch_size_of, roles_of
from .exact import refuse_keep
from .final import EarlierRun, earlier_of, everything, refuse_other_weights
from .heads import start_from_heads
from .joint import balance_text, message_of, refuse_nothing_shared
from .leakage import label_notes, leakage_notes, sharing_notes
from .utterances import Chosen, refuse_absent, usable_utterances


@dataclass(frozen=True)
class RunSetup:
    """A run that can start."""

    config: RunConfig
    corpora: Mapping[str, Corpus]  # by task, as the others
    tasks: Mapping[str, TaskData]
    model: Model
    balancer: Balancer
    identity: Mapping[str, Any]
    marks: tuple[str, ...]  # DEMO, UNTRAINED
    notes: tuple[str, ...]
    earlier: EarlierRun | None = None  # of a final model: what chose its steps

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The upstreams by role."""
        return {role: self.model.upstream(role) for role in self.model.configs}


def prepare(config: RunConfig) -> RunSetup:
    """Load and check everything that a run needs; what is missing is named in one message."""
    upstreams, corpora = load_all(config)
    earlier = earlier_of(config) if config.split else None
    if config.split:
        corpora = {name: everything(corpus) for name, corpus in corpora.items()}
    typed, config = config, resolved_layers(config, upstreams)
    if config.training.gradient_checkpointing:
        save_memory(config, upstreams)
    refuse_eight_bits(config.optimizer, config.training)
    if config.training.shard:
        refuse_unshardable(config.training, roles_of(config), config.own_adapters)
    tasks, notes = prepare_tasks(config, corpora, upstreams)
    experts = {name: task.expert for name, task in tasks.items()}
    weights: dict[str, str] = {role: upstream.weights_hash() for role, upstream in upstreams.items()}
    own = own_upstreams(config, upstreams)
    for role, section in roles_of(config).items():
        if not own:
            add_adapter(upstreams[role], section, config.seed)
    standardizes, shares = config.solver == "exact", config.shared_weights
    model = Model(
        upstreams, experts, roles_of(config), shares_sums=shares, standardizes=standardizes, masks=config.masks, own_upstreams=own
    )
    if standardizes:
        refuse_keep(config.exact, model)
    balancer = make_balancer(config.balance, [*tasks])
    if config.training.shard:
        refuse_whole_gradients(balancer, config.balance.cosines_every)
    refuse_nothing_shared(config, balancer, shares=bool(shared_weights(model)))
    heads = start_from_heads(model, config)
    prints = {name: fingerprint(task.splits, read="text" in task.source.roles) for name, task in tasks.items()}
    identity = {
        "config": identity_of(typed),
        "corpus": prints if config.is_joint else prints[config.only.task],
        "upstreams": weights,
        **heads,
        **identity_of_code(code_of(config)),
    }
    if earlier is not None:
        refuse_other_weights(earlier, weights)
        tasks = {name: task.with_vocabulary({**task.expert.vocabulary, **earlier.placed[name]}) for name, task in tasks.items()}
        notes = (*earlier.notes(), *notes)
    marks = marks_of([corpus.demo for corpus in corpora.values()], upstreams)
    return RunSetup(config, corpora, tasks, model, balancer, identity, marks, notes, earlier)


def own_upstreams(config: RunConfig, upstreams: Mapping[Role, Upstream]) -> dict[str, dict[Role, Upstream]]:
    """Return by task the upstreams with an adapter of its own, drawn as in a run of this task alone; none where it is shared."""
    own: dict[str, dict[Role, Upstream]] = {}
    for name, task in config.tasks.items() if config.own_adapters else ():
        sections = {role: section for role, section in roles_of(config, task).items() if section.adapter != WITHOUT}
        own[name] = {role: over_same_weights(upstreams[role], section.adapter) for role, section in sections.items()}
        for role, upstream in own[name].items():
            add_adapter(upstream, sections[role], config.seed)
    return own


def code_of(config: RunConfig) -> dict[str, str]:
    """Return the names of what may be code of the user's own: tasks, and upstreams by role."""
    named = {f"task.{name}": task.task for name, task in config.tasks.items()}
    tasks = named if config.is_joint else {"task": config.only.task}
    return tasks | {role: section.name for role, section in roles_of(config).items()}


def prepare_tasks(
    config: RunConfig, corpora: Mapping[str, Corpus], upstreams: Mapping[Role, Upstream]
) -> tuple[dict[str, TaskData], tuple[str, ...]]:
    """Return the tasks as the loop sees them, and what a user should know of each."""
    tasks: dict[str, TaskData] = {}
    notes: list[str] = []
    for name, task in config.tasks.items():
        used = {role: upstreams[role] for role in roles_of(config, task)}
        try:
            tasks[name], found = task_data(name, config, corpora[name], used)
        except UserError as problem:
            raise UserError(message_of(config, name, problem)) from None
        data = tasks[name]
        found += leakage_notes(config, task, corpora[name], data.splits)
        found += sharing_notes(data.question, data.splits, opens_audio="audio" in used)
        found += label_notes(data.expert.vocabulary)
        notes += [f"{name}: {note}" if config.is_joint else note for note in found]
    return tasks, tuple(notes)


def task_data(
    name: str, config: RunConfig, corpus: Corpus, upstreams: Mapping[Role, Upstream]
) -> tuple[TaskData, tuple[str, ...]]:
    """Return one task as the loop sees it, its head drawn from the run's seed, and what a user should know of its corpus."""
    section = config.tasks[name]
    task = load_task(section.task)
    question = task.question(section.expert)
    try:
        vocabulary = question.make_vocabulary(section.expert, section.labels, corpus)
    except UserError:
        if "audio" in upstreams:
            refuse_absent(corpus.splits)  # the cause behind it, where no file is there
        raise
    needed = ("train",) if config.split else ("train", "dev")  # a final model's dev is what it is trained on: of labels only
    rows_of = {split: rows for split, rows in corpus.splits.items() if split in needed or not config.split}
    chosen: Chosen = {split: tuple(question.select(vocabulary, rows)) for split, rows in rows_of.items()}
    expert = build_expert(config.seed, section, task, vocabulary, upstreams)
    refuse_frozen(section, expert, config)
    expert.refuse_equal_views({role: varies(upstream, roles_of(config)[role]) for role, upstream in upstreams.items()})
    chosen, seconds, notes = usable_utterances(chosen, section.corpus, upstreams, writes=question.writes)
    splits = {split: make_examples(question, vocabulary, rows, seconds, expert) for split, rows in chosen.items()}
    splits, left_out = drop_untrainable(expert, splits)
    for split in needed:
        if not splits.get(split):
            known = f" ({'; '.join(corpus.notes)})" if corpus.notes else ""
            raise UserError(
                f"Expected utterances in split '{split}' of {corpus.name}, found none{known}. Check `headwater corpus check`."
            )
    together = refuse_few(config, section, expert, splits["train"])
    source, size = Source(tuple(upstreams)), batch_size_of(config, section)
    tables = {split: tables_of(question, corpus, split) for split in splits if split != "train"}
    data = TaskData(name, expert, question, splits, source, section.select_by, size, tables=tables)
    return data, (*corpus.notes, *question.notes(vocabulary, rows_of), *notes, *left_out, *together)


def load_all(config: RunConfig) -> tuple[dict[Role, Upstream], dict[str, Corpus]]:
    """Return upstreams by role and corpora by task; where several are missing, one message says so."""
    sections, problems = roles_of(config), []
    upstreams: dict[Role, Upstream] = {}
    corpora: dict[str, Corpus] = {}
    for role, section in sections.items():
        try:  # a wrong name is reported before a demo is made for it
            find_upstream(section, modality_of(role))
        except UserError as problem:
            if any(task.corpus.demo for task in config.tasks.values()):
                raise
            problems.append(str(problem))
    for name, task in config.tasks.items():
        try:
            corpora[name] = read_corpus(task.corpus)
        except UserError as problem:
            problems.append(message_of(config, name, problem))
    for role, section in sections.items():
        try:
            upstreams[role] = load_upstream(section, modality_of(role))
        except UserError as problem:
            problems.append(str(problem))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return upstreams, corpora


def read_corpus(config: CorpusConfig) -> Corpus:
    """Return the corpus of a config, real or demo."""
    corpus = load_corpus(
        config.name,
        config.data,
        protocol=config.protocol,
        fold=config.fold,
        demo=config.demo,
        demo_scale=config.demo_scale,
        options=config.options,
    )
    root = corpus_root(config.name, config.data, demo=config.demo, demo_scale=config.demo_scale)
    table = config.transcripts and root / config.transcripts
    if table and table.is_file():  # a table that lies in the corpus
        config = replace(config, transcripts=str(table))
    where = "--demo" if config.demo else f"--data {config.data}" if config.data else ""
    return corpus if config.transcripts is None else with_transcripts(corpus, config.transcripts, where=where)


def resolved_layers(config: RunConfig, upstreams: Mapping[Role, Upstream]) -> RunConfig:
    """Return the config with each role's layer checked against the layers there are."""
    sections = {role: resolved_layer(roles_of(config)[role], upstream) for role, upstream in upstreams.items()}
    return replace(
        config,
        upstream=sections.get("audio", config.upstream),
        text_upstream=sections.get("text", config.text_upstream),
        teacher=sections.get(TEACHER, config.teacher),
    )


def resolved_layer(section: UpstreamConfig, upstream: Upstream) -> UpstreamConfig:
    """Return an upstream's section with its layer counted from the front."""
    layer, count = section.layer, upstream.spec.num_layers
    if layer is not None and not -count <= layer < count:
        there = f"from 0 to {count - 1}" if count > 1 else "0"
        raise UserError(
            f"Expected -l {there}, a layer of '{upstream.name}', found {layer}. Leave it out for the weighted sum of all layers."
        )
    if section.trainable and not any(True for _ in upstream.parameters()):
        raise UserError(f"Expected an upstream with weights for -f, found that '{upstream.name}' has none. Leave out -f.")
    return section if layer is None else replace(section, layer=layer % count)


def refuse_frozen(section: TaskConfig, expert: Expert, config: RunConfig) -> None:
    """Refuse a frozen upstream where the task is to train it, and a teacher that would learn."""
    if expert.trains_upstream and not config.upstream.trainable:
        raise UserError(
            f"Expected an upstream that is trained (-f) for {section.task}, which has nothing else to train, found "
            f"'{config.upstream.name}' frozen. Add -f, or -o upstream.trainable=true."
        )
    if config.teacher.trainable:
        raise UserError(f"Expected a frozen teacher, found teacher.trainable=true for '{config.teacher.name}'. Leave it out.")


def save_memory(config: RunConfig, upstreams: Mapping[Role, Upstream]) -> None:
    """Have finetuned upstreams keep less for the backward pass; a frozen one keeps nothing anyway."""
    trained = [upstreams[role] for role, section in roles_of(config).items() if section.trainable]
    if not trained:
        raise UserError("Expected -f beside training.gradient_checkpointing, found a frozen upstream. Add -f, or leave it out.")
    for upstream in trained:
        upstream.recompute_blocks()


def varies(upstream: Upstream, section: UpstreamConfig) -> bool:
    """Return whether an upstream gives another output at each pass in training."""
    drops = any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in upstream.modules())
    return section.trainable and (drops or section.spec_augment)


def refuse_few(config: RunConfig, section: TaskConfig, expert: Expert, train: Sequence[Example]) -> tuple[str, ...]:
    """Refuse steps that a loss which compares utterances cannot use, and say what it makes of pieces."""
    size, limit = batch_size_of(config, section), config.training.piece_size
    if expert.loss_needs != "whole_batch" or config.solver == "exact":  # which has no steps
        return ()
    if not 2 <= size <= len(train):
        raise UserError(
            f"Expected training.batch_size from 2 to {len(train)} (the training utterances): the loss of {section.task} compares "
            f"the utterances of a step. Found {size}. Set -o training.batch_size={max(2, min(16, len(train)))}"
        )
    if limit is not None and limit < size:
        return (
            f"training.piece_size={limit} is not applied: the loss of {section.task} compares all {size} utterances of a step, "
            f"and pieces would leave it {limit} to compare",
        )
    return ()


def make_examples(
    question: Question,
    vocabulary: Mapping[str, Any],
    utterances: Sequence[Utterance],
    seconds: Mapping[str, float],
    expert: Expert,
) -> list[Example]:
    """Return the utterances with what training needs of them, those without readable audio left out."""
    return [
        Example(
            utterance,
            seconds[utterance.id],
            question.target(vocabulary, utterance),
            expert.weight(utterance),
            derive_seed("example", utterance.id),
        )
        for utterance in utterances
        if utterance.id in seconds
    ]


def drop_untrainable(expert: Expert, splits: Mapping[str, list[Example]]) -> tuple[dict[str, list[Example]], tuple[str, ...]]:
    """Return the splits without the training utterances that the expert cannot train on, and a note that counts them."""
    rows = splits.get("train", [])
    kept = [row for row in rows if expert.can_train_on(row.target, row.seconds)]
    if len(kept) == len(rows):
        return dict(splits), ()
    first = next(row.utterance.id for row in rows if not expert.can_train_on(row.target, row.seconds))
    if not kept:
        raise UserError(
            f"Expected training utterances that are long enough for {expert.long_enough_for}, found none of {len(rows)} "
            f"(the first: {first}). Check the table's texts, start and end, or the task's options."
        )
    count = f"{len(rows) - len(kept)} of {len(rows)} training utterances"
    return {**splits, "train": kept}, (f"{count} left out: too short for {expert.long_enough_for} (the first: {first})",)


def build_expert(
    seed: int, section: TaskConfig, task: Task, vocabulary: Mapping[str, Any], upstreams: Mapping[Role, Upstream]
) -> Expert:
    """Return a task's expert, new weights drawn from the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return task.build(section.expert, vocabulary, {role: upstream.spec for role, upstream in upstreams.items()})


def marks_of(demos: Sequence[bool], upstreams: Mapping[Role, Upstream]) -> tuple[str, ...]:
    """Return what every table, file and picture of the run must say; `demos` says of each corpus whether it is one."""
    return ("DEMO",) * any(demos) + ("UNTRAINED",) * any(upstream.untrained for upstream in upstreams.values())


def describe(setup: RunSetup, folder: Path) -> list[str]:
    """Return the lines that a run prints before it starts."""
    config, model = setup.config, setup.model
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    sums = "; one weighted sum for all" if config.shared_weights else "; a weighted sum for each task"
    size = f"{trained:,} weights, {config.training.steps} steps"
    if config.solver == "exact":
        size = f"{trained:,} weights of a linear head on standardised layers, solved exactly (no steps, no seed)"
    joint = balance_text(config, model, setup.balancer)
    steps = f" of {config.training.batch_size} utterances (solver=adam)" * (config.solver == "adam")
    shares = joint if config.is_joint else steps
    return [
        *(f"{mark}: not a result to quote" for mark in setup.marks),
        *(f"{NOUNS[role]}{describe_upstream(model, role)}{sums * config.is_joint}" for role in model.configs),
        *(describe_task(setup, name) for name in setup.tasks),
        f"training  {size}{shares}",
        f"folder    {folder}",
        *(f"note      {note}" for note in setup.notes),
    ]


NOUNS = {"audio": "upstream  ", "text": "text      ", TEACHER: "teacher   "}


def describe_task(setup: RunSetup, name: str) -> str:
    """Return what a task is trained and tested on."""
    config, corpus, task = setup.config, setup.corpora[name], setup.tasks[name]
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in task.splits.items())
    fold = f", fold {config.tasks[name].corpus.fold}" if corpus.fold is not None else ""
    words = f"{corpus.name}, protocol {corpus.protocol}{fold}: {counts}"
    if not config.is_joint:
        return f"corpus    {words}"
    roles = f" ({', '.join(task.source.roles)})" if len(setup.model.configs) > 1 else ""
    return f"task      {name}{roles}: {words}; {task.batch_size} utterances a step"


def experts_of(model: Model) -> list[Expert]:
    """Return the experts of all tasks."""
    return [model.expert(task) for task in model.experts]


def describe_upstream(model: Model, role: str) -> str:
    """Return what a role's upstream is, and how its layers are used."""
    upstream, section = model.upstream(role), model.configs[role]
    how = "frozen" if not section.trainable else "finetuned" if section.adapter == WITHOUT else f"frozen with {section.adapter}"
    how += " for each task" * (model.forms(role) != [upstream])
    count, layer = upstream.spec.num_layers, section.layer
    use = f"weighted sum of {count} layers" if layer is None else f"layer {layer} (of 0 to {count - 1})"
    use = ("its one layer" if count == 1 else use) + ", each normed" * section.normalize_layers
    taken = sorted({layer % count for expert in experts_of(model) for layer in expert.takes.get(role, ())})
    if taken:
        summed = any(role in expert.roles and role not in expert.takes for expert in experts_of(model))
        layers = f"layer{'s' * (len(taken) > 1)} {', '.join(map(str, taken))} (of 0 to {count - 1})"
        use = f"{use}, and {layers} alone" if summed else layers
    source = f" ({upstream.source})" * (upstream.source != upstream.name)
    return f"{upstream.name}{source}, {how}, {use}"
