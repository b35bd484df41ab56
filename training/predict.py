"""A finished run as something to ask: which label, with which scores, has this file?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..corpus.audio import read_audio
from ..corpus.base import Utterance
from ..corpus.batch import as_batch
from ..downstream.base import Expert, load_task
from ..errors import UserError
from ..upstream.base import load_upstream
from ..upstream.run_folder import finetuned
from . import checkpoint
from .config import RunConfig, read_yaml, resolve
from .model import Model, check_device
from .prepare import build_model

SAMPLE_RATE = 16_000
WINDOW_SECONDS = 20.0  # longer files are cut into equal windows of at most this, and joined
FILES_AT_ONCE = 32
# a file, a stretch of one, or a 16 kHz mono waveform
Heard = str | Path | Utterance | np.ndarray | Tensor


@dataclass(frozen=True)
class Prediction:
    """What a run says of one file."""

    file: str
    start: float = 0.0  # seconds into the file
    seconds: float = 0.0
    label: Any = None
    scores: dict[str, float] | None = None
    error: str = ""  # why there is no label


@dataclass(frozen=True)
class TrainedRun:
    """A run folder, loaded."""

    folder: Path
    config: RunConfig
    model: Model
    expert: Expert
    marks: tuple[str, ...]

    def predict(self, what: Heard) -> Prediction:
        """Return the prediction for a file, or for a 16 kHz mono waveform; what cannot be read raises UserError."""
        prediction = next(self.predict_all([what]))
        if prediction.error:
            raise UserError(prediction.error)
        return prediction

    def predict_all(self, items: Iterable[Heard]) -> Iterator[Prediction]:
        """Yield a prediction for each item, in order; what cannot be read carries its error instead."""
        pending: list[Heard] = []
        for item in items:
            pending.append(item)
            if len(pending) == FILES_AT_ONCE:
                yield from self._predict_some(pending)
                pending = []
        if pending:
            yield from self._predict_some(pending)

    def _predict_some(self, items: Sequence[Heard]) -> list[Prediction]:
        waveforms: list[np.ndarray | None] = []
        errors: list[str] = []
        for item in items:
            try:
                waveforms.append(hear(item))
                errors.append("")
            except UserError as problem:
                waveforms.append(None)
                errors.append(str(problem))
        windows = [(row, window) for row, waveform in enumerate(waveforms) if waveform is not None for window in cut(waveform)]
        answers: dict[int, list[tuple[float, Tensor]]] = {}
        for (row, window), scores in zip(windows, self._scores([window for _, window in windows]), strict=True):
            answers.setdefault(row, []).append((len(window) / SAMPLE_RATE, scores))
        return [self._prediction(item, answers.get(row, []), errors[row]) for row, item in enumerate(items)]

    def _prediction(self, item: Heard, windows: Sequence[tuple[float, Tensor]], error: str) -> Prediction:
        if error:
            return Prediction(name_of(item), error=error)
        label, scores = self.expert.join(windows)
        named = dict(zip(self.expert.vocabulary["classes"], scores.tolist(), strict=True))
        start = item.start if isinstance(item, Utterance) else 0.0
        return Prediction(name_of(item), start, sum(seconds for seconds, _ in windows), label, named)

    def move_to(self, device: str) -> None:
        """Put the model on a device."""
        check_device(device)
        self.model.to(device)

    @torch.no_grad()
    def _scores(self, windows: Sequence[np.ndarray]) -> list[Tensor]:
        """One window at a time: what a file gets never depends on its neighbours, and on a CPU nothing is faster."""
        device = next(self.model.experts.parameters()).device
        scores = []
        for window in windows:
            _, probabilities = self.expert.decode(self.model.answer(self.config.task, as_batch([window]).to(device)))
            assert probabilities is not None, f"task {self.config.task} gives no scores: it cannot predict files"
            scores.append(probabilities[0])
        return scores


def hear(item: Heard) -> np.ndarray:
    """Return a 16 kHz mono waveform that has at least one sample, all of them numbers."""
    if isinstance(item, Utterance):
        waveform = read_audio(item.audio, item.start, item.duration, SAMPLE_RATE)
    elif isinstance(item, (str, Path)):
        waveform = read_audio(str(item), sample_rate=SAMPLE_RATE)
    else:
        waveform = as_float(np.asarray(item))
    if waveform.ndim != 1:
        raise UserError(f"Expected a 1-d waveform, found shape {waveform.shape}. Average the channels.")
    if not len(waveform):
        raise UserError("Expected sound, found a waveform of 0 samples. Record it again.")
    if not np.isfinite(waveform).all():
        raise UserError(f"Expected samples that are numbers, found NaN or infinite ones: {name_of(item)}. Record it again.")
    return waveform


def as_float(samples: np.ndarray) -> np.ndarray:
    """Return samples as float32; integers are scaled to -1 … 1, as files of them are."""
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / (np.iinfo(samples.dtype).max + 1.0)).astype(np.float32)
    return samples.astype(np.float32)


def name_of(item: Heard) -> str:
    """Return what an item is called in an answer."""
    return item.audio if isinstance(item, Utterance) else str(item) if isinstance(item, (str, Path)) else "waveform"


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Return a waveform in equal windows of at most WINDOW_SECONDS."""
    count = max(1, -(-len(waveform) // int(WINDOW_SECONDS * SAMPLE_RATE)))
    return np.array_split(waveform, count)


def load_run(folder: str | Path, weights: str | None = None) -> TrainedRun:
    """Return a finished run, ready to predict; `weights` says where its upstream lies now."""
    folder = checkpoint.run_folder(folder)
    if not (folder / "result.json").is_file():
        raise UserError(f"Expected a finished run in '{folder}', found one that is not. Repeat the command that trains it.")
    config = resolve([read_yaml(folder / "config.yaml")])
    if weights is not None:
        config = replace(config, upstream=replace(config.upstream, path=weights))
    identity = checkpoint.read_json(folder / "identity.json", ("upstreams", "marks"))
    upstream = finetuned(folder, config.upstream) if config.upstream.trainable else load_upstream(config.upstream)
    if not config.upstream.trainable and upstream.weights_hash() != identity["upstreams"]["audio"]:
        raise UserError(
            f"Expected the very weights of '{config.upstream.name}' that '{folder}' was trained on, found others "
            f"({upstream.source}). Name the right ones with -k, or train again."
        )
    task = load_task(config.task)
    vocabulary = checkpoint.read_json(folder / "vocabulary.json", (config.task,))[config.task]
    model, expert = build_model(config, task, vocabulary, upstream)
    path = folder / "checkpoints" / "best.safetensors"
    tensors, _ = checkpoint.load_tensors(path)
    model.load_trained_state(tensors, str(path))
    return TrainedRun(folder, config, model.eval(), expert, tuple(identity["marks"]))
