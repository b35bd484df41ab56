"""A task on trial: a small made-up corpus (or the user's data), and frames that are noise of each utterance's own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..corpus.base import Corpus, Utterance
from ..corpus.batch import Batch
from ..corpus.rttm import LABEL
from ..downstream.answer import Answer
from ..downstream.base import Expert, Outcome, Output, Question, Tables, Task
from ..downstream.labels import LabelsConfig
from ..downstream.tables import tables_of
from ..training.batches import derive_seed
from ..training.model import Model
from ..upstream.base import TEACHER, Layers, Role, Upstream, UpstreamConfig, UpstreamSpec, modality_of
from .base import Failed

ROWS = 6  # utterances in a batch
FRAME_SECONDS = 0.02
WORDS = ("sunny", "rain", "again", "over", "hills", "and", "far", "away", "they", "say")
ROLES: tuple[tuple[Role, ...], ...] = (("audio",), ("audio", "text"), ("text",), ("audio", TEACHER))  # tried in this order
DIMS: Mapping[Role, int] = {"audio": 12, "text": 10, TEACHER: 8}


class Silent(Upstream):
    """An upstream that promises frames and gives none: each batch brings its own."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        frames, maskable = (lambda samples: max(samples // 320, 1)), role == "audio"
        self.spec = UpstreamSpec(modality_of(role), 2, DIMS[role], 16_000, frames, maskable=maskable)

    def forward(self, batch: Any, *, views: int = 1, masked: Tensor | None = None, layers: Sequence[int] | None = None) -> Layers:
        """Refuse: this trial has no audio."""
        raise NotImplementedError("Expected frames in the batch, found none. A check has to bring them.")


@dataclass(frozen=True)
class Trial:
    """What the contract tests of a task are run on."""

    task: Task
    options: Any
    question: Question
    corpus: Corpus
    vocabulary: dict[str, Any]
    roles: tuple[Role, ...]
    rows: tuple[Utterance, ...]  # a batch of training utterances
    tables: Tables  # of the training split

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.question.answer(self.expert().vocabulary)

    def decided(self, expert: Expert, output: Output) -> tuple[tuple[Any, ...], Tensor | None]:
        """Return the predictions for a batch, and their scores if there are any."""
        return self.question.answer(expert.vocabulary).decided(expert.decode(output))

    def expert(self, seed: int = 1, vocabulary: Mapping[str, Any] | None = None) -> Expert:
        """Return the expert with new weights."""
        return built(self.task, self.options, self.vocabulary if vocabulary is None else vocabulary, self.roles, seed)

    def model(self, seed: int = 1, vocabulary: Mapping[str, Any] | None = None) -> Model:
        """Return the expert behind weighted sums, as a run has it."""
        configs: dict[Role, UpstreamConfig] = {role: UpstreamConfig(name="check") for role in self.roles}
        upstreams: dict[Role, Upstream] = {role: Silent(role) for role in self.roles}
        return Model(upstreams, {self.task.name: self.expert(seed, vocabulary)}, configs).eval()

    def batch(self, rows: Sequence[Utterance] | None = None) -> Batch:
        """Return utterances as the loop hands them over: targets, texts, and two layers of frames for each role."""
        rows = self.rows if rows is None else rows
        batch = Batch(
            None,
            tuple(int(16_000 * (row.duration or 1.0)) for row in rows),
            ids=tuple(row.id for row in rows),
            texts=tuple(row.text for row in rows),
            targets=tuple(self.question.target(self.vocabulary, row) for row in rows),
            draws=tuple(derive_seed(row.id, "draw") for row in rows),
        )
        expert = self.expert()
        return replace(batch, stored={role: taken(layers_of(rows, role), role, expert, batch) for role in self.roles})

    def outcome(self, model: Model) -> Outcome:
        """Return the model's predictions for the batch, beside the references."""
        expert = model.expert(self.task.name)
        batch = self.batch()
        with torch.no_grad():
            output = model.output_of(self.task.name, batch)
        predictions, scores = self.decided(expert, output)
        references = tuple(self.question.reference(self.vocabulary, target) for target in batch.targets)
        return Outcome(batch.ids, predictions, references, scores, output.embeddings)


def on_trial(task: Task, corpus: Corpus | None = None, options: Any = None) -> Trial:
    """Return a task with what its contract tests need: a vocabulary, and roles that it can be built for."""
    refuse_options(task.options)
    options = task.options() if options is None else options
    question, corpus = question_of(task, options), corpus or made_up()
    vocabulary = question.make_vocabulary(options, LabelsConfig(), corpus)
    rows = question.select(vocabulary, corpus.splits["train"])
    if not rows:
        raise UserError(
            f"Expected training utterances that '{task.name}' selects, found none in {corpus.name}. Name yours: --data my.csv"
        )
    problems = []
    for roles in ROLES:
        try:
            built(task, options, vocabulary, roles)
        except UserError as problem:
            problems.append(str(problem))
            continue
        # a corpus may be sorted: the batch is drawn from all of it
        chosen = sorted(rows, key=lambda row: derive_seed(row.id, "check"))[:ROWS]
        batch, tables = tuple(with_length(row) for row in chosen), tables_of(question, corpus, "train")
        return Trial(task, options, question, corpus, vocabulary, roles, batch, tables)
    raise UserError(problems[0])


