"""Files in, predictions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..core.errors import UserError
from ..corpus.base import Utterance
from ..corpus.batch import Batch, as_batch
from ..downstream.answer import Answer
from ..training.loop import ahead
from .waveforms import SAMPLE_RATE, Heard, name_of, windows_of

Words = Callable[[Heard], str]  # the transcript of an item, or a UserError that says where one may come from


@dataclass(frozen=True)
class Prediction:
    """What a run says of one file."""

    file: str
    start: float = 0.0  # seconds into the file
    seconds: float = 0.0
    label: Any = None  # the class, the text, or what else is the answer; ratings are scores
    scores: dict[str, float] | None = None
    error: str = ""  # why there is no label


@dataclass(frozen=True)
class Piece:
    """What goes through the model at once: a window of a file, the file's text, or both."""

    waveform: np.ndarray | None
    text: str | None

    @property
    def seconds(self) -> float:
        """What the window counts when a file's windows are joined."""
        return 1.0 if self.waveform is None else len(self.waveform) / SAMPLE_RATE

    def batch(self) -> Batch:
        """Return the piece as a batch of one."""
        heard = Batch(None, (), ids=("0",)) if self.waveform is None else as_batch([self.waveform])
        return replace(heard, texts=(self.text,))


class Asked(Protocol):
    """What can be asked about files: one run, or the folds of a plan together."""

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """What is asked for of a file: audio, text."""
        ...

    @property
    def reads(self) -> bool:
        """Whether a text goes with each file."""
        ...

    def join(self, pieces: Sequence[Piece]) -> tuple[Any, Tensor | None]:
        """Return one answer, and its scores if there are any, from the pieces of a file."""
        ...


def ask(run: Asked, what: Heard, text: str | None = None) -> Prediction:
    """Return the prediction for one item; what cannot be read raises UserError."""
    words = own_words if text is None else lambda _: text
    prediction = next(ask_all(run, [what], words))
    if prediction.error:
        raise UserError(prediction.error)
    return prediction


def ask_all(run: Asked, items: Iterable[Heard], words: Words) -> Iterator[Prediction]:
    """Yield a prediction for each item, in order, the audio of the next one read meanwhile."""
    if "audio" not in run.roles:  # a run that only reads opens no audio
        yield from (_prediction(run, item, [None], words) for item in items)
        return
    # whoever gives items as they come is answered as they come
    for item, heard in ahead(items, windows_of, threaded=isinstance(items, Sequence)):
        yield _prediction(run, item, heard, words)


def _prediction(run: Asked, item: Heard, heard: Sequence[np.ndarray | None] | UserError, words: Words) -> Prediction:
    try:
        if isinstance(heard, UserError):
            raise heard
        text = words(item) if run.reads else None  # each window has the whole text
    except UserError as problem:
        return Prediction(name_of(item), error=str(problem))
    pieces = [Piece(window, text) for window in heard]
    kind, (value, scores) = run.answer, run.join(pieces)
    if scores is not None and not scores.isfinite().all():
        return Prediction(name_of(item), error=f"Expected finite scores, found NaN or infinity: {name_of(item)}. {_DAMAGED}")
    named = None if scores is None else dict(zip(kind.score_names, scores.tolist(), strict=True))
    seconds = sum(piece.seconds for piece in pieces if piece.waveform is not None)
    start = item.start if isinstance(item, Utterance) else 0.0
    return Prediction(name_of(item), start, seconds, None if kind.column is None else value, named)


_DAMAGED = "Look for damaged samples in it: values far above 1 are none of speech."


def own_words(item: Heard) -> str:
    """Return the text that an utterance brings along."""
    if isinstance(item, Utterance) and item.text is not None:
        return item.text
    raise UserError(f"Expected a transcript of {name_of(item)} for a run that reads, found none. Give it: predict(file, text).")
