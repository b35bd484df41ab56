"""Draw and write layer curves, with the mixture and the weights of raw layers below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import UserError
from ...core.figures import marked_title, new_figure, save_csv, save_figure
from ...core.run_folder import RunFolder
from ...core.text import without_folders
from ...downstream.metrics import metric_title
from ..comparison.sides import part_of, places_of
from ..table import number, render, spread
from .curve import Curve, Point, has_curve, read_curves, rows_of
from .explain import verdict
from .weights import LayerWeights, draw_panel, find_files, layer_weights, over_runs, read_layer_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "layer-curve"
MEANING = (
    "minus best: the difference from the best layer; p: how often any layer would differ as much if speakers swapped their "
    "predictions; worse: the interval leaves out 0 and p is below 0.05; mixture: a layer's weight"
)
COLOR, OWN = "C0", "C3"


def layers(runs: Sequence[Path], out: Path | None = None, metric: str = "") -> str:
    """Write csv, PNG and PDF of what the layers of runs are worth, and return it as a table with a verdict.

    Of runs with solver=exact: the curve of single layers over the mixture, with the weights of runs with solver=adam, where
    some are among them. Of the latter alone: their weights.
    """
    exact = [run for run in runs if is_exact(run)]
    others = [run for run in runs if run not in exact]
    if not exact:
        if metric:
            raise UserError(f"Expected --probe beside --metric {metric}, found none: weights have no metric. Add --probe.")
        return layer_weights(runs, out)
    curves = read_curves(exact, metric)
    raw = raw_weights(curves, others) if others else None
    place = RunFolder(Path(exact[0])).plots if out is None else Path(out)
    save_numbers(curves, raw, place / f"{NAME}.csv")
    draw(curves, raw, place)
    tables = "\n\n".join("\n".join([table(curve, raw), *verdict(curve, raw)]) for curve in curves)
    meaning = [MEANING] if any(curve.has_intervals for curve in curves) else []
    return "\n".join([tables, *meaning, f"written to {place / NAME}.png, .pdf and .csv"])


def is_exact(run: Path) -> bool:
    """Return whether a run or a plan has a curve; one that is not finished, or no run at all, has none."""
    return RunFolder(run).result.is_file() and has_curve(run)


def raw_weights(curves: Sequence[Curve], runs: Sequence[Path]) -> LayerWeights:
    """Return the weights of runs with solver=adam; they must be of the curve's task, upstream and corpus."""
    found, side = read_layer_weights([file for run in runs for file in find_files(run)]), curves[0].side
    if found.upstream != side.upstream:
        names = f"{side.upstream}, {found.upstream}"
        raise UserError(f"Expected runs of one upstream, found {names}. Draw each with a command of its own.")
    parts = [part_of(place, seed, None, None) for run in runs for place, seed in places_of(run)]
    other = next((part.content["corpus"] for part in parts if part.content["corpus"] != side.corpus), None)
    if other is not None:
        raise UserError(f"Expected runs over one corpus, found {side.corpus}, {other}. Draw each with a command of its own.")
    for curve in curves:
        key = f"{side.task}/{curve.role}"
        count = found.weights[key].shape[1] if key in found.weights else 0
        if count != len(curve.layers):
            there = f"{count} in the run of solver=adam" if count else f"none of '{key}' in the run of solver=adam"
            raise UserError(
                f"Expected weights of {len(curve.layers)} layers, found {there}. Draw each with a command of its own."
            )
    return found


def save_numbers(curves: Sequence[Curve], raw: LayerWeights | None, path: Path) -> None:
    """Write a row for each layer, and one for each head that is none."""
    rows = []
    for curve in curves:
        key, of_layers = f"{curve.side.task}/{curve.role}", len(curve.layers)
        for place, row in enumerate(rows_of(curve)):
            cells = {name: value for name, value in row.items() if name != "marks"}
            for name, values in (("weight", raw.weights[key]), ("weight_x_norm_share", raw.contributions(key))) if raw else ():
                mean, deviation = over_runs(values)
                cells[f"raw_{name}"] = float(mean[place]) if place < of_layers else None
                cells[f"raw_{name}_std"] = float(deviation[place]) if deviation is not None and place < of_layers else None
            rows.append(cells)
    save_csv(path, list(rows[0]), [["" if cell is None else cell for cell in row.values()] for row in rows], curves[0].side.marks)


def draw(curves: Sequence[Curve], raw: LayerWeights | None, folder: Path) -> None:
    """Write the picture of some curves as PNG and PDF."""
    figure = curves_figure(curves, raw)
    for suffix in (".png", ".pdf"):
        save_figure(figure, folder / f"{NAME}{suffix}")


def curves_figure(curves: Sequence[Curve], raw: LayerWeights | None) -> Figure:
    """Return a column for each role: scores of layers, the mixture, and the weights of raw layers where there are some."""
    count, panels = max(len(curve.layers) for curve in curves), 4 if raw else 2
    width = min(14.0, max(6.5, 0.45 * count + 1.5) * len(curves))
    side, first = curves[0].side, curves[0]
    upstream = " + ".join(without_folders(name) for name in side.upstream.split(" + "))
    pooled = f", {len(first.places)} runs pooled" if len(first.places) > 1 else ""
    about = f"{side.task} · {side.corpus} · {first.split}{pooled}: layers of {upstream}"
    figure = new_figure(width, 3.4 + 1.7 * (panels - 1), marked_title(about, side.marks))
    grid = figure.subplots(panels, len(curves), squeeze=False, sharex="col", height_ratios=(2.2, *[1] * (panels - 1)))
    for column, curve in zip(grid.T, curves, strict=True):
        draw_scores(column[0], curve)
        key = f"{side.task}/{curve.role}"
        mixtures = LayerWeights(side.upstream, side.marks, {key: curve.mixtures}, {key: np.ones_like(curve.mixtures)})
        draw_panel(column[1], mixtures, key, 0, "C2")
        column[1].set_ylim(0, min(1.0, column[1].get_ylim()[1]))
        column[1].set_ylabel("mixture of\nz-scored layers")
        for panel, axes in enumerate(column[2:]):
            draw_panel(axes, raw or mixtures, key, panel, "C7")
            axes.set_ylabel(("raw weight", "raw weight × norm,\nsum 1")[panel])
        column[-1].set_xlabel(f"layer{f' of {curve.role}' * (len(curves) > 1)} (0 = input of block 1)")
    return figure