def refuse_options(options: Any) -> None:
    """Refuse options that the bare command cannot set, or that code can change while a run has them."""
    without = [field.name for field in fields(options) if field.init and field.default is field.default_factory is MISSING]
    if without:
        raise Failed(f"Expected a default for every field of {options.__name__}, found none for '{without[0]}'. Give it one.")
    if not options.__dataclass_params__.frozen:
        raise Failed(f"Expected a frozen dataclass, found that {options.__name__} is not. Write @dataclass(frozen=True).")


def question_of(task: Task, options: Any) -> Question:
    """Return the question of a task, which has to be a Question."""
    question = task.question(options)
    if not isinstance(question, Question):
        raise Failed(f"Expected a Question from Task.question(options), found {type(question).__name__}. Return one.")
    return question


def built(task: Task, options: Any, vocabulary: Mapping[str, Any], roles: Sequence[Role], seed: int = 1) -> Expert:
    """Return a task's expert, its weights drawn from a seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expert = task.build(options, vocabulary, {role: Silent(role).spec for role in roles})
    if not isinstance(expert, Expert):
        raise Failed(
            f"Expected an Expert from Task.build(options, vocabulary, specs), found {type(expert).__name__}. Return one."
        )
    return expert


def with_length(row: Utterance) -> Utterance:
    """Return an utterance of a length that differs from the others', long enough for its transcript."""
    frames = 40 + derive_seed(row.id, "frames") % 20
    return replace(row, duration=frames * FRAME_SECONDS, text=row.text if row.text is not None else "far away")


def made_up() -> Corpus:
    """Return a corpus with a label of every kind: classes, ratings from 1 to 7, whether it is directed, phones, slots; texts."""
    splits: dict[str, tuple[Utterance, ...]] = {}
    for split, count in (("train", 18), ("dev", 9), ("test", 9)):
        splits[split] = tuple(_utterance(split, number) for number in range(count))
    return Corpus("made-up", "check", None, splits, label_order={"directed": ("no", "yes")}, scale=(1.0, 7.0))


def _utterance(split: str, number: int) -> Utterance:
    words = list(itertools.islice(itertools.cycle(WORDS[number % len(WORDS) :] + WORDS), 3))
    ratings = {name: 1.0 + (number * step) % 7 for name, step in (("arousal", 1), ("valence", 2), ("dominance", 3))}
    slots = {
        "action": ("on", "off")[number % 2],
        "object": ("lamp", "fan")[number // 2 % 2],
        "location": ("hall", "none")[number % 2],
    }
    turns = [("first", 0.0, 0.3 + 0.02 * (number % 5)), ("second", 0.2, 0.5)]
    classes = {"label": ("one", "two", "three")[number % 3], "directed": ("no", "yes")[number % 2]}
    written = {"phones": " ".join("".join(words).upper()), "tagged": "{} [what: {}] {}".format(*words)}
    labels: dict[str, Any] = {**classes, **ratings, **slots, **written, LABEL: turns}
    name = f"{split}-{number:02d}"
    return Utterance(name, f"{name}.wav", duration=2.0, text=" ".join(words), speaker=f"{split}{number % 3}", labels=labels)


def taken(layers: Layers, role: Role, expert: Expert, batch: Batch) -> Layers:
    """Return the layers that an expert takes as they are, with what it masks; all where it takes a weighted sum."""
    if role not in expert.takes:
        return layers
    values = [layers.values[number] for number in expert.takes[role]]
    return replace(layers, values=values, masked=expert.hide(batch) if role == "audio" else None)


def layers_of(rows: Sequence[Utterance], role: Role) -> Layers:
    """Return noise that is each utterance's own, and other noise behind its end: what an expert has to leave out."""
    lengths = tuple(round((row.duration or 1.0) / FRAME_SECONDS) for row in rows)
    values = []
    for layer in range(2):
        padded = torch.full((len(rows), max(lengths), DIMS[role]), 30.0 * (layer + 1))
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            generator = torch.Generator().manual_seed(derive_seed(row.id, role, layer))
            own = torch.randn(1, DIMS[role], generator=generator)  # what an expert can tell it by
            padded[number, :length] = own + torch.randn(length, DIMS[role], generator=generator)
        values.append(padded)  # (batch, frame, dim)
    return Layers(values, lengths)


def pooled(batch: Batch) -> Batch:
    """Return a batch in which an utterance is one frame, the mean over its frames, as a store may keep it."""
    stored = {}
    for role, layers in batch.stored.items():
        means = [
            torch.stack([row[:end].mean(dim=0, keepdim=True) for row, end in zip(values, layers.lengths, strict=True)])
            for values in layers.values
        ]
        stored[role] = Layers(means, (1,) * len(batch), pooled=True)
    return replace(batch, stored=stored)
