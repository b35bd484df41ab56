"""Plot predicted ratings over the references, a panel for each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.figures import marked_title, new_figure, save_csv, save_figure
from ..metrics import concordance

_MOST_POINTS = 3000  # drawn: more would be a blot; the csv has them all


def agreement_plot(
    references: Sequence[Sequence[float]],
    predictions: Sequence[Sequence[float]],
    dimensions: Sequence[str],
    scale: Sequence[float],
    path: Path,
    *,
    title: str,
    marks: Sequence[str] = (),
) -> None:
    """Draw predictions over references with the line on which they agree; `path` is the picture, its csv lies beside it."""
    actual, predicted = np.array(references), np.array(predictions)  # (utterance, dimension)
    shown = np.random.default_rng(0).permutation(len(actual))[:_MOST_POINTS]
    figure = new_figure(3.1 * len(dimensions) + 0.4, 3.5, marked_title(title, marks))
    for column, name in enumerate(dimensions):
        axes = figure.add_subplot(1, len(dimensions), column + 1)
        axes.scatter(actual[shown, column], predicted[shown, column], s=7, alpha=0.35, linewidths=0)
        axes.plot(scale, scale, color="black", linewidth=0.7, linestyle=":")
        axes.set(xlim=scale, ylim=scale, xlabel="rated", ylabel="predicted" if column == 0 else "", aspect="equal")
        axes.set_title(f"{name}, CCC {concordance(actual[:, column], predicted[:, column]):.3f}", fontsize=10)
        axes.grid(alpha=0.3)
        outside = int(np.sum((predicted[:, column] < scale[0]) | (predicted[:, column] > scale[1])))
        if outside:  # an untrained head: the panel would look as if there were none
            axes.text(
                0.5, 0.97, f"{outside} predicted outside the scale", transform=axes.transAxes, ha="center", va="top", fontsize=8
            )
    save_figure(figure, path)
    header = [f"{kind}_{name}" for name in dimensions for kind in ("reference", "prediction")]
    rows = np.stack([actual, predicted], axis=2).reshape(len(actual), -1).tolist()
    save_csv(path.with_suffix(".csv"), header, rows, marks)
