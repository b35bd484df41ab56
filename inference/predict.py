"""Files in, predictions out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.frames import data_frame, html_table
from ..corpus.base import Utterance
from ..corpus.batch import Batch, as_batch
from ..downstream.answer import Answer, Window
from ..training.loop import ahead
from .waveforms import SAMPLE_RATE, AudioItem, Waveform, item_of, items_of, name_of, windows_of

if TYPE_CHECKING:
    from pandas import DataFrame

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


class Predictions(list[Prediction]):
    """The predictions for several files: a list that a notebook shows as a table.

    >>> print(Predictions([Prediction("a.wav", label="calm", scores={"calm": 0.9})]).rows())
    [{'file': 'a.wav', 'start': 0.0, 'seconds': 0.0, 'label': 'calm', 'calm': 0.9}]
    """

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each file, each score in a column of its own."""
        failed = any(one.error for one in self)
        return [
            {
                **{"file": one.file, "start": one.start, "seconds": one.seconds, "label": one.label},
                **(one.scores or {}),
                **({"error": one.error} if failed else {}),
            }
            for one in self
        ]

    @property
    def frame(self) -> DataFrame:
        """The rows as a DataFrame of pandas."""
        return data_frame(self.rows())

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_table(self.rows())


@dataclass(frozen=True)
class Pair:
    """What a run says of two files."""

    file: str
    other: str
    score: float | None = None
    label: str = ""  # same, different
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
        return batch_of([self])


def batch_of(pieces: Sequence[Piece]) -> Batch:
    """Return pieces as one batch; of a run that only reads, they have no waveforms."""
    waveforms = [piece.waveform for piece in pieces if piece.waveform is not None]
    audio = as_batch(waveforms) if waveforms else Batch(None, (), ids=tuple(map(str, range(len(pieces)))))
    return replace(audio, texts=tuple(piece.text for piece in pieces))


class Predictor(Protocol):
    """What predicts on files and arrays: one run, or the folds of a plan together."""

    @overload
    def predict(
        self, what: list[Any] | tuple[Any, ...], text: Sequence[str] | None = None, *, sampling_rate: float | None = None
    ) -> Predictions: ...

    @overload
    def predict(
        self, what: AudioItem | np.ndarray | Tensor, text: str | None = None, *, sampling_rate: float | None = None
    ) -> Prediction: ...

    def predict(
        self, what: Any, text: str | Sequence[str] | None = None, *, sampling_rate: float | None = None
    ) -> Prediction | Predictions:
        """Return the prediction for a file or for an array of mono samples, with its text where the run reads one.

        A list, or an array (batch, sample), gives a list of predictions. Arrays need their `sampling_rate`; int16 samples are
        divided by 32,768. What cannot be read raises UserError; `predict_all` passes it over.
        """
        items = items_of(what, sampling_rate)
        batch = items if isinstance(items, list) else [items]
        if sampling_rate is not None and not any(isinstance(item, Waveform) for item in batch):
            raise UserError(f"Expected no sampling_rate for a file, which says its own, found {sampling_rate}. Leave it out.")
        if not isinstance(items, list):
            return predict_item(self, items, None if text is None else str(text))
        texts = [None] * len(items) if text is None else text
        if isinstance(texts, str) or len(texts) != len(items):
            found = "one for all" if isinstance(texts, str) else len(texts)
            raise UserError(f"Expected a text for each of {len(items)} items, found {found}. Give a list of as many texts.")
        return Predictions(predict_item(self, item, own) for item, own in zip(items, texts, strict=True))

    def predict_all(
        self, items: Iterable[Any], transcripts: TranscriptLookup | None = None, *, sampling_rate: float | None = None
    ) -> Iterator[Prediction]:
        """Yield a prediction for each item, in order; what cannot be read carries its error instead.

        `sampling_rate` is that of the arrays among the items.
        """
        if isinstance(items, Sequence):
            items = [item_of(item, sampling_rate) for item in items]
        else:
            items = (item_of(item, sampling_rate) for item in items)
        return predict_items(self, items, transcripts or utterance_text)

    def predict_pair(self, one: AudioItem, other: AudioItem) -> Pair:
        """Return what two files say of each other: of asv, whether they are of one speaker; what cannot be read has an error."""
        compare = self.answer.pairs()
        first, second = predict_items(self, [one, other], utterance_text)
        error = first.error or second.error
        if error:
            return Pair(first.file, second.file, error=error)
        vectors = [torch.tensor([*(found.scores or {}).values()]) for found in (first, second)]
        return Pair(first.file, second.file, *compare(*vectors))

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

    def rows(self, batch: Batch) -> list[Any]:
        """Return of each piece in a batch what its prediction is decided from."""
        ...

    def joined(self, windows: Sequence[Window]) -> tuple[Any, Tensor | None]:
        """Return one prediction, and its scores if there are any, from the rows of a file's pieces."""
        ...

    def join(self, pieces: Sequence[Piece]) -> tuple[Any, Tensor | None]:
        """Return one prediction, and its scores if there are any, from the pieces of a file.

        One piece at a time: what a file gets never depends on its neighbours, and on a CPU nothing is faster.
        """
        return self.joined([(piece.seconds, self.rows(piece.batch())[0]) for piece in pieces])


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
        yield from (predict_read(run, item, [None], transcripts) for item in items)
        return
    # items that come one by one are predicted one by one
    for item, windows in ahead(items, windows_of, threaded=isinstance(items, Sequence)):
        yield predict_read(run, item, windows, transcripts)


def predict_read(
    run: Predictor, item: AudioItem, windows: Sequence[np.ndarray | None] | UserError, transcripts: TranscriptLookup
) -> Prediction:
    """Return the prediction for an item whose windows are read, or why they could not be."""
    try:
        if isinstance(windows, UserError):
            raise windows
        text = transcripts(item) if run.uses_text else None  # each window has the whole text
    except UserError as problem:
        return Prediction(name_of(item), error=str(problem))
    pieces = [Piece(window, text) for window in windows]
    seconds = sum(piece.seconds for piece in pieces if piece.waveform is not None)
    start = item.start if isinstance(item, Utterance) else 0.0
    if not _has_silence(run) and all(window is not None and not window.any() for window in windows):
        if run.answer.of_silence is not None:
            return Prediction(name_of(item), start, seconds, run.answer.of_silence)
        return Prediction(
            name_of(item), error=f"Expected sound, found digital silence (zeros): {name_of(item)}. Record it again."
        )
    kind, (value, scores) = run.answer, run.join(pieces)
    if scores is not None and not scores.isfinite().all():
        return Prediction(name_of(item), error=f"Expected finite scores, found NaN or infinity: {name_of(item)}. {_DAMAGED}")
    named = None if scores is None else dict(zip(kind.score_names, scores.tolist(), strict=True))
    return Prediction(name_of(item), start, seconds, None if kind.column is None else value, named)


def _has_silence(run: Predictor) -> bool:
    """Return whether silence is one of the run's classes (of keyword spotting): then zeros have a label."""
    return any(name.strip("_").lower() == "silence" for name in run.answer.score_names)


_DAMAGED = "Look for damaged samples in it: values far above 1 are none of speech."


def utterance_text(item: AudioItem) -> str:
    """Return the text that an utterance brings along."""
    if isinstance(item, Utterance) and item.text is not None:
        return item.text
    raise UserError(f"Expected a transcript of {name_of(item)} for a run that reads, found none. Give it: predict(file, text).")
