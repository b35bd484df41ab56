"""A finished run, or the folds of a plan, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder
from ..core.sharing.fetch import run_place
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
    typed, folder = folder, run_place(folder)
    if str(folder) != str(Path(typed).expanduser()):
        refuse_foreign(folder, str(typed))
    names = RunFolder(folder).runs()
    if names is None:
        return of_fold(load_one(folder, weights, text_weights, task, options=options), fold)
    return load_folds(
        folder,
        names,
        fold,
        partial(load_one, weights=weights, text_weights=text_weights, task=task, options=options),
    )


def of_fold(run: TrainedRun, fold: int | None) -> TrainedRun:
    """Return a single run where it is the requested fold."""
    if fold not in (None, run.config.only.corpus.fold):
        raise UserError(
            f"Expected a plan of several folds for --fold {fold}, found the single run '{run.folder}' "
            f"(fold {run.config.only.corpus.fold}). Leave --fold out, or name the plan's folder."
        )
    return run
