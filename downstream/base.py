"""Experts: what a task is to the loop, and how one is found by the name of its folder."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..core.errors import UserError
from ..corpus.base import Corpus, Utterance
from ..corpus.batch import Batch
from ..plugins.registry import ADDING, Registry
from ..upstream.base import Frames, Upstream, UpstreamSpec
from .answer import Answer, Rows


@dataclass(frozen=True)
class Output:
    """The output of a head for a batch."""

    values: Tensor  # (batch, class), or as the task says
    lengths: tuple[int, ...] = ()  # valid frames, where the output is a sequence
    embeddings: Tensor | None = None  # (batch, dim)
    expected: Any = None  # what the loss compares with, where a teacher gives it


RowScorer = Callable[[NDArray[np.integer]], dict[str, float]]  # rows of an outcome, some of them several times -> every metric
Tables = Mapping[str, Any]  # name -> table: what json holds
Column = Any  # one value for each utterance: a tuple, or an array where a thousand draws are made of it


@dataclass(frozen=True)
class Outcome:
    """What a piece or, joined, a whole split yields, detached and on the host; metrics look at nothing smaller than a split."""

    ids: Column
    predictions: Column
    references: Column
    scores: Tensor | None = None  # (utterance, class)
    embeddings: Tensor | None = None  # (utterance, dim)
    loss: float = 0.0  # mean over the utterances

    @classmethod
    def join(cls, pieces: Sequence[Outcome]) -> Outcome:
        """Return the rows of all pieces, in the order given."""
        if not pieces:
            raise ValueError("Expected at least one piece to join, found none.")
        count = sum(len(piece.ids) for piece in pieces)
        return cls(
            ids=tuple(name for piece in pieces for name in piece.ids),
            predictions=tuple(value for piece in pieces for value in piece.predictions),
            references=tuple(value for piece in pieces for value in piece.references),
            scores=_joined([piece.scores for piece in pieces]),
            embeddings=_joined([piece.embeddings for piece in pieces]),
            loss=sum(piece.loss * len(piece.ids) for piece in pieces) / max(count, 1),
        )

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> Outcome:
        """Return the rows named, in that order, repetitions included."""
        index = torch.as_tensor(rows, dtype=torch.long)

        def pick(values: Any) -> Any:
            """Return the rows of one column."""
            return values[np.asarray(rows)] if isinstance(values, np.ndarray) else tuple(values[row] for row in rows)

        return Outcome(
            ids=pick(self.ids),
            predictions=pick(self.predictions),
            references=pick(self.references),
            scores=None if self.scores is None else self.scores[index],
            embeddings=None if self.embeddings is None else self.embeddings[index],
            loss=self.loss,
        )

    def columns(self, answer: Answer) -> Outcome:
        """Return the same rows as arrays, of which `take` makes a thousand draws in a fraction of the time."""
        predictions, references = answer.array(self.predictions), answer.array(self.references)
        return replace(self, ids=np.array(self.ids), predictions=predictions, references=references, embeddings=None)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


class Expert(nn.Module, ABC):
    """Head and loss of one task; it never imports a corpus."""

    vocabulary: dict[str, Any]  # json in the run folder: rebuilds the expert without a corpus
    views: int = 1
    roles: tuple[str, ...] = ("audio",)
    loss_needs: Literal["piece", "whole_batch"] = "piece"
    pools: Mapping[str, str | None] = MappingProxyType({})  # role -> statistics over time, where its head needs no more
    optional_roles: tuple[str, ...] = ()  # roles that a prediction can do without
    long_enough_for: str = "their targets"  # the reason why `can_train_on` refuses what is too short, in words
    crops: bool = False  # a training step uses a stretch of each utterance, drawn by `crop`
    # role -> layers that it takes as they are (Layers), in place of a weighted sum of all (Frames); -1: the last
    takes: Mapping[str, tuple[int, ...]] = MappingProxyType({})
    trains_upstream: bool = False  # there is nothing to learn where the upstream is frozen
    fit_frames: int = 0  # frames of its teacher that `fit_to_teacher` gets before the first step

    def with_vocabulary(self, vocabulary: Mapping[str, Any]) -> Self:
        """Return the expert with another vocabulary, a view that shares its weights: what dev decided, a threshold say."""
        view = copy.copy(self)
        view.vocabulary = dict(vocabulary)
        return view

    def weight(self, utterance: Utterance) -> float:  # noqa: ARG002
        """Return how often the utterance is drawn, relative to others."""
        return 1.0

    def can_train_on(self, target: Any, seconds: float) -> bool:  # noqa: ARG002
        """Return whether training can use an utterance of so many seconds with this target; others are left out, and counted."""
        return True

    def crop(self, utterance: Utterance, generator: torch.Generator) -> Utterance:  # noqa: ARG002
        """Return the stretch that a training step uses."""
        return utterance

    def hide(self, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Return which frames (batch, frame) are masked in the upstream's input, drawn by `batch.draws`; None: none is."""
        return None

    def fit_to_teacher(self, layers: Sequence[Tensor], seed: int) -> None:
        """Take from a sample of the teacher's frames, each layer (frame, dim), what is settled before the first step."""

    def linear(self) -> nn.Linear | None:
        """Return the one linear layer that is all of the head, over what `pools` names: then solver=exact can compute it."""
        return None

    def choices(self) -> tuple[int, ...]:
        """Return how many outputs of `linear` each choice is among, where an answer is several; () where it is one."""
        return ()

    def places(self, target: Any) -> tuple[int, ...]:  # noqa: ARG002
        """Return the right output of each choice, counted within the choice; -1 where none is."""
        return ()

    def importance(self, target: Any) -> float:  # noqa: ARG002
        """Return how much an utterance with this target counts in the loss, relative to others."""
        return 1.0

    @abstractmethod
    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Answer; no label is ever needed."""

    @abstractmethod
    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean loss over the piece, in training over the whole step where `loss_needs` says so."""

    def refuse_equal_views(self, varies: Mapping[str, bool]) -> None:
        """Refuse what gives an expert of two views the same one twice; `varies` says which upstreams' outputs differ."""

    def split_loss(self, outcome: Outcome) -> float:
        """Return the loss of a whole split: the mean over its pieces, where a loss is one of utterances."""
        return outcome.loss

    @abstractmethod
    def decode(self, output: Output) -> Rows:
        """Return what each prediction is decided from, on the host: scores (batch, class), or else the predictions."""


