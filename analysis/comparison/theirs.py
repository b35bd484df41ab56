"""Predictions of another toolkit, as a table: they are a side of a comparison like a run's own."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError, nearest
from ...core.run_folder import RunFolder
from ...corpus.tables import TABLES, column_of, read_table
from ...downstream.answer import Answer
from ...downstream.base import Outcome
from .sides import Side

SHOWN = 3  # examples in a message


def is_table(place: Path) -> bool:
    """Return whether a place is a table of predictions, not a run."""
    return place.suffix.lower() in TABLES and place.is_file()


def read_theirs(table: Path, run: Side, split: str, reference: Outcome) -> Side:
    """Return the predictions of a table for the utterances that a run was tested on."""
    headers, lines = read_table(table)
    rows = [line.values for line in lines]
    answer = run.answer
    wanted = prediction_columns(table, headers, answer)
    by_id = rows_by_id(table, headers, rows, run, split, reference)
    predictions = tuple(prediction_of(table, name, by_id[name], wanted, answer) for name in reference.ids)
    scores = scores_of(table, headers, [by_id[name] for name in reference.ids], answer)
    if scores is None and reference.scores is not None and not math.isfinite(score_without(run, reference)):
        named = ", ".join(f"score_{name}" for name in answer.score_names)
        raise UserError(
            f"Expected scores in '{table}', which {run.question.primary_metric} is computed from, found none. Add {named}."
        )
    given = Outcome(reference.ids, predictions, reference.references, scores)
    marks = tuple(mark for mark in run.marks if mark == "DEMO")
    return replace(run, folder=table, upstream="", marks=marks, seeds=dict.fromkeys(run.seeds, ()), given=given)


def score_without(run: Side, reference: Outcome) -> float:
    """Return the task's metric of a run's own predictions without their scores; not a number where it needs them."""
    try:
        return run.question.score(run.vocabulary, replace(reference, scores=None), {})[run.question.primary_metric]
    except AssertionError:  # of the question: scores are what it is scored by
        return float("nan")


def prediction_columns(table: Path, headers: Sequence[str], answer: Answer) -> dict[str, str]:
    """Return which column holds each part of a prediction; `label` stands for `prediction` where that is missing."""
    found = {name: name for name in answer.columns("prediction") if name in headers}
    if "prediction" in answer.columns("prediction") and not found and "label" in headers:
        found = {"prediction": "label"}
    missing = [name for name in answer.columns("prediction") if name not in found]
    if missing:
        raise UserError(
            f"Expected a column '{missing[0]}' in '{table}', found {', '.join(headers)}.{nearest(missing[0], headers)} Rename it."
        )
    return found


def rows_by_id(
    table: Path, headers: Sequence[str], rows: Sequence[Mapping[str, Any]], run: Side, split: str, reference: Outcome
) -> dict[str, Mapping[str, Any]]:
    """Return the row of each tested utterance, found by its id or by its file; rows of other utterances are refused."""
    column = "id" if "id" in headers else column_of("audio", headers)
    if column is None:
        raise UserError(f"Expected a column 'id' or 'file' in '{table}', found {', '.join(headers)}. Add one.")
    known = {name: name for name in reference.ids} if column == "id" else names_of_files(run, split)
    names = [known.get(str(row[column])) or known.get(Path(str(row[column])).name) for row in rows]
    strange = [str(row[column]) for row, name in zip(rows, names, strict=True) if name is None]
    if strange:
        raise refused(table, f"{column}s that '{run.folder}' was tested on", "unknown", strange, "Remove their rows")
    twice = [name for name, count in Counter(names).items() if count > 1 and name is not None]
    if twice:
        raise refused(table, "one row for each utterance", "with several", twice, "Keep one")
    by_id = {name: row for name, row in zip(names, rows, strict=True) if name is not None}
    missing = [name for name in reference.ids if name not in by_id]
    if missing:
        raise refused(table, f"a prediction for all {len(reference.ids)} utterances", "missing", missing, "Add their rows")
    return by_id


def refused(table: Path, expected: str, what: str, names: Sequence[str], advice: str) -> UserError:
    """Return the error about some utterances of a table."""
    listed = ", ".join(names[:SHOWN]) + " …" * (len(names) > SHOWN)
    return UserError(f"Expected {expected} in '{table}', found {len(names)} {what} ({listed}). {advice}.")


def names_of_files(run: Side, split: str) -> dict[str, str]:
    """Return the id of each tested utterance by its file, and by the file's name where no other is called so."""
    files: dict[str, str] = {}
    for place in next(iter(run.seeds.values())):
        with RunFolder(place).predictions(split).open(encoding="utf-8", newline="") as lines:
            files |= {row["file"]: row["id"] for row in csv.DictReader(lines)}
    names = Counter(Path(file).name for file in files)
    return {**{Path(file).name: name for file, name in files.items() if names[Path(file).name] == 1}, **files}


def prediction_of(table: Path, name: str, row: Mapping[str, Any], columns: Mapping[str, str], answer: Answer) -> Any:
    """Return the prediction in a row, or say what it is instead."""
    cells = {wanted: str(row[column]) for wanted, column in columns.items()}
    try:
        found = answer.read(cells, "prediction")
    except ValueError:
        found = None
    if found is None or not answer.fits(found):
        value, classes = ", ".join(cells.values()), [str(one) for one in answer.score_names]
        kind = f"one of {', '.join(classes[:8])}{' …' * (len(classes) > 8)}" if answer.column else "a number"
        hint = nearest(value, classes) if answer.column else ""
        raise UserError(f"Expected {kind} as the prediction for '{name}' in '{table}', found '{value}'.{hint} Mend the row.")
    return found


def scores_of(table: Path, headers: Sequence[str], rows: Sequence[Mapping[str, Any]], answer: Answer) -> Tensor | None:
    """Return the scores of a table (utterance, score), None where it has none; some of them alone are refused."""
    names = [f"score_{name}" for name in answer.score_names]
    there = [name for name in names if name in headers]
    if not there:
        return None
    missing = [name for name in names if name not in headers]
    if missing:
        raise UserError(
            f"Expected all columns of scores in '{table}' or none, found no {missing[0]}. Add it, or remove the others."
        )
    try:
        return torch.tensor([[float(row[name]) for name in names] for row in rows])
    except ValueError as problem:
        raise UserError(f"Expected numbers as scores in '{table}', found another word ({problem}). Mend the row.") from None
