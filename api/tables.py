"""Scores of runs, and of their layers, as DataFrames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.layers.curve import curve_rows
from ..analysis.results import COLUMNS, result_rows
from ..core.frames import data_frame
from .run import AnyRun, one_at_least

if TYPE_CHECKING:
    from pandas import DataFrame


def results(*folders: AnyRun, each: bool = False) -> DataFrame:
    """Return a row for each metric of each split of the runs and plans in some folders, and of those below them.

    `low` and `high` are the ends of the 95 % interval. A plan counts as one: the predictions of its folds and seeds pooled,
    with the spread over its runs. With `each`, its runs count instead.

    >>> frame = results("result/downstream")  # doctest: +SKIP
    >>> frame[frame.split == "test"].pivot(index="upstream", columns="metric", values="value")  # doctest: +SKIP
    """
    return data_frame(result_rows(*map(Path, folders), each=each), COLUMNS)


def layer_curve(*runs: AnyRun, metric: str = "") -> DataFrame:
    """Return a row for each layer of a run with solver=exact, and one for the run's own head; several runs are folds of one.

    `told_apart` says whether a layer differs from the best one; `mixture` is its weight.

    >>> layer_curve("result/downstream/my_run").set_index("layer").value.plot()  # doctest: +SKIP
    """
    return data_frame(curve_rows(*one_at_least(runs), metric=metric))
