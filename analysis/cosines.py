"""How the gradients of several tasks agree: each pair's cosine, in the mean over training and step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .plots import COSINE, marked_title, new_figure, read_metrics, save_csv, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Pair = tuple[str, str]
TITLE = "Cosines of the tasks' gradients"


def cosines_plot(metrics: Path, path: Path, *, title: str = TITLE, marks: Sequence[str] = ()) -> bool:
    """Draw the cosines of a run's metrics.jsonl, and tell whether it has any; their csv lies beside the picture."""
    curves: dict[Pair, dict[int, float]] = {}
    for line in read_metrics(metrics):
        if line["split"] == COSINE:
            one, other = line["task"].split("+")
            curves.setdefault((one, other), {})[line["step"]] = line["cosine"]
    if not curves:
        return False
    tasks = list(dict.fromkeys(task for pair in curves for task in pair))
    means = {pair: sum(curve.values()) / len(curve) for pair, curve in curves.items()}
    figure = new_figure(2.6 + 1.3 * len(tasks), 1.8 + 0.5 * len(tasks), marked_title(title, marks))
    left, right = figure.subplots(1, 2)
    figure.colorbar(_draw_means(left, tasks, means), ax=left, shrink=0.8)
    _draw_courses(right, curves, means)
    save_figure(figure, path)
    rows = [(*pair, step, value) for pair, curve in curves.items() for step, value in sorted(curve.items())]
    save_csv(path.with_suffix(".csv"), ("task", "other", "step", "cosine"), rows, marks)
    return True


def _draw_means(axes: Axes, tasks: Sequence[str], means: Mapping[Pair, float]) -> AxesImage:
    both = {**means, **{(other, one): mean for (one, other), mean in means.items()}}
    side = max(0.1, *(abs(mean) for mean in means.values()))  # cosines are often small: the colours span what there is
    shown = [[both.get((row, column), math.nan) for column in tasks] for row in tasks]
    image = axes.imshow(shown, cmap="RdBu", vmin=-side, vmax=side)
    axes.set(xticks=range(len(tasks)), yticks=range(len(tasks)), yticklabels=tasks, title="mean over training")
    axes.set_xticklabels(tasks, rotation=90)
    for row, one in enumerate(tasks):
        for column, other in enumerate(tasks):
            if one != other:
                mean = both[one, other]
                color = "white" if abs(mean) > 0.7 * side else "black"
                axes.text(column, row, f"{mean:+.2f}", ha="center", va="center", fontsize=8, color=color)
    return image


def _draw_courses(axes: Axes, curves: Mapping[Pair, Mapping[int, float]], means: Mapping[Pair, float]) -> None:
    for curve in curves.values():
        axes.plot(*zip(*sorted(curve.items()), strict=True), color="C7", linewidth=0.7, alpha=0.6)
    for kind, pair in (("most", max(means, key=means.__getitem__)), ("least", min(means, key=means.__getitem__))):
        axes.plot(*zip(*sorted(curves[pair].items()), strict=True), label=f"{kind} alike: {pair[0]}, {pair[1]}")
    axes.axhline(0.0, color="black", linewidth=0.6)
    axes.set(xlabel="step", title="each pair", ylabel="cosine")
    axes.legend(fontsize=8)
