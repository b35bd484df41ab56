"""Scores of joint runs with all tasks and without one, read from a csv digit for digit."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

from ...core.errors import UserError, nearest

LEFT_OUT = "left_out"
PASSED_OVER = ("seed", "marks")  # columns that a table may have and no rule reads
DIRECTIONS = ("lower", "higher")
EMPTY = ("", "-", "–", "x", "×")  # a task has no score in the run that leaves it out; the paper prints X
MAX_DIGITS = 100  # before or after the point
Scores = Mapping[str, Fraction]  # task -> score; a task that was left out has none


@dataclass(frozen=True)
class Table:
    """Scores of the all-task runs and of those without one task, digit for digit; several runs of a kind are seeds."""

    directions: Mapping[str, str]  # task -> which of its scores are better, lower or higher ones
    rows: tuple[tuple[str, Scores], ...]  # ("": with all tasks, or the task left out), scores
    marks: tuple[str, ...] = ()
    further: tuple[str, ...] = ()  # columns with a further metric of a task (SF-F1 beside SF): they make no edge

    def scores(self, left_out: str, task: str) -> list[Fraction]:
        """Return a task's scores in all runs that left out the same."""
        return [scores[task] for name, scores in self.rows if name == left_out and task in scores]


def exact(value: str | float) -> Fraction:
    """Return a number as it is written: in binary, 0.08 of a score would fall beside the edge of its bin.

    >>> exact("5.72") / exact(5.2) - 1 == Fraction(1, 10)
    True
    """
    number = Decimal(str(value))
    if abs(number.adjusted()) > MAX_DIGITS:  # the digits of 1e999999999 would fill the memory
        raise OverflowError(f"more than {MAX_DIGITS} digits")
    return Fraction(number)


def table_of(directions: Mapping[str, str], rows: Sequence[tuple[str, Mapping[str, float]]], marks: Sequence[str] = ()) -> Table:
    """Return a table from numbers at hand: the scores of each run, with the task that it left out ("": none)."""
    return Table(directions, tuple((name, {task: exact(cell) for task, cell in row.items()}) for name, row in rows), tuple(marks))


def read_table(path: Path) -> Table:
    """Read a csv: a row for each run; `left_out` (empty: all tasks), then a column for each task headed `ASR:lower`, `ER:higher`.

    Where there is a column `SF`, another headed `SF-F1` holds a further metric of the same task, unless a row leaves `SF-F1` out.
    """
    header, lines = read_cells(path)
    columns = columns_of(header, path)
    names = [cells[header.index(LEFT_OUT)] for _, cells in lines]
    of_others = {name for name in columns if name not in names for task in columns if name.startswith(f"{task}-")}
    directions = {task: direction for task, direction in columns.items() if task not in of_others}
    headed = {f"{task}:{direction}": task for task, direction in directions.items()}
    rows = []
    for (number, cells), name in zip(lines, names, strict=True):
        if name and name not in directions:
            known = ", ".join(directions)
            raise UserError(
                f"Expected a task of the header under {LEFT_OUT} in line {number} of '{path}', found '{name}'."
                f"{nearest(name, directions)} Leave it empty for the run with all tasks; the tasks are: {known}."
            )
        there = {headed[title]: cell for title, cell in zip(header, cells, strict=True) if title in headed}
        rows.append((name, {task: score_of(cell, task, number, path) for task, cell in there.items() if not is_empty(cell)}))
    if "" not in names:
        raise UserError(
            f"Expected a row with an empty {LEFT_OUT} in '{path}', found none. Add the run with all tasks, which the others are "
            "compared to."
        )
    marks = [cells[header.index("marks")] for _, cells in lines] if "marks" in header else []
    return Table(directions, tuple(rows), tuple(dict.fromkeys(" ".join(marks).split())), tuple(sorted(of_others)))


def read_cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return a csv's header, and its rows with the number of their line; cases and spaces of a direction do not matter."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        why = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise UserError(f"Expected a table of runs in '{path}', found: {why}. Name a csv file in UTF-8.") from None
    if not lines or LEFT_OUT not in lines[0][1]:
        found = ", ".join(lines[0][1])[:80] if lines else "an empty file"
        raise UserError(f"Expected a header `{LEFT_OUT},ASR:lower,ER:higher,…` in '{path}', found: {found}. Add that column.")
    header = [
        f"{title.rpartition(':')[0].strip()}:{direction_of(title)}" if direction_of(title) else title for title in lines[0][1]
    ]
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise UserError(
                f"Expected {len(header)} cells in line {number} of '{path}', found {len(cells)}. Leave a cell empty where "
                "there is no score."
            )
    return header, lines[1:]


def direction_of(title: str) -> str:
    """Return which scores of a column are better, or nothing where its head does not say."""
    word = title.rpartition(":")[2].strip().lower()
    return word if word in DIRECTIONS and ":" in title else ""


def columns_of(header: Sequence[str], path: Path) -> dict[str, str]:
    """Return the tasks of a header with the direction of their scores."""
    columns: dict[str, str] = {}
    for title in header:
        if title == LEFT_OUT or title in PASSED_OVER:
            continue
        task, direction = title.rpartition(":")[0], direction_of(title)
        if not task or not direction:
            raise UserError(
                f"Expected a column's head as TASK:lower or TASK:higher in '{path}', found '{title}'. Say which is better."
            )
        if task in columns:
            raise UserError(
                f"Expected each column once in '{path}', found '{task}' twice. Rename one: a further metric is {task}-NAME."
            )
        columns[task] = direction
    if len(columns) < 2:
        raise UserError(
            f"Expected columns of at least two tasks in '{path}', found {len(columns)}. Head them TASK:lower or :higher."
        )
    return columns


def is_empty(cell: str) -> bool:
    """Tell whether a cell says that there is no score."""
    return cell.lower() in EMPTY


def score_of(cell: str, task: str, number: int, path: Path) -> Fraction:
    """Return a cell's number, digit for digit."""
    try:
        return exact(cell)
    except (InvalidOperation, ValueError, OverflowError):  # the last two: NaN, infinity and beyond
        raise UserError(
            f"Expected a number for {task} in line {number} of '{path}', found '{cell}'. Leave it empty where there is none."
        ) from None
