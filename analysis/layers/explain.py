"""Which layer to believe in: the curve, the mixture of standardised layers and the weights of a sum of raw layers, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...core.run_folder import RunFolder
from ...core.tensors import load_tensors
from ...downstream.metrics import MIN_SPEAKERS, metric_title
from ..table import number
from .curve import Curve, Point
from .weights import LayerWeights, over_runs

MASSIVE = 0.2  # share of a layer's square in one dimension, above which the dimension is named
FACTOR = 2.0  # by which two layers' norms differ, above which the norms are named


def verdict(curve: Curve, raw: LayerWeights | None = None) -> list[str]:
    """Return what a curve says in words, and which to believe where weights say something else."""
    best, own = curve.best, curve.own
    scores = f"layer {best.name} alone scores best in {metric_title(curve.metric)}: {with_interval(best)}"
    guessing = "" if curve.chance is None else f"; chance is {number(curve.chance)}"
    lines = [f"{scores}; the run's own head ({curve.kept}) scores {with_interval(own)}{guessing}"]
    if curve.has_intervals:
        others = [point for point in curve.points if point.difference is not None]
        alike = [point.name for point in others if not point.is_told_apart]
        worse = [point.name for point in others if point.is_told_apart and not is_better(curve, point)]
        ahead = [point.name for point in others if point.is_told_apart and is_better(curve, point)]
        better = f"; better than any layer: {listed(ahead)}" if ahead else ""
        lines.append(f"cannot be told apart from layer {best.name}: {listed(alike)}; worse: {listed(worse)}{better}")
    else:
        lines.append(without_intervals(curve))
    return [*lines, *explained(curve, raw)]


def is_better(curve: Curve, point: Point) -> bool:
    """Return whether a head that is no layer scores better than the best layer."""
    return point.difference is not None and (point.difference.value > 0) == curve.higher_is_better


def listed(names: Sequence[str]) -> str:
    """Return names, or that there is none."""
    return ", ".join(names) or "none"


def with_interval(point: Point) -> str:
    """Return a score with its interval, where it has one."""
    ends = "" if point.interval is None else " [{}, {}]".format(*map(number, point.interval))
    return f"{number(point.score)}{ends}"


def without_intervals(curve: Curve) -> str:
    """Return why layers cannot be told apart."""
    if curve.best.difference is None and all(point.difference is None for point in curve.layers):
        return "no intervals: the scores of utterances were too many to keep"
    if not curve.speakers:
        return "no intervals: the speakers are not known"
    if curve.speakers < MIN_SPEAKERS:
        few = f"{curve.speakers} speaker{'s' * (curve.speakers > 1)}, an interval takes {MIN_SPEAKERS}"
        return f"no intervals: {few}. Pool the folds (--folds all) to tell layers apart"
    return "no intervals: the metric is not defined in many draws of speakers"


def explained(curve: Curve, raw: LayerWeights | None) -> Iterator[str]:
    """Yield what the weights say beside the curve, a line for each kind of them."""
    key = f"{curve.side.task}/{curve.role}"
    claims: list[tuple[str, np.ndarray, LayerWeights | None]]
    claims = [("the mixture of z-scored layers says", curve.mixtures, None)]
    if raw is not None and key in raw.weights:
        claims += [("raw weights say", raw.weights[key], raw), ("raw weight × norm says", raw.contributions(key), raw)]
    even = 1 / len(curve.layers)
    for claim, values, of_raw in claims:
        mean, _ = over_runs(values)
        layer = int(mean.argmax())
        said = f"{claim} layer {layer} ({mean[layer]:.2f}, where even ones are {even:.2f})"
        agrees = layer == curve.best.layer
        yield f"{said}, as the curve does" if agrees else f"{said}, {against(curve, curve.layers[layer], of_raw)}"


def against(curve: Curve, point: Point, raw: LayerWeights | None) -> str:
    """Return what the curve says of a layer that weights prefer to the best one, and which to believe."""
    best = curve.best
    scores = f"layer {point.name} alone scores {number(point.score)} where layer {best.name} scores {number(best.score)}"
    if curve.has_intervals and not point.is_told_apart:
        return f"and {scores}, which cannot be told apart: either may be the best"
    hint = "" if curve.has_intervals else ", as far as a curve without intervals goes"
    return f"but {scores}: believe the curve{hint}; {reason(curve, point, raw)}"


def reason(curve: Curve, point: Point, raw: LayerWeights | None) -> str:
    """Return why weights prefer a layer that is not the best."""
    assert point.layer is not None, "the run's own head has no weight of its own"
    assert curve.best.layer is not None, "the best of single layers is one of them"
    massive = massive_dimension(curve.places, curve.side.task, curve.role, point.layer)
    if massive is not None and raw is not None:
        return f"dimension {massive[0]} of layer {point.name} carries {100 * massive[1]:.0f} % of its square"
    if raw is not None:
        norms, _ = over_runs(raw.norms[f"{curve.side.task}/{curve.role}"])
        factor = float(norms[point.layer] / max(norms[curve.best.layer], np.finfo(np.float64).tiny))
        if factor >= FACTOR:
            return f"the norm of layer {point.name} is {factor:.1f} times that of layer {curve.best.name}"
        if factor <= 1 / FACTOR:
            return f"the norm of layer {curve.best.name} is {1 / factor:.1f} times that of layer {point.name}"
    return "a weight says how much of a layer a sum takes, not what the layer knows"


def massive_dimension(places: Sequence[Path], task: str, role: str, layer: int) -> tuple[int, float] | None:
    """Return the dimension that carries most of a layer's mean square over the training splits, and its share, if that is large.

    The mean square is that of the pooled layer: mean² + deviation², as the run standardises it.
    """
    squares = []
    for place in places:
        tensors, _ = load_tensors(RunFolder(place).best)
        mean, scale = (tensors[f"sums.{task}.{role}.{name}"][layer].double() for name in ("mean", "scale"))
        squares.append(mean.square() + torch.where(scale == 1, 0.0, scale.square()))  # 1 stands where nothing varies
    total = torch.stack(squares).mean(dim=0)
    share = total / total.sum().clamp(min=1e-300)
    largest = int(share.argmax())
    return (largest, float(share[largest])) if share[largest] >= max(MASSIVE, 4 / len(share)) else None
