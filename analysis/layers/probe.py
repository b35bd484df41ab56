"""A probe of layers: the score of a head on each layer alone, beside the learned weighted sum of all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import UserError, nearest
from ...core.figures import marked_title, new_figure, save_csv, save_figure
from ...core.run_folder import RunFolder
from ...downstream.load import load_question
from ...downstream.metrics import chance_level, mean_and_spread, metric_title
from ..table import number, render, spread
from .weights import LayerWeights, draw_panel, over_runs, read_layer_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGAIN = "Type the command of the probe again: it trains what is missing and keeps the rest."
COLORS, MARKERS = {"dev": "C0", "test": "C3"}, {"dev": "o", "test": "s"}
DASHES = {"dev": (0, (4, 4)), "test": (4, (4, 4))}  # of one line where both are equal
LayerOrSum = int | None  # a layer, or None: the weighted sum


@dataclass(frozen=True)
class Probe:
    """The scores of heads on single layers and on the weighted sum, run by run, and the sum's weights."""

    task: str
    metric: str
    higher_is_better: bool
    splits: tuple[str, ...]  # dev, and test where there is one
    scores: Mapping[str, Mapping[LayerOrSum, Sequence[float]]]  # split -> layer, or None for the sum -> a score of each run
    weights: LayerWeights
    intervals: Mapping[str, Mapping[LayerOrSum, Sequence[float]]]  # split -> of single runs, where their results have one
    chance: float | None  # what guessing scores, where that is known

    @property
    def key(self) -> str:
        """The name of the weighted sum beside which the layers stand."""
        return f"{self.task}/audio"

    @property
    def layers(self) -> list[int]:
        """The layers that have a head, in order."""
        return sorted(layer for layer in self.scores["dev"] if layer is not None)

    @property
    def best_on_dev(self) -> int:
        """The layer whose head has the best mean score on dev."""
        means = {layer: mean_and_spread(self.scores["dev"][layer])[0] for layer in self.layers}
        return (max if self.higher_is_better else min)(means, key=lambda layer: means[layer])


def probe(folder: Path, out: Path | None = None, metric: str = "") -> str:
    """Write probe.csv, .png and .pdf of a probe's folder into `out` (its plots folder), and return a table.

    The metric is the one that chose the steps, where none is named.
    """
    found = read_probe(Path(folder), metric)
    place = RunFolder(Path(folder)).plots if out is None else Path(out)
    _save_numbers(found, place / "probe.csv")
    figure = probe_figure(found)
    for suffix in (".png", ".pdf"):
        save_figure(figure, place / f"probe{suffix}")
    return f"{_table(found)}\nwritten to {place / 'probe'}.png, .pdf and .csv"


def read_probe(folder: Path, metric: str = "") -> Probe:
    """Return the scores and weights of a finished probe, as `-l all` or `-l 0,4,8` leaves it."""
    summary = _finished(folder)
    metrics = summary.get("metrics") or load_question(summary["task"]).metrics
    metric = metric or summary["select_by"]
    if metric not in metrics:
        raise UserError(f"Expected --metric {', '.join(metrics)}, found '{metric}'.{nearest(metric, metrics)} Leave it out.")
    runs = _chosen_runs(summary, metrics[summary["select_by"]] == "higher")
    splits = tuple(split for split in ("dev", "test") if all(split in run["scores"] for rows in runs.values() for run in rows))
    alone = {layer: RunFolder(folder / rows[0]["name"]).read().result() for layer, rows in runs.items() if len(rows) == 1}
    found = {layer: result.get("intervals") or {} for layer, result in alone.items()}
    intervals = {
        split: {layer: ends for layer, of_run in found.items() if (ends := (of_run.get(split) or {}).get(metric))}
        for split in splits
    }
    return Probe(
        task=summary["task"],
        metric=metric,
        higher_is_better=metrics[metric] == "higher",
        splits=splits,
        scores={
            split: {layer: [run["scores"][split][metric] for run in rows] for layer, rows in runs.items()} for split in splits
        },
        weights=read_layer_weights([RunFolder(folder / run["name"]).layer_weights for run in runs[None]]),
        intervals=intervals,
        chance=chance_level(metric, len(RunFolder(folder / runs[None][0]["name"]).read().result().get("classes") or ())),
    )


