"""The multi-task paper's table: each task alone, all together, all but one, and moved to what the others made."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.figures import save_csv
from ...core.files import write_json, write_text
from ...core.run_folder import RunFolder
from ...corpus.load import get_reader
from ...downstream import metrics
from ...downstream.base import Question
from ...downstream.load import load_task
from ...plans.scenario import ADAPTERS, ALL, ALONE, BUT, MOVED, Scenario
from ...runs.evaluation import KEPT
from ...runs.results import read_predictions, read_tables
from ..table import number, render, spread
from .graphs import draw
from .relations import Interval, Relations, relations_of, relations_text
from .table import table_of

REPEATS = 300  # of a paired bootstrap: its interval decides a dash, no more


@dataclass(frozen=True)
class Column:
    """One task of the table: its metric and where it is better."""

    name: str
    metric: str
    split: str
    direction: str
    question: Question

    @property
    def title(self) -> str:
        """What stands above the column, and in the csv."""
        return f"{self.name}:{self.direction}"


@dataclass(frozen=True)
class Found:
    """The scores of a plan's finished runs: (kind of run, weights kept) -> task -> seed -> score."""

    columns: tuple[Column, ...]
    scores: Mapping[tuple[str, str], Mapping[str, Mapping[int, float]]]
    marks: tuple[str, ...]
    missing: tuple[str, ...]  # runs that are not finished

    def cell(self, row: str, kept: str, task: str) -> list[float]:
        """Return a task's scores in a kind of run."""
        return [*self.scores.get((row, kept), {}).get(task, {}).values()]


def found_of(plan: Scenario, folder: Path) -> Found:
    """Read the results of all runs that are finished."""
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    marks: dict[str, None] = {}
    missing, columns = [], {name: column_of(plan, name) for name in plan.tasks}
    for part in plan.parts:
        there = RunFolder(folder / part.name)
        if not there.result.is_file():
            missing.append(part.name)
            continue
        result, row = there.read().result("marks"), part.name.split("/")[0]
        marks |= dict.fromkeys(result["marks"])
        for task, kept, found in results_in(result, row):
            column = columns[task]
            value = found["scores"].get(column.split, {}).get(column.metric)
            if value is not None:  # None: not defined there
                scores.setdefault((kind_of(row), kept), {}).setdefault(task, {})[part.seed] = float(value)
    return Found(tuple(columns.values()), scores, tuple(marks), tuple(missing))


def kind_of(row: str) -> str:
    """Return the row of the table that a part belongs to: single-task runs make one row, transfers another."""
    return next((kind for kind in (ALONE, MOVED) if row.startswith(kind)), row)


