"""A finished run, or the folds of a plan, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder
from ..core.sharing.fetch import run_place
from ..upstream.base import Upstream
from ..upstream.run_folder import refuse_foreign
from .folds import Folds, load_folds
from .trained_run import TrainedRun, load_one


def load_run(
    folder: str | Path,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    fold: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainedRun | Folds:
    """Return a finished run, ready to predict; `weights` and `text_weights` say where its upstreams lie now.

    The folder may also be one that `headwater push` wrote on the hub: "hf:OWNER/NAME", "OWNER/NAME", with "@REVISION" behind it.
    `task` names one of a run of several. A plan predicts with the mean of its folds' and seeds' scores, or with one `fold`.
    `options` change how outputs are read: {"asr": {"beam": {"lm": "4-gram.arpa.gz"}}}.
    """
    return load_beside(folder, {}, weights, text_weights, task, fold, options)


def load_runs(*runs: str | Path | tuple[str | Path, str]) -> list[TrainedRun | Folds]:
    """Return several finished runs, ready to predict: upstreams of the same weights are in memory once, beside their adapters.

    A run of several tasks is named with one of them: `load_runs("emotion_run", ("joint_run", "ks"))`.
    """
    loaded: dict[str, Upstream] = {}
    named = [run if isinstance(run, tuple) else (run, None) for run in runs]
    for wrong in (pair for pair in named if len(pair) != 2):
        raise UserError(f"Expected a run, or a run and its task as (RUN, TASK), found {wrong}. Name its task.")
    return [load_beside(folder, loaded, task=task) for folder, task in named]


def load_beside(
    folder: str | Path,
    loaded: MutableMapping[str, Upstream],
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    fold: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainedRun | Folds:
    """Return a finished run; what `loaded` holds of its upstreams is not loaded again, and what is loaded is added."""
    typed, folder = folder, run_place(folder)
    if str(folder) != str(Path(typed).expanduser()):
        refuse_foreign(folder, str(typed))
    names, load = RunFolder(folder).runs(), partial(load_one, weights=weights, text_weights=text_weights)
    load = partial(load, task=task, options=options)
    if names is None:
        return of_fold(load(folder, loaded=loaded), fold)
    return load_folds(folder, names, fold, load, loaded)


def of_fold(run: TrainedRun, fold: int | None) -> TrainedRun:
    """Return a single run where it is the requested fold."""
    if fold not in (None, run.config.only.corpus.fold):
        raise UserError(
            f"Expected a plan of several folds for --fold {fold}, found the single run '{run.folder}' "
            f"(fold {run.config.only.corpus.fold}). Leave --fold out, or name the plan's folder."
        )
    return run
