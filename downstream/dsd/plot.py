"""The DET picture: misses over false alarms, both on the scale of a normal deviate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.figures import marked_title, new_figure, save_csv, save_figure
from ..metrics import equal_error_rate, error_curve

_TICKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_ENDS = (0.0008, 0.9)


def det_plot(truth: NDArray, scores: NDArray, threshold: float, path: Path, *, title: str, marks: Sequence[str] = ()) -> None:
    """Draw a split's errors at every threshold, the equal error rate and the operating point; the csv lies beside it."""
    from scipy.special import ndtri

    alarms, misses, thresholds = error_curve(truth, scores)
    rate, _ = equal_error_rate(truth, scores)
    point = float(np.mean(scores[truth == 0] >= threshold)), float(np.mean(scores[truth == 1] < threshold))
    figure = new_figure(4.6, 4.6, marked_title(title, marks))
    axes = figure.add_subplot()

    def place(values: NDArray | Sequence[float]) -> NDArray:
        """Return rates on the picture's scale; what lies beyond it stands at its edge."""
        return ndtri(np.clip(values, *_ENDS))

    axes.plot(place(alarms), place(misses), drawstyle="steps-post", linewidth=1.4)
    axes.plot(place(_ENDS), place(_ENDS), color="black", linewidth=0.7, linestyle=":")
    axes.plot(place([rate]), place([rate]), "o", color="C0", label=f"equal error rate {100 * rate:.1f} %")
    label = f"operating point: {100 * point[0]:.1f} % alarms, {100 * point[1]:.1f} % misses"
    axes.plot(place([point[0]]), place([point[1]]), "s", color="C1", label=label)
    for set_ticks, set_labels in ((axes.set_xticks, axes.set_xticklabels), (axes.set_yticks, axes.set_yticklabels)):
        set_ticks(place(_TICKS))
        set_labels([f"{100 * tick:g}" for tick in _TICKS])
    axes.set(xlabel="false alarms (%)", ylabel="misses (%)", xlim=place(_ENDS), ylim=place(_ENDS), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7.5, loc="upper right")
    save_figure(figure, path)
    rows = [[float(cell) for cell in row] for row in zip(thresholds, alarms, misses, strict=True)]
    save_csv(path.with_suffix(".csv"), ("threshold", "false_alarms", "misses"), rows, marks)
