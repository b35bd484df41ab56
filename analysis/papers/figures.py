"""A paper's figures from finished runs, each kind by its name in the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.figures import marked_title, new_figure, save_csv, save_figure
from ...core.run_folder import RunFolder
from ...plans.inventory import Inventory, find_runs
from ...plans.paper import PaperPlan
from ...plans.recipe import Column, Figure
from ..layers.weights import over_runs, read_layer_weights
from .tables import Finished, Missing, finished_runs, ours, why_missing, write_table

LEAST_BASE = 0.02  # a share of less is no gain that anybody could read


def write_figure(plan: PaperPlan, name: str, found: Inventory, missing: Missing) -> str:
    """Write a figure as PNG, PDF and csv; return a line that says where, and what of it is not there."""
    figure = replace(plan.recipe.figures[name], caption=plan.filled(plan.recipe.figures[name].caption))
    wanted = dict.fromkeys([*figure.parts.values(), *(part for group in figure.groups.values() for part in group.values())])
    done = {part: finished_runs(plan, part, found) for part in wanted}
    gaps = [f"{part} ({why_missing(plan, part, found, missing)})" for part in wanted if not done[part].results]
    if len(gaps) == len(wanted):
        return f"{name}: - (no runs of {'; '.join(gaps)})"
    drawn = FIGURES[figure.kind](figure, done, found.folder / name)
    return f"{name}: {drawn}" + (f", without {'; '.join(gaps)}" if gaps else "")


def save_drawing(drawing: Any, stem: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], marks: Sequence[str]) -> str:
    """Write a drawing as PNG and PDF, its numbers as csv beside it; return where the picture is."""
    save_csv(stem.with_name(stem.name + ".csv"), header, rows, marks)
    for suffix in (".pdf", ".png"):
        save_figure(drawing, stem.with_name(stem.name + suffix))
    return f"{stem}.png"


def title_of(figure: Figure, done: Mapping[str, Finished]) -> tuple[str, list[str]]:
    """Return a figure's title with the marks of all its runs, and these."""
    marks = list(dict.fromkeys(mark for part in done.values() for mark in part.marks))
    return marked_title(figure.caption, marks), marks


def draw_layer_weights(figure: Figure, done: Mapping[str, Finished], stem: Path) -> str:
    """Draw the weight of each layer for several parts in one panel, times the features' norm in the other."""
    read = {
        label: weights_and_contributions(done[part].folders, stem.name)
        for label, part in figure.parts.items()
        if done[part].folders
    }
    title, marks = title_of(figure, done)
    drawing = new_figure(9.5, 3.6, title)
    panels = drawing.subplots(1, 2)
    rows: list[list[Any]] = []
    for label, (weights, shares) in read.items():
        for axes, values in zip(panels, (weights, shares), strict=True):
            mean, deviation = over_runs(values)
            axes.errorbar(np.arange(len(mean)), mean, yerr=deviation, marker="o", markersize=3, capsize=2, label=label)
        (weight, std), (share, _) = over_runs(weights), over_runs(shares)
        rows += [
            [label, layer, len(weights), float(weight[layer]), "" if std is None else float(std[layer]), float(share[layer])]
            for layer in range(len(weight))
        ]
    for axes, weight_name in zip(panels, ("weight", "weight × norm, sum 1"), strict=True):
        axes.set(xlabel="layer (0 = input of block 1)", ylabel=weight_name, ylim=(0, 1.15 * axes.get_ylim()[1]))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    header = ["part", "layer", "runs", "weight_mean", "weight_std", "weight_x_norm_share_mean"]
    return save_drawing(drawing, stem, header, rows, marks)


