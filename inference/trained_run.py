"""A finished run, loaded: it predicts labels and scores of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.options import bind, merge, plain
from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors
from ..core.trust import CHECKPOINTS
from ..corpus.batch import Batch
from ..downstream.answer import Answer, Window
from ..downstream.base import Expert, Question, Task, takes_teacher
from ..downstream.load import load_task
from ..plugins.registry import SECTIONS
from ..runs.config.resolve import config_of
from ..runs.config.schema import RunConfig, roles_of
from ..runs.prepare import build_expert
from ..training.model import Model, check_device, weights_of_task
from ..upstream.adapters import WITHOUT, add_adapter, over_same_weights, without_adapter
from ..upstream.base import Role, Upstream, UpstreamConfig
from ..upstream.load import load_upstream
from ..upstream.run_folder import finetuned, holds, refuse_damaged, refuse_other_weights
from .predict import Predictor


@dataclass(frozen=True)
class TrainedRun(Predictor):
    """A run folder, loaded."""

    folder: Path
    config: RunConfig
    model: Model
    expert: Expert
    question: Question
    marks: tuple[str, ...]
    name: str  # of the task in the run, which may have several
    without: tuple[str, ...] = ()  # optional roles that are left out

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file."""
        return "text" in self.expert.roles and "text" not in self.without

    def without_text(self) -> TrainedRun:
        """Return the run without its text role, which it must be trained for."""
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
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.question.answer(self.vocabulary)

    @property
    def roles(self) -> tuple[str, ...]:
        """The inputs that it needs of a file: audio, text."""
        return self.expert.roles

    def joined(self, windows: Sequence[Window]) -> tuple[Any, Tensor | None]:
        """Return one prediction, and its scores if there are any, from the rows of a file's pieces."""
        return self.answer.joined(windows)

    def move_to(self, device: str) -> None:
        """Put the model on a device."""
        check_device(device)
        self.model.to(device)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides its predictions: weights, vocabulary, how layers are used."""
        known = RunFolder(self.folder).read().identity("upstreams")["upstreams"]
        parts = []
        for role, section in roles_of(self.config).items():
            weights = self.model.upstream(role).weights_hash() if section.trainable else known[role]
            parts.append((role, weights, replace(section, name="", path=None)))
        digest = hashlib.sha256(repr([self.vocabulary, self.config.only.expert, parts]).encode())
        for _, value in sorted(self.model.experts.state_dict().items()) + sorted(self.model.sums.state_dict().items()):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.experts.parameters()).device

    @torch.no_grad()
    def rows(self, batch: Batch) -> list[Any]:
        """Return what the prediction for each window is decided from: its scores, or the prediction where there are none."""
        output = self.model.output_of(self.config.only.task, batch.to(self.device), self.without)
        return [*self.expert.decode(output)]


FLAGS = {"audio": "-k", "text": "-o text_upstream.path", "teacher": "-o teacher.path"}


def load_one(
    folder: str | Path,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    loaded: MutableMapping[str, Upstream] | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainedRun:
    """Return a single finished run; what `loaded` holds of its upstreams is not loaded again, and what is loaded is added.

    `options` are those by task that a finished run can change: how its outputs are read.
    """
    run = RunFolder.open(folder)
    folder, stored = run.path, run.read()
    if not run.result.is_file():
        raise UserError(f"Expected a finished run in '{folder}', found one that is not. Repeat the command that trains it.")
    config, name, shares = config_of(folder, task)
    if takes_teacher(config.only.expert):
        raise UserError(
            f"Expected a run that predicts, found one of {config.only.task} in '{folder}', whose product is its upstream. "
            f"Use that with -u {folder}, or write it with `headwater export {folder} DIR --hub`."
        )
    for role, path in (("audio", weights), ("text", text_weights)):
        if path is not None:
            config = moved(config, role, path)
    identity = stored.identity("upstreams", "marks")
    loaded = {} if loaded is None else loaded
    upstreams = {role: shared_upstream(folder, role, section, identity, loaded) for role, section in roles_of(config).items()}
    kind = load_task(config.only.task)
    config = read_otherwise(config, kind, options or {})
    question = kind.question(config.only.expert)
    with run.usable_vocabulary():
        vocabulary = question.finished(stored.vocabulary(name)[name])
        question.answer(vocabulary)
        expert = build_expert(config.seed, config.only, kind, vocabulary, upstreams)
    experts, standardizes = {config.only.task: expert}, config.solver == "exact"
    model = Model(upstreams, experts, roles_of(config), shares_sums=shares, standardizes=standardizes)
    tensors, _ = load_tensors(run.best)
    model.load_trained_state(weights_of_task(tensors, name, config.only.task), str(run.best))
    return TrainedRun(folder, config, model.eval(), expert, question, tuple(identity["marks"]), name)


def read_otherwise(config: RunConfig, kind: Task, options: Mapping[str, Any]) -> RunConfig:
    """Return the config with options of its task that a finished run can change; others are refused."""
    expert, errors = config.only.expert, list[str]()
    for task, given in options.items():
        other = [f"{task}.{name}" for name in given if task != kind.name or name not in kind.afterwards]
        if other:
            can = " and ".join(f"{kind.name}.{name}" for name in kind.afterwards) or "no option"
            raise UserError(
                f"Expected {can} of a finished run of {kind.name}, found '{other[0]}', which belongs to its training or another "
                "task. Leave it out, or train anew."
            )
        expert = bind(kind.options, merge(plain(expert), given), task, errors)
    if errors:
        raise UserError("\n".join(errors))
    return config.with_only(replace(config.only, expert=expert))


def moved(config: RunConfig, role: str, path: str) -> RunConfig:
    """Return the config with a role's weights where they lie now."""
    if role not in roles_of(config):
        raise UserError(f"Expected a run with an upstream of {role} for weights at '{path}', found none. Leave them out.")
    field = SECTIONS[role]
    CHECKPOINTS.take(path)
    return replace(config, **{field: replace(getattr(config, field), path=path)})


