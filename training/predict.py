"""A finished run as something to ask: which label, with which scores, has this file?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..corpus.base import Utterance
from ..corpus.batch import Batch, as_batch
from ..downstream.base import Expert, Question, load_task
from ..errors import UserError
from ..own_code import refuse_other_code, take_file
from ..upstream.base import Modality, Upstream, UpstreamConfig, load_upstream
from ..upstream.run_folder import finetuned, holds, refuse_damaged
from . import checkpoint
from .config import RunConfig, read_yaml, resolve, roles_of
from .heard import SAMPLE_RATE, Heard, name_of, windows_of
from .loop import ahead
from .model import SHARED, Model, check_device
from .mtl_config import resolve_mtl
from .plan_runs import runs_of_plan
from .prepare import build_expert

if TYPE_CHECKING:
    from .folds import Folds


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
        known = checkpoint.read_json(self.folder / "identity.json", ("upstreams",))["upstreams"]
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


class Asked(Protocol):
    """What can be asked about files: one run, or the folds of a plan together."""

    @property
    def vocabulary(self) -> Mapping[str, Any]:
        """Classes or dimensions, and what dev decided."""
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
    answer, scores = run.join(pieces)
    named = None if scores is None else dict(zip(names_of(run.vocabulary), scores.tolist(), strict=True))
    seconds = sum(piece.seconds for piece in pieces if piece.waveform is not None)
    start = item.start if isinstance(item, Utterance) else 0.0
    return Prediction(name_of(item), start, seconds, None if "dimensions" in run.vocabulary else answer, named)


def names_of(vocabulary: Mapping[str, Any]) -> list[str]:
    """Return what the scores of an answer are of: classes or rated dimensions; nothing, where a text is the answer."""
    return [*vocabulary.get("classes", ()), *vocabulary.get("dimensions", ())]


def own_words(item: Heard) -> str:
    """Return the text that an utterance brings along."""
    if isinstance(item, Utterance) and item.text is not None:
        return item.text
    raise UserError(f"Expected a transcript of {name_of(item)} for a run that reads, found none. Give it: predict(file, text).")


SECTIONS = {"audio": "upstream", "text": "text_upstream"}  # of a config, by role
FLAGS = {"audio": "-k", "text": "--text-upstream-ckpt"}


def load_run(
    folder: str | Path,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    fold: int | None = None,
) -> TrainedRun | Folds:
    """Return a finished run, ready to predict; `weights` and `text_weights` say where its upstreams lie now.

    `task` names one of a run of several. A plan answers with the mean of its folds' and seeds' scores, or with one `fold`.
    """
    from .folds import load_folds

    names = runs_of_plan(Path(folder).expanduser())
    if names is None:
        return of_fold(load_one(folder, weights, text_weights, task), fold)
    return load_folds(
        Path(folder).expanduser(), names, fold, partial(load_one, weights=weights, text_weights=text_weights, task=task)
    )


def of_fold(run: TrainedRun, fold: int | None) -> TrainedRun:
    """Return a single run where it is the fold that was asked for."""
    if fold not in (None, run.config.corpus.fold):
        raise UserError(
            f"Expected a plan of several folds for --fold {fold}, found the single run '{run.folder}' "
            f"(fold {run.config.corpus.fold}). Leave --fold out, or name the plan's folder."
        )
    return run


def load_one(
    folder: str | Path,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    frozen: MutableMapping[str, Upstream] | None = None,
) -> TrainedRun:
    """Return a single finished run; what `frozen` holds of its upstreams is not loaded again, and what is loaded is added."""
    folder = checkpoint.run_folder(folder)
    if not (folder / "result.json").is_file():
        raise UserError(f"Expected a finished run in '{folder}', found one that is not. Repeat the command that trains it.")
    config, name, shares = config_of(folder, task)
    for role, path in (("audio", weights), ("text", text_weights)):
        if path is not None:
            config = moved(config, role, path)
    identity = checkpoint.read_json(folder / "identity.json", ("upstreams", "marks"))
    loaded = {} if frozen is None else frozen
    upstreams = {role: shared_upstream(folder, role, section, identity, loaded) for role, section in roles_of(config).items()}
    kind = load_task(config.task)
    vocabulary = checkpoint.read_json(folder / "vocabulary.json", (name,))[name]
    expert = build_expert(config, kind, vocabulary, upstreams)
    model = Model(upstreams, {config.task: expert}, roles_of(config), shares_sums=shares)
    best = folder / "checkpoints" / "best.safetensors"
    tensors, _ = checkpoint.load_tensors(best)
    model.load_trained_state(of_task(tensors, name, config.task), str(best))
    return TrainedRun(folder, config, model.eval(), expert, kind.question(config.expert), tuple(identity["marks"]))


def config_of(folder: Path, task: str | None, *, only_task: bool = False) -> tuple[RunConfig, str, bool]:
    """Return a run's config, what its task is called there, and whether its weighted sum is that of several tasks.

    `only_task`: nothing will be computed, so that of own code none but the task's is needed, after --use.
    """
    mapping = read_yaml(folder / "config.yaml")
    if only_task:
        refuse_other_code(folder, mapping, flags={}, keys={"task"})
    else:
        refuse_other_code(folder, mapping)
    if "tasks" not in mapping:
        config = resolve([mapping], heard=False)
        if task not in (None, config.task):
            raise UserError(f"Expected task '{config.task}' of '{folder}', found '{task}'. Leave --task out.")
        return config, config.task, False
    joint = resolve_mtl([mapping], heard=False)
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
    take_file(path)
    return replace(config, **{field: replace(getattr(config, field), path=path)})


def shared_upstream(
    folder: Path, role: Modality, section: UpstreamConfig, identity: Mapping[str, Any], loaded: MutableMapping[str, Upstream]
) -> Upstream:
    """Return a run's upstream: one of those loaded, where a frozen one of the same weights and options is among them."""
    if section.trainable:
        return upstream_of(folder, role, section, identity)
    key = f"{role} {identity['upstreams'][role]} {section}"
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
    if upstream.weights_hash() != identity["upstreams"][role]:
        raise UserError(
            f"Expected the very weights of '{section.name}' that '{folder}' was trained on, found others "
            f"({upstream.source}). Name the right ones with {FLAGS[role]}, or train again."
        )
    return upstream
