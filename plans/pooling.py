"""The runs of a plan together: one table of predictions, one confusion matrix, curves and scores side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..core.figures import forgiving, marked_title, new_figure, save_csv, save_figure
from ..core.files import plain_disk_errors, write_text
from ..core.run_folder import RunFolder
from ..runs.evaluation import task_place, task_result
from ..runs.pictures import confusion_plot, read_metrics
from ..runs.runtime import Runtime, print_progress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = Sequence[float] | None


@dataclass(frozen=True)
class RunOfPlan:
    """A finished run of a plan."""

    name: str
    place: Path
    fold: int
    seed: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class TaskOfPlan:
    """One task of a plan: its name where there are several, the metric that chose its steps, and its part of the summary."""

    name: str
    metric: str
    summary: Mapping[str, Any]
    is_joint: bool

    def folder(self, run: RunFolder) -> RunFolder:
        """Return where a run or a plan keeps the task's predictions."""
        if not self.is_joint:
            return run
        return RunFolder(task_place(run.path, "best", self.name)) if run.config.is_file() else run.task("best", self.name)


def write_pooled(
    folder: Path, runs: Sequence[RunOfPlan], tasks: Sequence[TaskOfPlan], marks: Sequence[str], runtime: Runtime
) -> None:
    """Write the predictions and pictures of a plan's runs together; a picture that fails is a note."""
    there = RunFolder(folder)
    with plain_disk_errors(folder):
        for task in tasks:
            for split, found in task.summary["pooled"].items():
                write_predictions(task.folder(there).predictions(split), runs, task, split)
                if "confusion" in found:
                    title = f"{task.name} · {task.summary['corpus']} · {split}, {len(runs)} runs together"
                    picture = there.confusion(split, task.name * task.is_joint)
                    confusion_plot(found["confusion"], found["classes"], picture, title=title, marks=marks)
        try:
            if not all("exact" in run.result for run in runs):  # which have no steps
                curves_plot(runs, tasks, there.curves, marks=marks)
        except UserError as problem:  # the log of a run is gone or damaged: no number needs it
            print_progress(runtime, f"note      no picture {there.curves}: {problem}")
        scores_plot(runs, tasks, there.run_scores, marks=marks)


def write_predictions(path: Path, runs: Sequence[RunOfPlan], task: TaskOfPlan, split: str) -> None:
    """Write the predictions of all runs for a split as one table: the columns of a run's, the fold, and the seed."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        source = task.folder(RunFolder(run.place)).predictions(split)
        if source.is_file():
            with source.open(encoding="utf-8", newline="") as file:
                rows += [{**row, "fold": run.fold, "seed": run.seed} for row in csv.DictReader(file)]
    if rows:
        text = io.StringIO()
        columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("fold", "seed")]
        writer = csv.DictWriter(text, [*columns, "fold", "seed"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())


@forgiving
def curves_plot(runs: Sequence[RunOfPlan], tasks: Sequence[TaskOfPlan], path: Path, *, marks: Sequence[str] = ()) -> None:
    """Draw the dev loss and the metric that chooses the step, a line for each run, its best step marked; a csv lies beside."""
    panels = [(task, name) for task in tasks for name in ("loss", task.metric)]
    rows: list[tuple[str, str, str, int, float]] = []
    for run in runs:
        lines = [line for line in read_metrics(RunFolder(run.place).metrics) if line["split"] == "dev"]
        for task, name in panels:
            own = [line for line in lines if line["task"] in (task.name, "") and isinstance(line.get(name), int | float)]
            rows += [(run.name, task.name, name, line["step"], float(line[name])) for line in own]
    save_csv(path.with_suffix(".csv"), ("run", "task", "name", "step", "value"), rows, marks)
    figure = new_figure(
        9.0, 0.5 + 3.0 * len(tasks), marked_title(f"{titled(tasks)}: {len(runs)} runs, a dot at the chosen step", marks)
    )
    grid = figure.subplots(len(tasks), 2, squeeze=False).flatten()
    for axes, (task, name) in zip(grid, panels, strict=True):
        for place, run in enumerate(runs):
            points = [(step, value) for one, of, what, step, value in rows if (one, of, what) == (run.name, task.name, name)]
            draw_curve(axes, points, run, f"C{place % 10}")
        axes.set(xlabel="step", ylabel=f"{f'{task.name} ' * task.is_joint}dev {name}")
        axes.grid(alpha=0.3)
    if len(runs) <= 10:  # more colours there are not
        grid[0].legend(fontsize=8)
    save_figure(figure, path)


def draw_curve(axes: Axes, points: Sequence[tuple[int, float]], run: RunOfPlan, color: str) -> None:
    """Draw a run's curve, with a dot at the step that was chosen."""
    if points:
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1.0, label=run.name)
    chosen = [point for point in points if point[0] == run.result.get("best_step")]
    if chosen:
        axes.plot(*chosen[-1], "o", color=color, markersize=5)


@forgiving
def scores_plot(runs: Sequence[RunOfPlan], tasks: Sequence[TaskOfPlan], path: Path, *, marks: Sequence[str] = ()) -> None:
    """Draw each run's score with its 95 % interval, and that of all predictions together; a csv lies beside."""
    rows: list[tuple[str, str, str, str, float | None, float | None, float | None]] = []
    for task in tasks:
        for split, pooled in task.summary["pooled"].items():
            found = [(run.name, *score_of(task_result(run.result, task.name), split, task.metric)) for run in runs]
            all_of_them = pooled.get("scores", {}).get(task.metric), pooled.get("intervals", {}).get(task.metric)
            for name, value, ends in [*found, ("pooled", *all_of_them)]:
                rows.append((task.name, split, task.metric, name, value, *(ends or (None, None))))
    save_csv(path.with_suffix(".csv"), ("task", "split", "metric", "run", "value", "low", "high"), rows, marks)
    panels = list(dict.fromkeys((task, split, metric) for task, split, metric, *_ in rows))
    if not panels:
        return
    names = [*(run.name for run in runs), "pooled"]
    figure = new_figure(4.6 * len(panels), 1.4 + 0.3 * len(names), marked_title(f"{titled(tasks)}: {len(runs)} runs", marks))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flatten(), panels, strict=True):
        for _, _, _, name, value, low, high in (row for row in rows if row[:3] == panel):
            draw_score(axes, names.index(name), value, None if low is None or high is None else (low, high), name == "pooled")
        several = f"{panel[0]} " * tasks[0].is_joint
        ends = ", 95 % interval" * any(row[:3] == panel and row[-1] is not None for row in rows)
        axes.set(xlabel=f"{several}{panel[1]} {panel[2]}{ends}", yticks=range(len(names)), yticklabels=names)
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


def titled(tasks: Sequence[TaskOfPlan]) -> str:
    """Return the tasks of a plan, one with its corpus, for the title of a picture."""
    return ", ".join(task.name for task in tasks) + f" · {tasks[0].summary['corpus']}" * (len(tasks) == 1)


def score_of(result: Mapping[str, Any], split: str, metric: str) -> tuple[float | None, Interval]:
    """Return a run's score on a split with its interval, where it has them."""
    return result["scores"].get(split, {}).get(metric), result.get("intervals", {}).get(split, {}).get(metric)


def draw_score(axes: Axes, place: int, value: float | None, ends: Interval, is_pooled: bool) -> None:
    """Draw a score and its interval in a row of its own."""
    color = "C3" if is_pooled else "C0"
    if ends is not None:
        axes.plot(ends, (place, place), color=color, linewidth=2.0)
    if value is not None:
        axes.plot([value], [place], "D" if is_pooled else "o", color=color)
