"""Several runs that predict on the same files: each file is read once, and an upstream that they share is there once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder
from ..training.loop import ahead
from ..upstream.base import Upstream
from .folds import Folds
from .inputs import Item
from .load import load_beside
from .predict import Prediction, TranscriptLookup, predict_read, utterance_text
from .trained_run import TrainedRun
from .waveforms import windows_of


@dataclass(frozen=True)
class Predictions:
    """The predictions of several runs for one file."""

    by_run: Mapping[str, Prediction]

    @property
    def first(self) -> Prediction:
        """The first run's prediction, whose file, start and seconds are those of all."""
        return next(iter(self.by_run.values()))

    @property
    def error(self) -> str:
        """Why runs have no prediction; a reason that all of them have is given once."""
        errors = {name: found.error for name, found in self.by_run.items() if found.error}
        alike = len(errors) == len(self.by_run) and len({*errors.values()}) == 1
        return self.first.error if alike else "; ".join(f"{name}: {error}" for name, error in errors.items())


@dataclass(frozen=True)
class Several:
    """Runs by name, loaded."""

    runs: Mapping[str, TrainedRun | Folds]

    @property
    def roles(self) -> tuple[str, ...]:
        """The inputs that any of them needs of a file: audio, text."""
        return tuple(dict.fromkeys(role for run in self.runs.values() for role in run.roles))

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file."""
        return any(run.uses_text for run in self.runs.values())

    @property
    def without(self) -> tuple[str, ...]:
        """Optional roles that are left out."""
        return tuple(dict.fromkeys(role for run in self.runs.values() for role in run.without))

    @property
    def marks(self) -> tuple[str, ...]:
        """DEMO, UNTRAINED."""
        return tuple(dict.fromkeys(mark for run in self.runs.values() for mark in run.marks))

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the predictions, and of the names of their columns."""
        return hashlib.sha256(repr([(name, run.fingerprint) for name, run in self.runs.items()]).encode()).hexdigest()

    def without_text(self) -> Several:
        """Return the runs without their text role, which those that have one must be trained for."""
        return replace(self, runs={name: run.without_text() if run.uses_text else run for name, run in self.runs.items()})

    def move_to(self, device: str) -> None:
        """Put the models on a device."""
        for run in self.runs.values():
            run.move_to(device)

    def predict_all(self, items: Sequence[Item], transcripts: TranscriptLookup | None = None) -> Iterator[Predictions]:
        """Yield the predictions for each item, in order; what cannot be read carries its error instead."""
        texts, has_audio = transcripts or utterance_text, "audio" in self.roles
        for item, windows in ahead(items, windows_of if has_audio else lambda _: [None], threaded=has_audio):
            read = {name: windows if "audio" in run.roles else [None] for name, run in self.runs.items()}
            yield Predictions({name: predict_read(run, item, read[name], texts) for name, run in self.runs.items()})


def load_several(
    run: str,
    tasks: Sequence[str],
    also: Sequence[str],
    weights: str | None = None,
    text_weights: str | None = None,
    fold: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Several:
    """Return a run (or some tasks of it), and other runs as `RUN` or `NAME=RUN`, of which all tasks are taken.

    `fold` and `options` are those of the first run.
    """
    loaded: dict[str, Upstream] = {}
    runs: dict[str, TrainedRun | Folds] = {}
    wanted: list[tuple[str, str, str | None]] = [(name, run, name) for name in tasks] if len(tasks) > 1 else []
    wanted = wanted or [(folder_name(run), run, next(iter(tasks), None))]
    for first, (name, folder, task) in enumerate([*wanted, *(row for other in also for row in tasks_in(*named(other)))]):
        if name in runs:
            raise UserError(
                f"Expected a name for each run, for its columns, found two called '{name}'. Give one: --also OTHER={folder}"
            )
        own = (fold, options) if first < len(wanted) else (None, None)
        runs[name] = load_beside(folder, loaded, weights, text_weights, task, *own)
    return Several(runs)


def tasks_in(name: str, folder: str) -> list[tuple[str, str, str | None]]:
    """Return (name, run, task) for each task of a run; of a run of several they are called `name.task`."""
    run = RunFolder(Path(folder).expanduser())
    tasks = run.read().config().get("tasks") if run.config.is_file() else None
    return [(f"{name}.{task}", folder, task) for task in tasks] if tasks else [(name, folder, None)]


def named(what: str) -> tuple[str, str]:
    """Return name and folder of `NAME=RUN`; a run without a name has its folder's."""
    name, equals, folder = what.partition("=")
    if not equals or Path(what).expanduser().exists():
        return folder_name(what), what
    if not name or not folder:
        raise UserError(
            f"Expected --also RUN or --also NAME=RUN, found '{what}'. For instance: --also mood=result/downstream/my_run"
        )
    return name, folder


def folder_name(folder: str) -> str:
    """Return the name of a run's folder."""
    return Path(folder).expanduser().absolute().name
