"""Pictures of finished runs, each with its numbers as csv beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.figures import forgiving, marked_title, new_figure, save_csv, save_figure, shortened
from ..downstream.metrics import chance_level, metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


SPLIT_STYLES: dict[str, dict[str, Any]] = {"train": {"linewidth": 0.8, "alpha": 0.6}, "dev": {"marker": "o", "markersize": 3}}
COSINE = "cosine"  # the "split" of a line about how two tasks' gradients agree; its task is `one+other`
Point = tuple[str, str, str, int, float]  # name, task, split, step, value
MAX_WRITTEN_CLASSES = 16  # in a larger matrix the numbers would overlap; the csv has them


def run_title(what: str, task: str, upstream: str, corpus: str, metric: str = "", score: float | None = None) -> str:
    """Return the title of a picture of a run: what it shows, and of which task, model and data.

    >>> run_title("Confusion, test", "emotion", "fbank", "ravdess", "ua", 0.381)
    'Confusion, test: emotion, fbank on ravdess, UA 0.381'
    """
    scored = "" if score is None else f", {metric_title(metric)} {score:.3f}"
    return f"{what}: {task}, {upstream} on {corpus}{scored}"


def chance_levels(results: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return what guessing scores, by (task, metric), where that is known: from each task's result."""
    levels = {}
    for task, result in results.items():
        for metric in result.get("metrics") or ():
            level = chance_level(metric, len(result.get("classes") or ()))
            if level is not None:
                levels[task, metric] = level
    return levels


@forgiving
def confusion_plot(
    counts: Sequence[Sequence[int]],
    classes: Sequence[str],
    path: Path,
    *,
    title: str,
    marks: Sequence[str] = (),
) -> None:
    """Draw counts and their share of each true class in one matrix; `path` is the picture, its csv lies beside it."""
    save_figure(confusion_figure(counts, classes, title=title, marks=marks), path)
    shares = shares_of(counts)
    rows = [
        (reference, prediction, counts[row][column], shares[row][column])
        for row, reference in enumerate(classes)
        for column, prediction in enumerate(classes)
    ]
    save_csv(path.with_suffix(".csv"), ("reference", "prediction", "count", "share"), rows, marks)