def _finished(folder: Path) -> dict[str, Any]:
    """Return the summary of a probe of which every part is done and stands in it."""
    names = {path.name.partition(",")[0] for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    if not any(re.fullmatch(r"layer\d+", name) for name in names):
        raise UserError(
            f"Expected a probe's folder (layer0, layer1, …, sum) at '{folder}', found no layers there. "
            "Check the path, or make one with `-l all`."
        )
    if "sum" not in names:
        raise UserError(f"Expected the weighted sum beside the layers in '{folder}', found no folder 'sum'. {AGAIN}")
    plan = RunFolder(folder)
    there = {str(place.relative_to(folder)) for place in plan.below()}
    done = {name for name in there if RunFolder(folder / name).result.is_file()}
    summary = plan.read().result("runs", "sweep") if plan.result.is_file() else {"runs": []}
    listed = {run["name"] for run in summary["runs"]}
    open_parts = sorted((there | listed) - done) or sorted(done - listed)
    if open_parts:
        more = f" and {len(open_parts) - 4} more" if len(open_parts) > 4 else ""
        named = ", ".join(open_parts[:4]) + more
        raise UserError(f"Expected a finished probe in '{folder}', found parts that are not in its result: {named}. {AGAIN}")
    return summary


def _chosen_runs(summary: Mapping[str, Any], higher: bool) -> dict[LayerOrSum, list[Mapping[str, Any]]]:
    """Return the runs of each layer and of the sum (None); of a sweep those of the setting that dev chooses for each."""
    best: dict[LayerOrSum, str] = {}
    for setting, dev in summary["sweep"].items():
        name = setting.partition(",")[0]
        layer = None if name == "sum" else int(name.removeprefix("layer"))
        before = summary["sweep"].get(best.get(layer))
        if before is None or (dev > before if higher else dev < before):
            best[layer] = setting
    return {layer: [run for run in summary["runs"] if run["setting"] == setting] for layer, setting in best.items()}


def _save_numbers(found: Probe, path: Path) -> None:
    key, weights = found.key, found.weights
    weight_rows = [over_runs(values) for values in (weights.weights[key], weights.contributions(key))]
    header = ["upstream", "task", "metric", "layer", "runs"]
    header += [f"{name}_{kind}" for name in (*found.splits, "weight", "weight_x_norm_share") for kind in ("mean", "std")]
    rows = []
    for layer in (*range(weights.weights[key].shape[1]), None):
        cells: list[Any] = []
        for split in found.splits:
            values = found.scores[split].get(layer, ())
            cells += [_blank(value) for value in mean_and_spread(values)] if values else ["", ""]
        for mean, std in weight_rows:
            cells += ["", ""] if layer is None else [float(mean[layer]), "" if std is None else float(std[layer])]
        runs = len(found.scores["dev"].get(layer, ()))
        rows.append([weights.upstream, found.task, found.metric, "sum" if layer is None else layer, runs, *cells])
    save_csv(path, header, rows, weights.marks)


def _blank(value: float | None) -> float | str:
    return "" if value is None else value


def probe_figure(found: Probe) -> Figure:
    """Return the score of a head on each layer above the weights of the sum."""
    num_layers, runs = found.weights.weights[found.key].shape[1], len(found.scores["dev"][None])
    several = f", mean ± std of {runs} runs" if runs > 1 else ", 95 % intervals" if any(found.intervals.values()) else ""
    title = f"{found.task}: layers of {found.weights.upstream} (0 = input of block 1){several}"
    figure = new_figure(min(12.0, max(6.5, 0.45 * num_layers + 1.5)), 7.6, marked_title(title, found.weights.marks))
    top, *below = figure.subplots(3, 1, sharex=True, height_ratios=(1.6, 1, 1))
    for split in found.splits:
        _draw_scores(top, found, split)
    if found.chance is not None:
        top.axhline(found.chance, color="black", linestyle=":", linewidth=1, label="chance")
    top.set_ylabel(metric_title(found.metric))
    top.grid(alpha=0.3)
    top.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)  # above: it covers no point
    for panel, axes in enumerate(below):
        draw_panel(axes, found.weights, found.key, panel, "C7")
    below[-1].set_xlabel("layer")
    return figure


def _draw_scores(axes: Any, found: Probe, split: str) -> None:
    """A point for each layer's head, on its tick, and a line for the weighted sum's."""
    color, scores = COLORS[split], found.scores[split]
    means, deviations = zip(*(mean_and_spread(scores[layer]) for layer in found.layers), strict=True)
    ends = found.intervals[split]
    bars = None if None in deviations else np.array([deviations, deviations])
    if bars is None and all(layer in ends for layer in found.layers):
        bars = np.array(
            [(mean - ends[layer][0], ends[layer][1] - mean) for layer, mean in zip(found.layers, means, strict=True)]
        ).T
    style: dict[str, Any] = {"marker": MARKERS[split], "markersize": 5, "linewidth": 1, "capsize": 2, "elinewidth": 0.8}
    axes.errorbar(found.layers, means, yerr=bars, color=color, label=f"layer, {split}", **style)
    mean, deviation = mean_and_spread(scores[None])
    axes.axhline(mean, color=color, linestyle=DASHES[split], linewidth=1, label=f"weighted sum, {split}")
    if deviation is not None:
        axes.axhspan(mean - deviation, mean + deviation, color=color, alpha=0.08, linewidth=0)


def _table(found: Probe) -> str:
    key, weights = found.key, found.weights
    weight_rows = {"weight": weights.weights[key], "weight × norm, sum 1": weights.contributions(key)}
    rows = []
    for layer in (*range(weights.weights[key].shape[1]), None):
        cells = {"layer": "sum" if layer is None else str(layer)}
        for split in found.splits:
            values = found.scores[split].get(layer, ())
            cells[f"{split} {found.metric}"] = spread(*mean_and_spread(values)) if values else ""
        for name, by_layer in weight_rows.items() if layer is not None else ():
            mean, std = over_runs(by_layer)
            cells[name] = number(mean[layer]) if std is None else spread(mean[layer], std[layer])
        rows.append(cells | {"": "best on dev" if layer == found.best_on_dev else ""})
    title = marked_title(f"{found.task}: layers of {weights.upstream} (0 = input of block 1)", weights.marks)
    largest = [
        f"largest {name.partition(',')[0]}: layer {int(values.mean(axis=0).argmax())}" for name, values in weight_rows.items()
    ]
    return "\n".join([title, render(rows), "; ".join([f"best on dev: layer {found.best_on_dev}", *largest])])
