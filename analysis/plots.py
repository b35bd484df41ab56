"""Pictures of finished runs, each with its numbers as csv beside it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..training.checkpoint import write_text, written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLIT_STYLES: dict[str, dict[str, Any]] = {"train": {"linewidth": 0.8, "alpha": 0.6}, "dev": {"marker": "o", "markersize": 3}}
COSINE = "cosine"  # the "split" of a line that tells how two tasks' gradients agree; its task is `one+other`
MAX_WRITTEN_CLASSES = 16  # in a larger matrix the numbers would overlap; the csv has them


def marked_title(title: str, marks: Sequence[str]) -> str:
    """Return a title that begins with the run's marks (DEMO, UNTRAINED)."""
    return " · ".join([*marks, title])


def save_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], marks: Sequence[str]) -> None:
    """Write a table whole or not at all; fractions keep six digits, marks have a column of their own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = [" ".join(marks)] if marks else []
    writer.writerow([*header, *["marks" for _ in last]])
    writer.writerows([*(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row), *last] for row in rows)
    write_text(path, text.getvalue())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture in the format of its suffix, whole or not at all; equal pictures are equal files."""
    form = path.suffix.removeprefix(".")
    metadata = {"CreationDate": None} if form == "pdf" else None
    with written_aside(path) as aside:
        figure.savefig(aside, format=form, dpi=150, metadata=metadata)


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure (inches) that needs no screen and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, wrap=True)
    return figure


def confusion_plot(
    counts: Sequence[Sequence[int]],
    classes: Sequence[str],
    path: Path,
    *,
    title: str = "",
    marks: Sequence[str] = (),
) -> None:
    """Draw counts and their share of each true class in one matrix; `path` is the picture, its csv lies beside it."""
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    side = min(10.0, max(3.6, 0.62 * len(classes) + 1.8))
    figure = new_figure(side + 0.9, side + 0.4, marked_title(title or path.stem, marks))
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set(xlabel="predicted", ylabel="reference", xticks=range(len(classes)), yticks=range(len(classes)))
    size = min(10.0, 300 / len(classes))  # points
    axes.set_xticklabels(classes, rotation=90 if len(classes) * max(map(len, classes)) > 40 else 0, fontsize=size)
    axes.set_yticklabels(classes, fontsize=size)
    if len(classes) <= MAX_WRITTEN_CLASSES:
        _write_cells(axes, counts, shares)
    figure.colorbar(image, ax=axes, label="share of the reference class", shrink=0.8)
    save_figure(figure, path)
    rows = [
        (reference, prediction, counts[row][column], shares[row][column])
        for row, reference in enumerate(classes)
        for column, prediction in enumerate(classes)
    ]
    save_csv(path.with_suffix(".csv"), ("reference", "prediction", "count", "share"), rows, marks)


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


def curves_plot(metrics: Path, path: Path, *, title: str = "Learning curves", marks: Sequence[str] = ()) -> None:
    """Draw the loss and every metric of a run's metrics.jsonl over steps; `path` is the picture, its csv lies beside it."""
    points = _points([row for row in read_metrics(metrics) if row["split"] != COSINE])
    drawn = [point for point in points if point[0] == "loss" or point[2] != "train"]  # what is evaluated; no learning rate
    if not drawn:
        raise UserError(f"Expected losses or metrics in '{metrics}', found none. Is the run's first evaluation done?")
    save_csv(path.with_suffix(".csv"), ("name", "task", "split", "step", "value"), points, marks)
    names = sorted(dict.fromkeys(name for name, *_ in drawn), key=lambda name: name != "loss")
    tasks = list(dict.fromkeys(task for _, task, *_ in drawn))
    columns = min(len(names), 2 if len(names) <= 4 else 3)
    rows = math.ceil(len(names) / columns)
    figure = new_figure(4.2 * columns, 2.7 * rows + 0.4, marked_title(title, marks))
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_curves(axes, [point for point in drawn if point[0] == name], tasks)
        axes.set(xlabel="step", ylabel=name, xlim=(0, 1.03 * max(step for *_, step, _ in drawn)))
    save_figure(figure, path)


Point = tuple[str, str, str, int, float]  # name, task, split, step, value


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
        axes.plot(steps, values, color=color, label=label, **SPLIT_STYLES.get(split, {"marker": "s", "markersize": 3}))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