def shares_of(counts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the share of each count in its true class."""
    return [[count / max(sum(row), 1) for count in row] for row in counts]


def confusion_figure(counts: Sequence[Sequence[int]], classes: Sequence[str], *, title: str, marks: Sequence[str] = ()) -> Figure:
    """Return counts and their share of each true class in one matrix."""
    shares = shares_of(counts)
    side = min(10.0, max(3.6, 0.5 * len(classes) + 1.6))
    figure = new_figure(side + 0.9, side + 0.4, marked_title(title, marks))
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set(xlabel="predicted", ylabel="reference", xticks=range(len(classes)), yticks=range(len(classes)))
    size = min(10.0, 300 / len(classes))  # points
    names = shortened(classes)
    axes.set_xticklabels(names, rotation=90 if len(names) * max(map(len, names)) > 40 else 0, fontsize=size)
    axes.set_yticklabels(names, fontsize=size)
    if len(classes) <= MAX_WRITTEN_CLASSES:
        _write_cells(axes, counts, shares)
    figure.colorbar(image, ax=axes, label="share of the reference class", shrink=0.8)
    return figure


def _write_cells(axes: Axes, counts: Sequence[Sequence[int]], shares: Sequence[Sequence[float]]) -> None:
    for row, of_row in enumerate(shares):
        for column, share in enumerate(of_row):
            text, color = f"{counts[row][column]}\n{100 * share:.0f} %", "white" if share > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"Expected a run's '{path.name}' in '{path.parent}', found none. Is it a run folder?") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({"split": "train", "task": "", **row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"Expected one json object with a 'step' in line {number} of '{path}', found '{line[:40]}'. Remove that line."
            ) from None
    return rows


@forgiving
def curves_plot(
    metrics: Path,
    path: Path,
    *,
    title: str = "Learning curves",
    chosen: int | None = None,
    chance: Mapping[tuple[str, str], float] | None = None,
    marks: Sequence[str] = (),
) -> None:
    """Draw the loss and every metric of a run's metrics.jsonl over steps; `path` is the picture, its csv lies beside it.

    A line marks the `chosen` step, and another what guessing scores, where `chance` knows it of a (task, metric).
    """
    points = read_points(metrics)
    save_csv(path.with_suffix(".csv"), ("name", "task", "split", "step", "value"), points, marks)
    save_figure(curves_figure(points, title=title, chosen=chosen, chance=chance, marks=marks), path)


def read_points(metrics: Path) -> list[Point]:
    """Return the numbers of a run's metrics.jsonl; there must be a loss or a metric among them."""
    points = _points([row for row in read_metrics(metrics) if row["split"] != COSINE])
    if not any(map(_is_drawn, points)):
        raise UserError(f"Expected losses or metrics in '{metrics}', found none. Is the run's first evaluation done?")
    return points


def curves_figure(
    points: Sequence[Point],
    *,
    title: str = "Learning curves",
    chosen: int | None = None,
    chance: Mapping[tuple[str, str], float] | None = None,
    marks: Sequence[str] = (),
) -> Figure:
    """Return the loss and every metric over steps, as `curves_plot` draws them."""
    drawn = [*filter(_is_drawn, points)]
    names = sorted(dict.fromkeys(name for name, *_ in drawn), key=lambda name: name != "loss")
    tasks = list(dict.fromkeys(task for _, task, *_ in drawn))
    columns = min(len(names), 2 if len(names) <= 4 else 3)
    rows = math.ceil(len(names) / columns)
    figure = new_figure(4.2 * columns, 2.7 * rows + 0.4, marked_title(title, marks))
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_curves(axes, [point for point in drawn if point[0] == name], tasks)
        _draw_levels(axes, {task: level for (task, metric), level in (chance or {}).items() if metric == name}, tasks)
        if chosen is not None:
            axes.axvline(chosen, color="C2", linewidth=1, linestyle="--", label=f"chosen step {chosen}")
        axes.legend(fontsize=8)
        axes.set(
            xlabel="step",
            ylabel=name if name == "loss" else metric_title(name),
            xlim=(0, 1.03 * max(step for *_, step, _ in drawn)),
        )
    return figure


def _is_drawn(point: Point) -> bool:
    """Return whether a number is drawn: what is evaluated, and losses; no learning rate."""
    return point[0] == "loss" or point[2] != "train"


def _points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    return [
        (name, row["task"], row["split"], row["step"], float(value))
        for row in rows
        for name, value in row.items()
        if name not in {"step", "split", "task"} and isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _draw_curves(axes: Axes, points: Sequence[Point], tasks: Sequence[str]) -> None:
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for _, task, split, step, value in points:
        lines.setdefault((task, split), []).append((step, value))
    for (task, split), curve in lines.items():
        steps, values = zip(*sorted(curve), strict=True)
        # one colour a task where there are several, one a split otherwise
        color = f"C{tasks.index(task)}" if len(tasks) > 1 else {"train": "C7", "dev": "C0"}.get(split, "C1")
        label = f"{task} {split}" if len(tasks) > 1 else split
        style = SPLIT_STYLES.get(split, {"marker": "s", "markersize": 3})
        dot = {"marker": "o", "markersize": 3} if len(steps) == 1 else {}  # a line of one point would not be seen
        axes.plot(steps, values, color=color, label=label, **{**style, **dot})
    axes.grid(alpha=0.3)


def _draw_levels(axes: Axes, levels: Mapping[str, float], tasks: Sequence[str]) -> None:
    """Draw what guessing scores: a line, of several tasks one for each."""
    for task, level in levels.items():
        several = len(tasks) > 1 and task in tasks
        color, label = (f"C{tasks.index(task)}", f"{task} chance") if several else ("black", "chance")
        axes.axhline(level, color=color, linewidth=1, linestyle=":", label=label)


Pair = tuple[str, str]
TITLE = "Cosines of the tasks' gradients"


@forgiving
def cosines_plot(metrics: Path, path: Path, *, title: str = TITLE, marks: Sequence[str] = ()) -> bool:
    """Draw the cosines of a run's metrics.jsonl, and return whether it has any; their csv lies beside the picture."""
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
