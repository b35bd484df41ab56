"""A finished run as something to ask: which label, with which scores, has this file?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..corpus.audio import read_audio
from ..corpus.base import Utterance
from ..corpus.batch import Batch, as_batch
from ..downstream.base import Expert, Question, load_task
from ..errors import UserError
from ..upstream.base import Modality, Upstream, UpstreamConfig, load_upstream
from ..upstream.run_folder import finetuned
from . import checkpoint
from .config import RunConfig, read_yaml, resolve, roles_of
from .model import SHARED, Model, check_device
from .mtl_config import resolve_mtl
from .prepare import build_expert

SAMPLE_RATE = 16_000
WINDOW_SECONDS = 20.0  # longer files are cut into equal windows of at most this, and joined
# a file, a stretch of one, or a 16 kHz mono waveform
Heard = str | Path | Utterance | np.ndarray | Tensor


@dataclass(frozen=True)
class Prediction:
    """What a run says of one file."""

    file: str
    start: float = 0.0  # seconds into the file
    seconds: float = 0.0
    label: Any = None  # the class, or the text; ratings are scores
    scores: dict[str, float] | None = None
    error: str = ""  # why there is no label


Words = Callable[[Heard], str]  # the transcript of an item, or a UserError that says where one may come from


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


@dataclass(frozen=True)
class TrainedRun:
    """A run folder, loaded."""

    folder: Path
    config: RunConfig
    model: Model
    expert: Expert
    question: Question
    marks: tuple[str, ...]
    without: tuple[str, ...] = ()  # optional roles that are left out

    @property
    def reads(self) -> bool:
        """Whether a text goes with each file."""
        return "text" in self.expert.roles and "text" not in self.without

    def without_text(self) -> TrainedRun:
        """Return the run as it answers without texts, which it must have learnt."""
        if "text" not in self.expert.optional_roles:
            has = "that needs its text" if "text" in self.expert.roles else "that reads no text"
            raise UserError(
                f"Expected a run that can do without text for --no-text, found one {has} in '{self.folder}'. "
                "Train with a modality_dropout above 0, or leave --no-text out."
            )
        return replace(self, without=("text",))

    def predict(self, what: Heard, text: str | None = None) -> Prediction:
        """Return the prediction for a file or a 16 kHz mono waveform, with its text where the run reads one.

        What cannot be read raises UserError.
        """
        words = None if text is None else lambda _: text
        prediction = next(self.predict_all([what], words))
        if prediction.error:
            raise UserError(prediction.error)
        return prediction

    def predict_all(self, items: Iterable[Heard], words: Words | None = None) -> Iterator[Prediction]:
        """Yield a prediction for each item, in order; what cannot be read carries its error instead."""
        for item in items:
            yield self._predict_one(item, words or own_words)

    def _predict_one(self, item: Heard, words: Words) -> Prediction:
        try:
            pieces = self._pieces(item, words)
        except UserError as problem:
            return Prediction(name_of(item), error=str(problem))
        answer, scores = self.expert.join([(piece.seconds, self._answer(piece)) for piece in pieces])
        vocabulary, start = self.expert.vocabulary, item.start if isinstance(item, Utterance) else 0.0
        named = None
        if scores is not None:
            names = vocabulary["classes" if "classes" in vocabulary else "dimensions"]
            named = dict(zip(names, scores.tolist(), strict=True))
        seconds = sum(piece.seconds for piece in pieces if piece.waveform is not None)
        return Prediction(name_of(item), start, seconds, None if "dimensions" in vocabulary else answer, named)

    def _pieces(self, item: Heard, words: Words) -> list[Piece]:
        """Return a file's windows, each with the whole text; a run that only reads opens no audio."""
        text = words(item) if self.reads else None
        if "audio" not in self.expert.roles:
            return [Piece(None, text)]
        return [Piece(window, text) for window in cut(hear(item))]

    def move_to(self, device: str) -> None:
        """Put the model on a device."""
        check_device(device)
        self.model.to(device)

    @torch.no_grad()
    def _answer(self, piece: Piece) -> Any:
        """Return a window's scores, or what is answered where there are none.

        One window at a time: what a file gets never depends on its neighbours, and on a CPU nothing is faster.
        """
        device = next(self.model.experts.parameters()).device
        output = self.model.answer(self.config.task, piece.batch().to(device), self.without)
        answers, scores = self.expert.decode(output)
        return answers[0] if scores is None else scores[0]