def shared_upstream(
    folder: Path, role: Role, section: UpstreamConfig, identity: Mapping[str, Any], loaded: MutableMapping[str, Upstream]
) -> Upstream:
    """Return a run's upstream, where `loaded` has one of the same weights and options as that one, or over its very tensors."""
    key = f"{role} {identity['upstreams'].get(role)} {loading(section)}"
    if section.trainable and section.adapter == WITHOUT:
        key = f"{role} of {os.path.realpath(folder)}"  # as this very run finetuned it, for any of its tasks
    if key not in loaded:
        loaded[key] = upstream_of(folder, role, section, identity)
    if section.adapter == WITHOUT:
        return loaded[key]
    upstream = over_same_weights(loaded[key], section.adapter)
    add_adapter(upstream, section)  # its weights come with those of the head
    return upstream


def loading(section: UpstreamConfig) -> UpstreamConfig:
    """Return what of an upstream's section decides how it is loaded: not how its layers are used, nor its adapter."""
    plain = replace(without_adapter(section), trainable=False, layer=None, normalize_layers=False)
    place = os.path.expanduser(section.path or section.name)  # a folder counts by where it is, however it is typed
    return replace(plain, name=os.path.realpath(place), path=None) if os.path.isdir(place) else plain


def upstream_of(folder: Path, role: Role, section: UpstreamConfig, identity: Mapping[str, Any]) -> Upstream:
    """Return a run's upstream: as the run finetuned it, or the very one that it was trained on, without its adapter."""
    refuse_damaged(folder, identity)
    if holds(folder, section, role):
        if section.path is not None and "exported" in identity:
            raise UserError(f"Expected no {FLAGS[role]} for '{folder}', which holds its upstream's weights. Leave it out.")
        return finetuned(folder, section, role, load_upstream)
    upstream = load_upstream(section, role)
    refuse_other_weights(folder, upstream, role, f"Name the right ones with {FLAGS[role]}, or train again.")
    return upstream
