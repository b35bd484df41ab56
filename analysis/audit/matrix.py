"""Train on one corpus, test on the others: whether what was learned is of the task, or of the corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError
from ...core.run_folder import RunFolder
from ...downstream.labels import LabelsConfig
from ...downstream.metrics import metric_title
from ...inference.evaluate import evaluate_run
from ...runs.config.resolve import config_of
from ...runs.runtime import Runtime, print_progress
from ..comparison.compare import known_metric, split_of
from ..comparison.sides import Side, read_side
from ..table import number, render
from ..titles import titles_of


@dataclass(frozen=True)
class Matrix:
    """The score of each run on each corpus."""

    names: tuple[str, ...]
    metric: str
    scores: tuple[tuple[float | None, ...], ...]  # (trained on, tested on); None: no label in common
    notes: tuple[str, ...]


def cross_matrix(folders: Sequence[Path], runtime: Runtime, metric: str | None = None) -> Matrix:
    """Return the scores of runs on their own corpus and on that of each other run, where labels agree."""
    sides = [read_side(folder) for folder in folders]
    for side in sides:
        if RunFolder(side.folder).runs() is not None:
            raise UserError(f"Expected single runs for --matrix, found the plan '{side.folder}'. Name one of its runs.")
        if side.question.name != sides[0].question.name:
            tasks = f"{sides[0].question.name} and {side.question.name}"
            raise UserError(f"Expected runs of one task for --matrix, found {tasks}. Name runs of one task.")
    decides = known_metric(metric or sides[0].question.primary_metric, sides[0].question)
    titles = titles_of(list(dict.fromkeys(side.folder.resolve() for side in sides)))
    names = tuple(titles[side.folder.resolve()] for side in sides)
    notes: list[str] = []
    rows = []
    for trained, name in zip(sides, names, strict=True):
        row: list[float | None] = []
        for tested, other in zip(sides, names, strict=True):
            try:
                row.append(one_score(trained, tested, decides, runtime))
            except UserError as problem:
                row.append(None)
                notes.append(f"{name} on {other}: left out. {problem}")
        rows.append(tuple(row))
    return Matrix(names, decides, tuple(rows), tuple(notes))


def one_score(trained: Side, tested: Side, metric: str, runtime: Runtime) -> float | None:
    """Return a run's score on the corpus of another, or on its own test split."""
    split = split_of([tested], None)
    if trained is tested:
        scores = RunFolder(trained.folder).read().result("scores")["scores"]
        return scores[split][metric]
    print_progress(runtime, f"matrix    {trained.folder} on the corpus of {tested.folder}")
    config, _, _ = config_of(tested.folder, None)
    quiet = Runtime(runtime.device, quiet=True)
    labels = LabelsConfig(column=config.only.labels.column)
    return evaluate_run(trained.folder, config.only.corpus, labels, split, quiet)["scores"][split][metric]


def matrix_text(matrix: Matrix) -> str:
    """Return the table: a row for each training corpus, a column for each tested one."""
    rows = [
        {"trained on": name, **{f"on {other}": number(score) for other, score in zip(matrix.names, scores, strict=True)}}
        for name, scores in zip(matrix.names, matrix.scores, strict=True)
    ]
    return "\n".join([f"{metric_title(matrix.metric)} of each run on each corpus", render(rows), *matrix.notes])
