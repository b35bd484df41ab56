"""A finished run as something to ask: which label, with which scores, has this file?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import read_json
from ..core.run_folder import run_folder
from ..core.tensors import load_tensors
from ..core.trust import take_file
from ..corpus.batch import Batch
from ..downstream.base import Expert, Question
from ..downstream.load import load_task
from ..runs.config.resolve import config_of
from ..runs.config.schema import RunConfig, roles_of
from ..runs.prepare import build_expert
from ..training.model import SHARED, Model, check_device
from ..upstream.base import Modality, Upstream, UpstreamConfig
from ..upstream.load import load_upstream
from ..upstream.run_folder import finetuned, holds, refuse_damaged
from .ask import Piece, Prediction, Words, ask, ask_all, own_words
from .waveforms import Heard


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

    @property
    def vocabulary(self) -> Mapping[str, Any]:
        """Classes or dimensions, and what dev decided."""
        return self.expert.vocabulary

    @property
    def roles(self) -> tuple[str, ...]:
        """What is asked for of a file: audio, text."""
        return self.expert.roles

    def predict(self, what: Heard, text: str | None = None) -> Prediction:
        """Return the prediction for a file or a 16 kHz mono waveform, with its text where the run reads one.

        What cannot be read raises UserError.
        """
        return ask(self, what, text)

    def predict_all(self, items: Iterable[Heard], words: Words | None = None) -> Iterator[Prediction]:
        """Yield a prediction for each item, in order; what cannot be read carries its error instead."""
        return ask_all(self, items, words or own_words)

    def join(self, pieces: Sequence[Piece]) -> tuple[Any, Tensor | None]:
        """Return one answer, and its scores if there are any, from the pieces of a file."""
        return self.expert.join([(piece.seconds, self.answer(piece.batch())) for piece in pieces])

    def move_to(self, device: str) -> None:
        """Put the model on a device."""
        check_device(device)
        self.model.to(device)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides its answers: weights, vocabulary, how layers are used."""
        known = read_json(self.folder / "identity.json", ("upstreams",))["upstreams"]
        heard = []
        for role, section in roles_of(self.config).items():
            weights = self.model.upstream(role).weights_hash() if section.trainable else known[role]
            heard.append((role, weights, replace(section, name="", path=None)))
        digest = hashlib.sha256(repr([self.vocabulary, self.config.expert, heard]).encode())
        for _, value in sorted(self.model.experts.state_dict().items()) + sorted(self.model.sums.state_dict().items()):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.experts.parameters()).device

    @torch.no_grad()
    def answer(self, batch: Batch) -> Any:
        """Return a window's scores, or what is answered where there are none.

        One window at a time: what a file gets never depends on its neighbours, and on a CPU nothing is faster.
        """
        output = self.model.answer(self.config.task, batch.to(self.device), self.without)
        answers, scores = self.expert.decode(output)
        return answers[0] if scores is None else scores[0]


SECTIONS = {"audio": "upstream", "text": "text_upstream"}  # of a config, by role
FLAGS = {"audio": "-k", "text": "--text-upstream-ckpt"}


def load_one(
    folder: str | Path,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    frozen: MutableMapping[str, Upstream] | None = None,
) -> TrainedRun:
    """Return a single finished run; what `frozen` holds of its upstreams is not loaded again, and what is loaded is added."""
    folder = run_folder(folder)
    if not (folder / "result.json").is_file():
        raise UserError(f"Expected a finished run in '{folder}', found one that is not. Repeat the command that trains it.")
    config, name, shares = config_of(folder, task)
    for role, path in (("audio", weights), ("text", text_weights)):
        if path is not None:
            config = moved(config, role, path)
    identity = read_json(folder / "identity.json", ("upstreams", "marks"))
    loaded = {} if frozen is None else frozen
    upstreams = {role: shared_upstream(folder, role, section, identity, loaded) for role, section in roles_of(config).items()}
    kind = load_task(config.task)
    vocabulary = read_json(folder / "vocabulary.json", (name,))[name]
    expert = build_expert(config, kind, vocabulary, upstreams)
    model = Model(upstreams, {config.task: expert}, roles_of(config), shares_sums=shares)
    best = folder / "checkpoints" / "best.safetensors"
    tensors, _ = load_tensors(best)
    model.load_trained_state(of_task(tensors, name, config.task), str(best))
    return TrainedRun(folder, config, model.eval(), expert, kind.question(config.expert), tuple(identity["marks"]))


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
    take_file(path)
    return replace(config, **{field: replace(getattr(config, field), path=path)})


def shared_upstream(
    folder: Path, role: Modality, section: UpstreamConfig, identity: Mapping[str, Any], loaded: MutableMapping[str, Upstream]
) -> Upstream:
    """Return a run's upstream: one of those loaded, where a frozen one of the same weights and options is among them."""
    if section.trainable:
        return upstream_of(folder, role, section, identity)
    key = f"{role} {identity['upstreams'].get(role)} {section}"
    if key not in loaded:
        loaded[key] = upstream_of(folder, role, section, identity)
    return loaded[key]


def upstream_of(folder: Path, role: Modality, section: UpstreamConfig, identity: Mapping[str, Any]) -> Upstream:
    """Return a run's upstream: as the run finetuned it, or the very one that it was trained on."""
    refuse_damaged(folder, identity)
    if holds(folder, section, role):
        if section.path is not None and "exported" in identity:
            raise UserError(f"Expected no {FLAGS[role]} for '{folder}', which holds its upstream's weights. Leave it out.")
        return finetuned(folder, section, role)
    upstream = load_upstream(section, role)
    if upstream.weights_hash() != identity["upstreams"].get(role):
        raise UserError(
            f"Expected the very weights of '{section.name}' that '{folder}' was trained on, found others "
            f"({upstream.source}). Name the right ones with {FLAGS[role]}, or train again."
        )
    return upstream