def own_words(item: Heard) -> str:
    """Return the text that an utterance brings along."""
    if isinstance(item, Utterance) and item.text is not None:
        return item.text
    raise UserError(f"Expected a transcript of {name_of(item)} for a run that reads, found none. Give it: predict(file, text).")


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


SECTIONS = {"audio": "upstream", "text": "text_upstream"}  # of a config, by role
FLAGS = {"audio": "-k", "text": "--text-upstream-ckpt"}


def load_run(
    folder: str | Path, weights: str | None = None, text_weights: str | None = None, task: str | None = None
) -> TrainedRun:
    """Return a finished run, ready to predict; `weights` and `text_weights` say where its upstreams lie now.

    `task` names one of a run of several.
    """
    folder = checkpoint.run_folder(folder)
    if not (folder / "result.json").is_file():
        raise UserError(f"Expected a finished run in '{folder}', found one that is not. Repeat the command that trains it.")
    config, name, shares = config_of(folder, task)
    for role, path in (("audio", weights), ("text", text_weights)):
        if path is not None:
            config = moved(config, role, path)
    identity = checkpoint.read_json(folder / "identity.json", ("upstreams", "marks"))
    upstreams = {role: upstream_of(folder, role, section, identity) for role, section in roles_of(config).items()}
    kind = load_task(config.task)
    vocabulary = checkpoint.read_json(folder / "vocabulary.json", (name,))[name]
    expert = build_expert(config, kind, vocabulary, upstreams)
    model = Model(upstreams, {config.task: expert}, roles_of(config), shares_sums=shares)
    best = folder / "checkpoints" / "best.safetensors"
    tensors, _ = checkpoint.load_tensors(best)
    model.load_trained_state(of_task(tensors, name, config.task), str(best))
    return TrainedRun(folder, config, model.eval(), expert, kind.question(config.expert), tuple(identity["marks"]))


def config_of(folder: Path, task: str | None) -> tuple[RunConfig, str, bool]:
    """Return a run's config, what its task is called there, and whether its weighted sum is that of several tasks."""
    mapping = read_yaml(folder / "config.yaml")
    if "tasks" not in mapping:
        config = resolve([mapping])
        if task not in (None, config.task):
            raise UserError(f"Expected task '{config.task}' of '{folder}', found '{task}'. Leave --task out.")
        return config, config.task, False
    joint = resolve_mtl([mapping])
    if task is None or task not in joint.runs:
        found = f"found '{task}'" if task else "found none"
        raise UserError(f"Expected one task of the run '{folder}', {found}. Add --task {' or '.join(joint.runs)}.")
    return joint.runs[task], str(task), joint.shared_weights


def of_task(tensors: Mapping[str, Tensor], name: str, called: str) -> dict[str, Tensor]:
    """Return what a checkpoint holds of the upstreams and one task, by the name that the task has alone."""
    kept = {}
    for key, value in tensors.items():
        kind, owner, rest = (*key.split(".", 2), "", "")[:3]
        if kind == "upstreams" or owner == SHARED:
            kept[key] = value
        elif owner == name:
            kept[f"{kind}.{called}.{rest}"] = value
    return kept


def moved(config: RunConfig, role: str, path: str) -> RunConfig:
    """Return the config with a role's weights where they lie now."""
    if role not in roles_of(config):
        raise UserError(f"Expected a run with an upstream of {role} for weights at '{path}', found none. Leave them out.")
    field = SECTIONS[role]
    return replace(config, **{field: replace(getattr(config, field), path=path)})


def upstream_of(folder: Path, role: Modality, section: UpstreamConfig, identity: Mapping[str, Any]) -> Upstream:
    """Return a run's upstream: as the run finetuned it, or the very one that it was trained on."""
    if section.trainable:
        return finetuned(folder, section, role)
    upstream = load_upstream(section, role)
    if upstream.weights_hash() != identity["upstreams"][role]:
        raise UserError(
            f"Expected the very weights of '{section.name}' that '{folder}' was trained on, found others "
            f"({upstream.source}). Name the right ones with {FLAGS[role]}, or train again."
        )
    return upstream