def draw_scores(axes: Axes, curve: Curve) -> None:
    """Draw a point for each layer, filled where it cannot be told apart from the best, and a line for the run's own head."""
    scores = [point.score for point in curve.layers]
    places = np.arange(len(scores))
    style: dict[str, Any] = {"linestyle": "none", "capsize": 3, "elinewidth": 1.1, "color": COLOR, "zorder": 3}
    axes.plot(places, scores, color=COLOR, linewidth=0.9, alpha=0.5)
    groups = {
        "best": [point for point in curve.layers if point is curve.best],
        "not told apart": [point for point in curve.layers if point is not curve.best and not point.is_told_apart],
        "worse": [point for point in curve.layers if point.is_told_apart],
    }
    if not curve.has_intervals:
        groups = {"layer alone": list(curve.layers)}
    looks: Sequence[dict[str, Any]] = (
        {"marker": "D", "markersize": 8},
        {"marker": "o", "markersize": 6},
        {"marker": "o", "markersize": 6, "mfc": "white"},
    )
    for (label, points), look in zip(groups.items(), looks, strict=False):
        if points:
            values = [point.score for point in points]
            axes.errorbar(
                [point.layer for point in points if point.layer is not None],
                values,
                yerr=bars(points),
                label=label,
                **style,
                **look,
            )
    axes.axhline(curve.own.score, color=OWN, linestyle="--", linewidth=1.2, label=f"{curve.own.name} {number(curve.own.score)}")
    if curve.together is not None:
        label = f"{curve.together.name} {number(curve.together.score)}"
        axes.axhline(curve.together.score, color="C4", linestyle="-.", linewidth=1.2, label=label)
    if curve.own.interval is not None:
        axes.axhspan(*curve.own.interval, color=OWN, alpha=0.08, linewidth=0)
    if curve.chance is not None:
        low, high = axes.get_ylim()
        shown = low - (high - low) <= curve.chance <= high + (high - low)  # farther away it would flatten the curve
        if shown:
            axes.axhline(curve.chance, color="black", linestyle=":", linewidth=1, label=f"chance {curve.chance:.3g}")
        else:
            axes.plot([], [], linestyle="none", label=f"chance {curve.chance:.3g} (not shown)")
    axes.set_ylabel(metric_title(curve.metric) + (", 95 % intervals" if curve.has_intervals else ""))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)  # above: it covers no point


def bars(points: Sequence[Point]) -> Any:
    """Return how far each interval reaches below and above its score: (2, point); nothing where there is none."""
    if any(point.interval is None for point in points):
        return None
    return np.array([(point.score - point.interval[0], point.interval[1] - point.score) for point in points if point.interval]).T


def table(curve: Curve, raw: LayerWeights | None) -> str:
    """Return the curve as a table below its title."""
    side, metric = curve.side, curve.metric
    where = f"{curve.utterances:,} utterances" + (f", {curve.speakers} speakers" if curve.speakers else "")
    runs = len(curve.places)
    pooled = f" · {runs} runs, pooled" if runs > 1 else ""
    title = f"{side.task} · {side.corpus} · {curve.split}: {where}{pooled}; {curve.role} layers of {side.upstream}, each alone"
    rows = []
    mean, deviation = over_runs(curve.mixtures)
    for point in curve.points:
        cells = {"layer": point.name, metric: number(point.score)}
        if curve.has_intervals:
            cells["95 % interval"] = ends_of(point.interval)
            gap = point.difference
            cells["minus best"] = "" if gap is None else f"{gap.value:+.3f}"
            cells["its interval"] = "" if gap is None else ends_of(gap.interval, signed=True)
            cells["p"] = "" if gap is None or gap.p is None else number(gap.p)
        if point.layer is not None:
            cells["mixture"] = spread(mean[point.layer], None if deviation is None else deviation[point.layer])
        rows.append(cells)
    key = f"{side.task}/{curve.role}"
    for name, values in (("raw weight", raw.weights[key]), ("× norm, sum 1", raw.contributions(key))) if raw else ():
        means, deviations = over_runs(values)
        for layer, row in enumerate(rows[: len(curve.layers)]):
            row[name] = spread(means[layer], None if deviations is None else deviations[layer])
    for point, row in zip(curve.points, rows, strict=True):
        alike = curve.has_intervals and point.difference is not None and not point.is_told_apart
        row[""] = "best" if point is curve.best else "not told apart" if alike else ""
    return "\n".join([marked_title(title, side.marks), render(rows)])


def ends_of(interval: tuple[float, float] | None, *, signed: bool = False) -> str:
    """Return both ends of an interval."""
    sign = "+" if signed else ""
    return "" if interval is None else f"[{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"
