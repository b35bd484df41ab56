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

    def predict(self, what: str | Path | np.ndarray | Tensor) -> Prediction:
        """Return the prediction for a file, or for a 16 kHz mono waveform; what cannot be read raises UserError."""
        prediction = next(self.predict_all([what]))
        if prediction.error:
            raise UserError(prediction.error)
        return prediction

    def predict_all(self, items: Iterable[str | Path | np.ndarray | Tensor]) -> Iterator[Prediction]:
        """Yield a prediction for each item, in order; what cannot be read carries its error instead."""
        pending: list[str | Path | np.ndarray | Tensor] = []
        for item in items:
            pending.append(item)
            if len(pending) == FILES_AT_ONCE:
                yield from self._predict_some(pending)
                pending = []
        if pending:
            yield from self._predict_some(pending)

    def _predict_some(self, items: Sequence[str | Path | np.ndarray | Tensor]) -> list[Prediction]:
        heard: list[tuple[str, np.ndarray | None, str]] = []
        for item in items:
            name = str(item) if isinstance(item, (str, Path)) else "waveform"
            try:
                heard.append((name, hear(item), ""))
            except UserError as problem:
                heard.append((name, None, str(problem)))
        windows = [
            (row, window) for row, (_, waveform, _) in enumerate(heard) if waveform is not None for window in cut(waveform)
        ]
        answers: dict[int, list[tuple[float, Tensor]]] = {}
        for (row, window), scores in zip(windows, self._scores([window for _, window in windows]), strict=True):
            answers.setdefault(row, []).append((len(window) / SAMPLE_RATE, scores))
        return [self._prediction(name, answers.get(row, []), error) for row, (name, _, error) in enumerate(heard)]

    def _prediction(self, name: str, windows: Sequence[tuple[float, Tensor]], error: str) -> Prediction:
        if error:
            return Prediction(name, error=error)
        label, scores = self.expert.join(windows)
        named = dict(zip(self.expert.vocabulary["classes"], scores.tolist(), strict=True))
        return Prediction(name, 0.0, sum(seconds for seconds, _ in windows), label, named)

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


def hear(item: str | Path | np.ndarray | Tensor) -> np.ndarray:
    """Return a 16 kHz mono waveform that has at least one sample."""
    waveform = (
        read_audio(str(item), sample_rate=SAMPLE_RATE) if isinstance(item, (str, Path)) else np.asarray(item, dtype=np.float32)
    )
    if waveform.ndim != 1:
        raise UserError(f"Expected a 1-d waveform, found shape {waveform.shape}. Average the channels.")
    if not len(waveform):
        raise UserError(f"Expected sound in '{item}', found 0 samples. Record it again.")
    return waveform


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Return a waveform in equal windows of at most WINDOW_SECONDS."""
    count = max(1, -(-len(waveform) // int(WINDOW_SECONDS * SAMPLE_RATE)))
    return np.array_split(waveform, count)


def load_run(folder: str | Path, weights: str | None = None) -> TrainedRun:
    """Return a finished run, ready to predict; `weights` says where its upstream lies now."""
    folder = checkpoint.run_folder(folder)
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