def weights_and_contributions(runs: Sequence[Path], figure: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the audio layer weights (run, layer) of a part's runs, and weight times norm; each may have its own upstream."""
    weights, shares = [], []
    for run in runs:
        found = read_layer_weights([RunFolder(run).layer_weights])
        keys = [key for key in found.weights if key.endswith("/audio")] or [*found.weights]
        if len(keys) > 1:
            raise UserError(f"Expected one task in the parts of figure {figure}, found {', '.join(keys)}. Draw them apart.")
        weights.append(found.weights[keys[0]])
        shares.append(found.contributions(keys[0]))
    return np.concatenate(weights), np.concatenate(shares)


def draw_gain(figure: Figure, done: Mapping[str, Finished], stem: Path) -> str:
    """Draw how much of a metric each bar gains over the first part of its group, relative to it, by split."""
    title, marks = title_of(figure, done)
    splits = {split.partition("=")[0]: split.rpartition("=")[2] for split in figure.splits}
    drawing = new_figure(4.2 * len(splits) + 0.5, 3.6, title)
    rows: list[list[Any]] = []
    for panel, (label, split) in enumerate(splits.items()):
        axes = drawing.add_subplot(1, len(splits), panel + 1)
        bars = list(dict.fromkeys(bar for group in figure.groups.values() for bar in [*group][1:]))
        for place, bar in enumerate(bars):
            gains = {group: gain(figure, done, parts, bar, split) for group, parts in figure.groups.items()}
            shown = {group: value for group, value in gains.items() if value is not None}
            at = [[*gains].index(group) + (place - (len(bars) - 1) / 2) * 0.8 / len(bars) for group in shown]
            axes.bar(at, [100 * value for value in shown.values()], width=0.76 / len(bars), label=bar)
            rows += [[label, group, bar, figure.metric, value] for group, value in shown.items()]
        axes.set_xticks(range(len(figure.groups)), [*figure.groups], fontsize=8)
        axes.set(title=label, ylabel=f"gain in {figure.metric} (%)", xlim=(-0.5, len(figure.groups) - 0.5))
        axes.axhline(0, color="black", linewidth=0.7)
        axes.margins(y=0.25)  # room for the legend
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=8)
    picture = save_drawing(drawing, stem, ["split", "group", "bar", "metric", "relative_gain"], rows, marks)
    undefined = [without_base(figure, done, group, label, split) for label, split in splits.items() for group in figure.groups]
    return "; ".join([picture, *filter(None, undefined)])


def without_base(figure: Figure, done: Mapping[str, Finished], group: str, label: str, split: str) -> str:
    """Return why a group has no gain: its first part's mean is 0 or less, relative to which nothing can be said."""
    bar, part = next(iter(figure.groups[group].items()))
    base = ours(done[part], Column(split=split, metric=figure.metric))[0]
    return "" if base is None or base > 0 else f"no gain for {group} ({label}): {figure.metric} of '{bar}' is {base:.3f}"


def gain(figure: Figure, done: Mapping[str, Finished], parts: Mapping[str, str], bar: str, split: str) -> float | None:
    """Return the relative gain of a bar's mean over that of its group's first part; None where one is missing, or that near 0."""
    column = Column(split=split, metric=figure.metric)
    without = ours(done[next(iter(parts.values()))], column)[0]
    with_it = ours(done[parts[bar]], column)[0] if bar in parts else None
    return None if without is None or without < LEAST_BASE or with_it is None else (with_it - without) / without


def draw_geometry(figure: Figure, done: Mapping[str, Finished], stem: Path) -> str:
    """Draw the align-uniform plane of several parts, and where their audio lies, into a folder."""
    from ..geometry import geometry

    named = [(label, place) for label, part in figure.parts.items() for place in done[part].folders]
    geometry([place for _, place in named], stem, figure.splits[0], [label for label, _ in named], figure.points)
    return f"{stem}/"


FIGURES: dict[str, Callable[[Figure, Mapping[str, Finished], Path], str]] = {
    "layer-weights": draw_layer_weights,
    "gain": draw_gain,
    "geometry": draw_geometry,
}


def report(plan: PaperPlan, folder: Path, missing: Missing) -> str:
    """Write all tables and figures of a recipe, and return the tables as text."""
    found = find_runs(plan, folder)
    texts = [write_table(plan, name, found, missing) for name in plan.recipe.tables]
    lines = [write_figure(plan, name, found, missing) for name in plan.recipe.figures]
    return "\n\n".join([*texts, *["\n".join(lines)] * bool(lines)])