def results_in(result: Mapping[str, Any], row: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return (task, weights kept, its result) for each task of a run."""
    if "tasks" in result:
        return [(task, kept, found[kept]) for task, found in result["tasks"].items() for kept in (*KEPT, "own")]
    task = row.partition("-")[2]
    return [(task, kept, result) for kept in (*KEPT, "own")]


def column_of(plan: Scenario, name: str) -> Column:
    """Return a task's column: the metric that it is reported by, on its corpus' test."""
    run = plan.config.tasks[name]
    question = load_task(run.task).question(run.expert)
    return Column(name, run.reported, get_reader(run.corpus.name).test, question.metrics[run.reported], question)


def rows_of(plan: Scenario) -> dict[str, str]:
    """Return the table's rows: kind of run -> label, as the paper numbers them."""
    rows = {ALONE: "(a) alone, frozen", ALL: "(b-1) all tasks"}
    if any(kind_of(part.name.split("/")[0]) == ADAPTERS for part in plan.parts):  # no scenario of the paper's
        rows |= {ADAPTERS: "all tasks, an adapter each"}
    rows |= {BUT + name: f"(b-2) all but {name}" for name in plan.tasks}
    return rows | {MOVED: "(c) transfer"}


def report_table(plan: Scenario, folder: Path) -> str:
    """Write the table, the choice of steps and the relations into a plan's folder, and return them as text."""
    found = found_of(plan, folder)
    marked = " · ".join(found.marks)
    text = [marked] if marked else []
    below = "\n".join([LEGEND, *departures_of(plan)])
    for kept in kept_by(plan):
        cells = [cells_of(found, row, label, kept) for row, label in rows_of(plan).items()]
        cells = [row for row in cells if any(value not in ("-", "X") for key, value in row.items() if key)]
        if not cells:
            continue
        which = {"last": "the last step (the paper)", "best": f"the best step by {plan.config.select}"}[kept]
        marked_up = [cells_of(found, row, label, kept, marked_up=True) for row, label in rows_of(plan).items()]
        title = f"{f'{marked} · ' if marked else ''}Table 1, joint runs at {which}"
        write_text(folder / f"table1-{kept}.md", f"{title}\n\n{render(marked_up, markdown=True)}\n\n{below}\n")
        text += ["", title, render(cells)]
    save_rows(plan, found, folder)
    choice = choices(plan, found)
    if choice:
        caption = "Which step: last; best, of most mean gain over the single runs; own, each task's best on dev"
        hint = [] if plan.config.select == "gain" else ["The step of most mean gain is kept and tested with --select gain."]
        write_text(folder / "table1-steps.md", "\n\n".join([caption, render(choice, markdown=True), *hint]) + "\n")
        text += ["", caption, render(choice), *hint]
    relations = relations_in(plan, found, folder)
    if relations is not None:
        write_json(folder / "relations.json", relations.as_json())
        draw(relations, folder / "relations.png", found.marks)
        text += ["", relations_text(relations)]
    if plan.missing:
        text.append(f"missing tasks of the paper: {', '.join(plan.missing)}")
    text += departures_of(plan)
    if found.missing:
        text.append(f"not finished: {', '.join(found.missing)}")
    return "\n".join(text)


def kept_by(plan: Scenario) -> tuple[str, ...]:
    """Return which weights of the joint runs a table shows: where the last step is chosen, it is the best one too."""
    return KEPT if plan.config.select == "gain" else KEPT[:1]


def departures_of(plan: Scenario) -> list[str]:
    """Return what the plan does in another way than the paper, line by line."""
    return [f"Not as in the paper: {line}" for line in plan.departures]


LEGEND = (
    "Bold: better than with all tasks; underlined: worse; X: left out. "
    "(a) and (c) are runs of one task, each at its best step on dev whatever the title says of the joint runs."
)


def cells_of(found: Found, row: str, label: str, kept: str, *, marked_up: bool = False) -> dict[str, str]:
    """Return a row of the table as text."""
    cells = {"": label}
    for column in found.columns:
        arrow = {"higher": "↑", "lower": "↓"}[column.direction]
        title = f"{column.name} {column.metric}{arrow}"
        values = found.cell(row, kept, column.name)
        if row == BUT + column.name:
            cells[title] = "X"
            continue
        mean, deviation = metrics.mean_and_spread(values) if values else (None, None)
        text = number(None) if mean is None else spread(mean, deviation)
        everything = found.cell(ALL, kept, column.name)
        if marked_up and mean is not None and row.startswith(BUT) and everything:
            gap = mean - metrics.mean_and_spread(everything)[0]
            better = gap > 0 if column.direction == "higher" else gap < 0
            text = text if gap == 0 else f"**{text}**" if better else f"<u>{text}</u>"
        cells[title] = text
    return cells


def save_rows(plan: Scenario, found: Found, folder: Path) -> None:
    """Write every score unrounded, and the table that `headwater plot relations` reads."""
    lines = [
        (row, kept, column.name, column.metric, seed, value)
        for (row, kept), tasks in found.scores.items()
        for column in found.columns
        for seed, value in tasks.get(column.name, {}).items()
    ]
    save_csv(folder / "table1.csv", ("run", "weights", "task", "metric", "seed", "value"), lines, found.marks)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    marked = ["marks"] if found.marks else []
    writer.writerow(["left_out", *(column.title for column in found.columns), *marked])
    for left_out, scores in relation_rows(plan, found):
        cells = [repr(scores[column.name]) if column.name in scores else "" for column in found.columns]
        writer.writerow([left_out, *cells, *([" ".join(found.marks)] if marked else [])])
    write_text(folder / "relations.csv", buffer.getvalue())


def relation_rows(plan: Scenario, found: Found) -> list[tuple[str, dict[str, float]]]:
    """Return (task left out, scores) of each joint run with its last weights; "" is the one of all tasks."""
    rows = []
    for left_out in ("", *plan.tasks):
        row = BUT + left_out if left_out else ALL
        scores = found.scores.get((row, "last"), {})
        for seed in plan.seeds:
            of_seed = {task: values[seed] for task, values in scores.items() if seed in values}
            rows += [(left_out, of_seed)] * bool(of_seed)
    return rows


def choices(plan: Scenario, found: Found) -> list[dict[str, str]]:
    """Return each joint run's scores with the three choices of a step."""
    rows = []
    for row, label in rows_of(plan).items():
        if row in (ALONE, MOVED) or (row, "last") not in found.scores:
            continue
        for kept in (*kept_by(plan), "own"):
            cells = cells_of(found, row, label, kept)
            rows.append({"": cells.pop(""), "step": kept, **cells})
    return rows


def relations_in(plan: Scenario, found: Found, folder: Path) -> Relations | None:
    """Return which task helps which, with intervals over seeds, else by a paired bootstrap over speakers."""
    rows = relation_rows(plan, found)
    if "" not in {name for name, _ in rows} or len({name for name, _ in rows}) < 2:
        return None
    table = table_of({column.name: column.direction for column in found.columns}, rows, found.marks)
    bootstrap = {} if len(plan.seeds) > 1 else paired_intervals(plan, found, folder)
    return relations_of(table, bootstrap)


def paired_intervals(plan: Scenario, found: Found, folder: Path) -> dict[tuple[str, str], Interval]:
    """Return the interval of each pair's relative change over draws of the test's speakers, where there are enough."""
    intervals = {}
    seed = f"seed{plan.seeds[0]}"
    for source in plan.tasks:
        for column in found.columns:
            runs = [RunFolder(folder / row / seed) for row in (ALL, BUT + source)]
            places = [run.task("last", column.name) for run in runs]
            paths = [place.predictions(column.split) for place in places]
            if source == column.name or not all(path.is_file() for path in paths):
                continue
            vocabulary = runs[0].read().vocabulary(column.name)[column.name]
            with runs[0].usable_vocabulary():
                answer = column.question.answer(vocabulary)
            tables = read_tables(places[:1], column.split)
            (every, groups), (without, _) = (read_predictions(path, answer) for path in paths)
            if every.ids != without.ids:
                continue
            sign = 1.0 if column.direction == "higher" else -1.0
            scorers = [column.question.row_scorer(vocabulary, outcome, tables) for outcome in (every, without)]

            def change(rows: np.ndarray) -> float:
                """Return the relative change of one draw."""
                base, other = (scorer(rows)[column.metric] for scorer in scorers)  # noqa: B023 (called at once)
                return sign * (other - base) / abs(base) if base else float("nan")  # noqa: B023

            interval = metrics.bootstrap_interval(change, groups, repeats=REPEATS) if all(groups) else None
            if interval is not None:
                intervals[source, column.name] = interval
    return intervals


def folders_of(plan: Scenario, folder: Path) -> Sequence[Path]:
    """Return the plan's finished runs, for a report."""
    return [folder / part.name for part in plan.parts if RunFolder(folder / part.name).result.is_file()]
