"""A finished run, as a notebook goes on with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.layers.weights import find_files, read_layer_weights, weight_rows
from ..analysis.results import rows_of
from ..analysis.table import run_tables
from ..core.errors import UserError
from ..core.frames import data_frame, html_table
from ..core.run_folder import RunFolder
from ..inference.folds import Folds
from ..inference.load import load_run
from ..inference.predict import Prediction, Predictions
from ..inference.trained_run import TrainedRun

if TYPE_CHECKING:
    from pandas import DataFrame

AnyRun = str | PathLike[str]  # a folder, or what has one: a Run
ALWAYS = ("split", "metric", "value", "low", "high")  # columns of a run's own scores; others where they differ


class Run(dict[str, Any]):
    """A finished run, or a plan of several with their predictions pooled: its result.json, and what can be done with it.

    It stands for its folder wherever one is expected: `headwater.compare(one, other)`.

    >>> run = Run("result/downstream/my_run")  # doctest: +SKIP
    >>> run.scores, run.layer_weights, run.predict("my.wav")  # doctest: +SKIP
    """

    def __init__(self, folder: AnyRun, result: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder).expanduser()
        super().__init__(finished_result(self.folder) if result is None else result)

    @property
    def scores(self) -> DataFrame:
        """The scores by split and metric, with the ends of their 95 % intervals; of a plan those of all its predictions."""
        return data_frame(self.score_rows())

    def score_rows(self) -> list[dict[str, Any]]:
        """Return the scores as rows."""
        rows = [*rows_of(self.folder)]
        shown = [*["task"] * ("tasks" in self), *ALWAYS, *["spread"] * ("runs" in self)]
        return [{name: row[name] for name in shown} for row in rows]

    @property
    def layer_weights(self) -> DataFrame:
        """The weight of each layer in the weighted sum, its features' norm, and the share of both together: means of a plan."""
        rows = weight_rows(read_layer_weights(find_files(self.folder)))
        named = {"weight": "weight_mean", "spread": "weight_std", "norm": "norm_mean", "share": "weight_x_norm_share_mean"}
        of_what = [*["task"] * ("tasks" in self), "role", "layer"]
        return data_frame([{name: row[named.get(name, name)] for name in (*of_what, *named)} for row in rows])

    @cached_property
    def model(self) -> TrainedRun | Folds:
        """The run, loaded: what `headwater.load_run` returns. Of a plan, its folds and seeds together."""
        return load_run(self.folder)

    def predict(
        self, what: Any, text: str | Sequence[str] | None = None, *, sampling_rate: float | None = None
    ) -> Prediction | Predictions:
        """Return the prediction for a file or an array, or those for a list of them: `.frame` is a DataFrame.

        >>> run.predict(["one.wav", "other.wav"]).frame  # doctest: +SKIP
        """
        return self.model.predict(what, text, sampling_rate=sampling_rate)

    def __fspath__(self) -> str:
        """Return the folder: a run is a path."""
        return str(self.folder)

    def __repr__(self) -> str:
        """Return what makes the run again."""
        return f"Run({str(self.folder)!r})"

    def __str__(self) -> str:
        """Return the table that the command line prints."""
        return run_tables(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what was trained on what, and the scores on test."""
        rows = self.score_rows()
        tested = [row for row in rows if row["split"] != "dev"] or rows
        about = run_tables(self).splitlines()[: 1 + bool(self["marks"])]
        return f"<p>{escape(' · '.join(about))}</p>{html_table(tested)}"


def one_at_least(runs: Sequence[AnyRun]) -> list[Path]:
    """Return the folders of runs."""
    if not runs:
        raise UserError("Expected a run or its folder, found none. For instance: 'result/downstream/my_run'")
    return [Path(run).expanduser() for run in runs]


def finished_result(folder: Path) -> dict[str, Any]:
    """Return the result in a folder of a finished run or plan."""
    run = RunFolder(folder)
    if not run.result.is_file():
        found = "one that is not" if run.config.is_file() else "none"
        raise UserError(f"Expected a finished run in '{folder}', found {found}. Check the path, or repeat what trains it.")
    return run.read().result()
