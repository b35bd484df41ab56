"""Predict with several runs of a plan: the mean of the scores of its folds and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.run_folder import Row, counted
from ..corpus.batch import Batch
from ..downstream.answer import Answer, Window
from ..upstream.base import Layers, Upstream
from .predict import Predictor
from .trained_run import TrainedRun

LoadOne = Callable[..., TrainedRun]


@dataclass(frozen=True)
class Folds(Predictor):
    """The runs of a plan, loaded: they predict as one run does."""

    folder: Path
    runs: tuple[TrainedRun, ...]
    vocabulary: Mapping[str, Any]  # the first run's, with the mean of the thresholds
    description: str  # a description for the user

    @property
    def roles(self) -> tuple[str, ...]:
        """The inputs that it needs of a file: audio, text."""
        return self.runs[0].roles

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file."""
        return self.runs[0].uses_text

    @property
    def without(self) -> tuple[str, ...]:
        """Optional roles that are left out."""
        return self.runs[0].without

    @property
    def marks(self) -> tuple[str, ...]:
        """DEMO, UNTRAINED."""
        return tuple(dict.fromkeys(mark for run in self.runs for mark in run.marks))

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the predictions."""
        return hashlib.sha256("".join(run.fingerprint for run in self.runs).encode()).hexdigest()

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.runs[0].question.answer(self.vocabulary)

    def without_text(self) -> Folds:
        """Return the runs without their text role, which they must be trained for."""
        return replace(self, runs=tuple(run.without_text() for run in self.runs))

    def move_to(self, device: str) -> None:
        """Put the models on a device."""
        for run in self.runs:
            run.move_to(device)

    def joined(self, windows: Sequence[Window]) -> tuple[Any, Tensor]:
        """Return the prediction of the mean of the runs' scores, and that mean; a row has one of each run."""
        scores, names = [], self.answer.score_names
        for place, run in enumerate(self.runs):
            own, found = run.answer.score_names, run.answer.average([(seconds, rows[place]) for seconds, rows in windows])
            scores.append(found[[own.index(name) for name in names]])  # the order of classes may be another
        mean = torch.stack(scores).mean(dim=0)  # (class)
        return self.answer.decide(mean.unsqueeze(0))[0], mean

    @torch.no_grad()
    def rows(self, batch: Batch) -> list[Any]:
        """Return of each window the rows of all runs; an upstream that several of them share runs once."""
        batch = batch.to(self.runs[0].device)
        computed: dict[int, Layers] = {}
        outputs = []
        for run in self.runs:
            stored = {}
            for role in (role for role in run.roles if role not in run.without):
                upstream = run.model.upstream(role)
                if id(upstream) not in computed:
                    computed[id(upstream)] = run.model.layers(role, batch)
                stored[role] = computed[id(upstream)]
            outputs.append(run.rows(replace(batch, stored=stored)))
        return [*zip(*outputs, strict=True)]


def load_folds(
    folder: Path, rows: Sequence[Row], fold: int | None, load: LoadOne, loaded: MutableMapping[str, Upstream]
) -> TrainedRun | Folds:
    """Return the runs of a plan, or the requested one, ready to predict; `load` loads one from its folder.

    What `loaded` holds of their upstreams is not loaded again.
    """
    chosen = [row for row in rows if fold in (None, row["fold"])]
    if not chosen:
        there = ", ".join(dict.fromkeys(str(row["fold"]) for row in rows))
        raise UserError(f"Expected a fold of '{folder}' after --fold, found {fold}. There are: {there}.")
    runs = tuple(load(folder / row["name"], loaded=loaded) for row in chosen)
    if len(runs) == 1:
        return runs[0]
    refuse_unlike(folder, runs)
    description = f"mean of the scores of {counted(chosen)}"
    placed = runs[0].question.mean_placed([run.vocabulary for run in runs])
    description += "".join(f"; {name} {value:.4f}, the mean of theirs" for name, value in placed.items())
    return Folds(folder, runs, {**runs[0].vocabulary, **placed}, description)


def refuse_unlike(folder: Path, runs: Sequence[TrainedRun]) -> None:
    """Refuse runs that have no scores, or not the same ones: of those there is no mean."""
    first = runs[0]
    if not first.answer.exchangeable:
        raise UserError(
            f"Expected one run of '{folder}', since {first.answer.kind} of several runs have no mean, found {len(runs)}. "
            f"{one_of(runs)}"
        )
    if not first.answer.score_names:
        raise UserError(
            f"Expected one run of '{folder}', since predictions of {first.config.only.task} have no scores to average, "
            f"found {len(runs)}. {one_of(runs)}"
        )
    for run in runs[1:]:
        for what, here, there in (
            ("classes", {*first.answer.score_names}, {*run.answer.score_names}),
            ("scale", first.answer.scale_ends, run.answer.scale_ends),
        ):
            if here != there:
                other = " against ".join(", ".join(map(str, sorted(found or ()))) for found in (here, there))
                raise UserError(
                    f"Expected runs with the same {what} in '{folder}', found {other} in '{run.folder}'. {one_of(runs)}"
                )


def one_of(runs: Sequence[TrainedRun]) -> str:
    """Return how one of several runs is named: by its fold where that is enough."""
    first = runs[0]
    by_fold = f"Take one with --fold {first.config.only.corpus.fold}, or name" if apart_by_fold(runs) else "Name"
    return f"{by_fold} the folder of one: {first.folder}"


def apart_by_fold(runs: Sequence[TrainedRun]) -> bool:
    """Return whether each run has a fold of its own."""
    return len({run.config.only.corpus.fold for run in runs}) == len(runs)
