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
from .waveforms import SAMPLE_RATE, AudioItem, name_of, windows_of

TranscriptLookup = Callable[[AudioItem], str]  # an item -> its transcript, or a UserError that says where one may come from


@dataclass(frozen=True)
class Prediction:
    """The prediction of a run for one file."""

    file: str
    start: float = 0.0  # seconds into the file
    seconds: float = 0.0
    label: Any = None  # the class, the text, or what else is predicted; ratings are scores
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
        audio = Batch(None, (), ids=("0",)) if self.waveform is None else as_batch([self.waveform])
        return replace(audio, texts=(self.text,))


class Predictor(Protocol):
    """What predicts on files: one run, or the folds of a plan together."""

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """The inputs that it needs of a file: audio, text."""
        ...

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file."""
        ...

    def join(self, pieces: Sequence[Piece]) -> tuple[Any, Tensor | None]:
        """Return one prediction, and its scores if there are any, from the pieces of a file."""
        ...


def predict_item(run: Predictor, what: AudioItem, text: str | None = None) -> Prediction:
    """Return the prediction for one item; what cannot be read raises UserError."""
    transcripts = utterance_text if text is None else lambda _: text
    prediction = next(predict_items(run, [what], transcripts))
    if prediction.error:
        raise UserError(prediction.error)
    return prediction


def predict_items(run: Predictor, items: Iterable[AudioItem], transcripts: TranscriptLookup) -> Iterator[Prediction]:
    """Yield a prediction for each item, in order, the audio of the next one read meanwhile."""
    if "audio" not in run.roles:  # a run that only reads opens no audio
        yield from (_prediction(run, item, [None], transcripts) for item in items)
        return
    # items that come one by one are predicted one by one
    for item, windows in ahead(items, windows_of, threaded=isinstance(items, Sequence)):
        yield _prediction(run, item, windows, transcripts)


def _prediction(
    run: Predictor, item: AudioItem, windows: Sequence[np.ndarray | None] | UserError, transcripts: TranscriptLookup
) -> Prediction:
    try:
        if isinstance(windows, UserError):
            raise windows
        text = transcripts(item) if run.uses_text else None  # each window has the whole text
    except UserError as problem:
        return Prediction(name_of(item), error=str(problem))
    pieces = [Piece(window, text) for window in windows]
    kind, (value, scores) = run.answer, run.join(pieces)
    if scores is not None and not scores.isfinite().all():
        return Prediction(name_of(item), error=f"Expected finite scores, found NaN or infinity: {name_of(item)}. {_DAMAGED}")
    named = None if scores is None else dict(zip(kind.score_names, scores.tolist(), strict=True))
    seconds = sum(piece.seconds for piece in pieces if piece.waveform is not None)
    start = item.start if isinstance(item, Utterance) else 0.0
    return Prediction(name_of(item), start, seconds, None if kind.column is None else value, named)


_DAMAGED = "Look for damaged samples in it: values far above 1 are none of speech."


def utterance_text(item: AudioItem) -> str:
    """Return the text that an utterance brings along."""
    if isinstance(item, Utterance) and item.text is not None:
        return item.text
    raise UserError(f"Expected a transcript of {name_of(item)} for a run that reads, found none. Give it: predict(file, text).")
