"""Gather the pieces of all requests that wait into one forward: a queue, and a thread that works it off."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ...corpus.batch import Batch
from ...downstream.answer import Answer, Window
from ..export.onnx import speech_like
from ..folds import Folds
from ..predict import Piece, Predictor, batch_of
from ..trained_run import TrainedRun

MOST_PIECES = 32  # in one forward
MOST_PADDING = 0.25  # of a forward: what is longer waits for the next
TOLERANCE = 1e-5  # a forward of several pieces is used where it computes what one of each does
_SECONDS = (0.6, 1.9, 1.1)  # of the sounds that this is tried on
_WORDS = ("one", "one two three four five", "one two")

Rows = Callable[[Batch], list[Any]]


@dataclass(frozen=True)
class _Job:
    piece: Piece
    found: Future[Any]

    @property
    def size(self) -> float:
        return self.piece.seconds if self.piece.waveform is not None else float(len(self.piece.text or ""))


class Gatherer:
    """A thread that computes the rows of pieces: all that wait, at once where `together`, else one by one."""

    def __init__(self, rows: Rows, *, together: bool) -> None:
        self.rows, self.most = rows, MOST_PIECES if together else 1
        self.waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.forwards, self.pieces = 0, 0  # so far
        self.thread = threading.Thread(target=self._work, name="gatherer", daemon=True)
        self.thread.start()

    def submit(self, piece: Piece) -> Future[Any]:
        """Return what will be the row of a piece."""
        found: Future[Any] = Future()
        self.waiting.put(_Job(piece, found))
        return found

    def close(self) -> None:
        """Work off what waits, and end the thread."""
        self.waiting.put(None)
        self.thread.join()

    def _work(self) -> None:
        while True:
            job = self.waiting.get()
            jobs = [] if job is None else [job]
            while job is not None and len(jobs) < self.most and not self.waiting.empty():
                job = self.waiting.get()
                jobs += [] if job is None else [job]
            for group in groups_of(jobs):
                self._compute(group)
            if job is None:
                return

    def _compute(self, jobs: Sequence[_Job]) -> None:
        jobs = [job for job in jobs if job.found.set_running_or_notify_cancel()]
        if jobs:
            self._settle(jobs)

    def _settle(self, jobs: Sequence[_Job]) -> None:
        try:
            rows = self.rows(batch_of([job.piece for job in jobs]))
            self.forwards, self.pieces = self.forwards + 1, self.pieces + len(jobs)
        except Exception as problem:  # whatever a model raises belongs to the request, and the thread goes on
            if len(jobs) == 1:
                jobs[0].found.set_exception(problem)
                return
            for job in jobs:  # one piece may be the cause: the others have nothing to do with it
                self._settle([job])
            return
        for job, row in zip(jobs, rows, strict=True):
            job.found.set_result(row)


def groups_of(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Yield the pieces that go through the model at once: those of like length, so that little is padding."""
    group: list[_Job] = []
    total = 0.0
    for job in sorted(jobs, key=lambda job: job.size):
        if group and total + job.size < (1 - MOST_PADDING) * job.size * (len(group) + 1):
            yield group
            group, total = [], 0.0
        group, total = [*group, job], total + job.size
    if group:
        yield group


@dataclass(frozen=True)
class Gathered(Predictor):
    """A run whose pieces go through the model together with those of other threads."""

    run: TrainedRun | Folds
    gatherer: Gatherer

    @classmethod
    def started(cls, run: TrainedRun | Folds) -> Gathered:
        """Return a run with a thread that works for it; pieces go together where that changes no number."""
        return cls(run, Gatherer(run.rows, together=computes_together(run)))

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.run.answer

    @property
    def roles(self) -> tuple[str, ...]:
        """The inputs that it needs of a file: audio, text."""
        return self.run.roles

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file."""
        return self.run.uses_text

    def rows(self, batch: Batch) -> list[Any]:
        """Return of each piece in a batch what its prediction is decided from."""
        return self.run.rows(batch)

    def joined(self, windows: Sequence[Window]) -> tuple[Any, Tensor | None]:
        """Return one prediction, and its scores if there are any, from the rows of a file's pieces."""
        return self.run.joined(windows)

    def join(self, pieces: Sequence[Piece]) -> tuple[Any, Tensor | None]:
        """Return one prediction of a file's pieces, each computed together with whatever else waits."""
        waiting = [self.gatherer.submit(piece) for piece in pieces]
        return self.joined([(piece.seconds, found.result()) for piece, found in zip(pieces, waiting, strict=True)])


def computes_together(run: TrainedRun | Folds) -> bool:
    """Return whether a run computes for several pieces at once what it does for each alone: tried on made-up sounds."""
    has_audio, has_text = "audio" in run.roles, run.uses_text
    sounds = [speech_like(seconds) if has_audio else None for seconds in _SECONDS]
    pieces = [Piece(sound, words if has_text else None) for sound, words in zip(sounds, _WORDS, strict=True)]
    members = run.runs if isinstance(run, Folds) else (run,)
    for member in members:
        together = outputs_of(member, batch_of(pieces))
        alone = [outputs_of(member, piece.batch())[0] for piece in pieces]
        if not all(one.shape == other.shape and close(one, other) for one, other in zip(together, alone, strict=True)):
            return False
    return True


def close(one: Tensor, other: Tensor) -> bool:
    """Return whether two outputs are equal, as a share of the largest of them; what is no number never is."""
    largest = max(1.0, float(other.abs().max()))
    return float((one - other).abs().max()) <= TOLERANCE / 2 * largest


@torch.no_grad()
def outputs_of(run: TrainedRun, batch: Batch) -> list[Tensor]:
    """Return what a run's head makes of each utterance of a batch."""
    output = run.model.output_of(run.config.only.task, batch.to(run.device), run.without)
    values = cast(Tensor, output.values).float()
    return [value[: output.lengths[place]] if output.lengths else value for place, value in enumerate(values)]