def as_trained(vocabulary: Mapping[str, Any], labels: Any, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the run's own vocabulary, for a task whose labels are the same in every corpus."""
    if any(value not in (None, "") for value in vars(labels).values()):
        raise UserError(
            f"Expected no labels.* for {corpus.name}, whose labels are taken as in training, found some. Leave them out."
        )
    return dict(vocabulary), "labels as in training"


@dataclass(frozen=True)
class Question:
    """What a task asks: labels, targets, answer and score as plain functions, apart from any head, so that tasks can share it."""

    name: str
    metrics: Mapping[str, Literal["higher", "lower"]]
    primary_metric: str
    make_vocabulary: Callable[[Any, Any, Corpus], dict[str, Any]]  # (the task's options, labels config, corpus)
    select: Callable[[Mapping[str, Any], Sequence[Utterance]], list[Utterance]]  # those that the vocabulary has a target for
    target: Callable[[Mapping[str, Any], Utterance], Any]  # what the loss compares with; called once for each utterance
    answer: Callable[[Mapping[str, Any]], Answer]  # vocabulary -> the kind of answer
    # (vocabulary, outcome, the tables of the split): every metric of a whole split
    score: Callable[[Mapping[str, Any], Outcome, Tables], dict[str, float]]
    reference: Callable[[Mapping[str, Any], Any], Any] = lambda _, target: target  # a target as a user reads it
    tables: tuple[str, ...] = ()  # of a corpus, that the score takes: trial lists, rttm, a lexicon
    # (what it is, utterances of a split) -> those of its tables that a corpus need not have
    make_tables: Callable[[str, Sequence[Utterance]], Tables] = lambda _, __: {}
    # (vocabulary, outcome, tables) -> a function that scores draws of its rows, where `score` cannot score the rows drawn
    scorer: Callable[[Mapping[str, Any], Outcome, Tables], RowScorer] | None = None
    # (vocabulary, labels config, another corpus) -> the vocabulary for its labels, and what was done
    adapt: Callable[[Mapping[str, Any], Any, Corpus], tuple[dict[str, Any], str]] = as_trained
    # (vocabulary, outcome of dev, its tables) -> the vocabulary with what dev decides
    calibrate: Callable[[Mapping[str, Any], Outcome, Tables], dict[str, Any]] = lambda vocabulary, _, __: dict(vocabulary)
    final: tuple[str, ...] = ()  # of the metrics, those of the finished model alone: no step is chosen by them, none is logged
    # vocabulary of a finished run -> the same with what the run's options say in place of dev
    finished: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    placed: str = ""  # the number among it that is a mean where several runs predict together: a threshold
    details: Callable[[Mapping[str, Any], Outcome], dict[str, Any]] = lambda _, __: {}  # beside the metrics of a split
    draw: Callable[[Mapping[str, Any], Outcome, Path, Sequence[str]], None] | None = None  # pictures: (…, path stem, marks)
    # (vocabulary, splits of a corpus) -> what a user should know of its targets: words that are in no lexicon
    notes: Callable[[Mapping[str, Any], Mapping[str, Sequence[Utterance]]], tuple[str, ...]] = lambda _, __: ()
    label: bool = True  # a class label in every row of a table; False: the targets lie in columns of their own
    # what splits share by definition, so that it is no leakage: speakers, recordings (of which each split has its stretches)
    shares: tuple[Literal["speakers", "recordings"], ...] = ()
    writes: bool = False  # the target is the transcript: an utterance without one has no target
    needs_labels: bool = True  # False: any corpus serves it

    def __post_init__(self) -> None:
        """Refuse a metric of which nobody knows whether more is better, and a choice by a metric that is none."""
        for metric, better in self.metrics.items():
            if better not in ("higher", "lower"):
                raise UserError(
                    f"Expected 'higher' or 'lower' as what is better of the metric '{metric}' of the question '{self.name}', "
                    f"found {better!r}. Say which."
                )
        if self.primary_metric not in self.metrics:
            raise UserError(
                f"Expected one of its metrics ({', '.join(self.metrics) or 'none'}) as primary_metric of the question "
                f"'{self.name}', found '{self.primary_metric}'. Name one of them."
            )

    def row_scorer(self, vocabulary: Mapping[str, Any], outcome: Outcome, tables: Tables) -> RowScorer:
        """Return a function that scores a draw of an outcome's rows, a thousand times in a row."""
        if self.scorer is not None:
            return self.scorer(vocabulary, outcome, tables)
        columns = outcome.columns(self.answer(vocabulary))
        return lambda rows: self.score(vocabulary, columns.take(rows), tables)

    def mean_placed(self, vocabularies: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the mean of what dev placed in each of several runs, by its name; nothing where it places nothing."""
        if not self.placed:
            return {}
        return {self.placed: sum(vocabulary[self.placed] for vocabulary in vocabularies) / len(vocabularies)}


# no task's name: the sections of a recipe, beside which the task's own stands, and `all`, what tasks share in a checkpoint
RESERVED = frozenset(
    {
        *("task", "corpus", "labels", "expert", "select_by", "init_head", "roles", "batch_size"),
        *("tasks", "upstream", "text_upstream", "optimizer", "training", "store", "shared_weights", "sampling", "balance"),
        *("select", "baselines", "solver", "exact", "split", "steps_from", "seed", "folds", "stages", "reference", "all"),
        *("masks", "report_by", "teacher", "track", "own_adapters"),
    }
)


def takes_teacher(options: Any) -> bool:
    """Return whether options (or their class) are those of a task that a teacher gives: it trains an upstream without labels."""
    return getattr(options, "takes_teacher", False)


@dataclass(frozen=True)
class Task:
    """A task as its folder offers it: an `expert.py` ends with `TASK = Task(…)`."""

    name: str
    options: type  # dataclass of the task's own section in a recipe
    question: Callable[[Any], Question]  # options -> the question
    build: Callable[[Any, Mapping[str, Any], Mapping[str, UpstreamSpec]], Expert]  # (options, vocabulary, specs by role)
    # its options with which the head is one linear layer, so that solver=exact can compute it; {}: it has none
    linear: Mapping[str, Any] = field(default_factory=dict)
    afterwards: tuple[str, ...] = ()  # its options that a finished run can change: how its outputs are read

    def head(self, answers: Sequence[str] | Mapping[str, Any], *upstreams: Upstream, options: Any = None) -> Expert:
        """Return the task's expert with new weights, for a loop of one's own: it takes frames by role, and gives logits.

        `answers` are class names; a task that predicts other things takes its vocabulary, as a run folder has it.

        >>> from headwater.upstream import load_upstream
        >>> from headwater.downstream import load_task
        >>> load_task("emotion").head(["calm", "angry"], load_upstream("fbank")).classifier.out_features
        2
        """
        vocabulary = answers if isinstance(answers, Mapping) else {"classes": [*answers]}
        specs = {str(upstream.spec.modality): upstream.spec for upstream in upstreams}
        if not specs:
            raise UserError(
                "Expected an upstream beside the classes, found none. For instance: head(classes, load_upstream('fbank'))"
            )
        return self.build(self.options() if options is None else options, vocabulary, specs)


def task_of(thing: Any, where: str) -> Task:
    """Return the task that a module of a task's kind ends with, or is, or say why it cannot be one."""
    task = getattr(thing, "TASK", None if isinstance(thing, ModuleType) else thing)
    if not isinstance(task, Task):
        found = "none" if task is None else type(task).__name__
        raise UserError(f"Expected `TASK = Task(…)` at the end of expert.py in {where}, found {found}. Add it.")
    there = TASKS.origin(task.name)
    if there not in (None, ADDING.get()):
        raise UserError(
            f"Expected a new name for the task of {where}, found '{task.name}', which is one of "
            f"{there.place or 'Headwater'} already. Rename it: Task(name=…)."
        )
    if not re.fullmatch(r"[A-Za-z]\w*", task.name) or hasattr(nn.ModuleDict(), task.name) or task.name in RESERVED:
        raise UserError(
            f"Expected letters, digits and _ in the name of the task in {where}, and no word that a recipe has for itself, "
            f"found '{task.name}'. Rename it: Task(name=…)."
        )
    if not (isinstance(task.options, type) and is_dataclass(task.options)):
        raise UserError(
            f"Expected a dataclass as Task(options=…) in {where}, found {task.options!r}. Decorate it with @dataclass."
        )
    return task


TASKS: Registry[Task] = Registry("task", "headwater.downstream", find_in=task_of)
