"""What a run leaves behind: predictions, scores with intervals, the table's numbers, pictures."""

from __future__ import annotations

import csv
import io
import math
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..core.errors import UserError, first_line, nearest
from ..core.files import read_json, write_json, write_text
from ..core.process import commit
from ..core.run_folder import RunFolder
from ..core.tensors import save_tensors
from ..corpus.base import Utterance
from ..corpus.batch import Example
from ..downstream import metrics
from ..downstream.answer import Answer
from ..downstream.base import Outcome, Question, Tables
from ..downstream.tables import join_tables
from ..training.step import TaskData

MOST_SCORES = 2**26  # of all layers of a split that are kept


def write_split(place: RunFolder, split: str, outcome: Outcome, task: TaskData, marks: Sequence[str]) -> None:
    """Write what is known of a split's predictions: a table of them, their scores and embeddings, what they are scored with."""
    write_predictions(place.predictions(split), outcome, task.splits[split], task.answer)
    write_outcome(place.outcome(split), outcome, marks)
    if task.tables.get(split):
        write_json(place.tables(split), dict(task.tables[split]))


def read_tables(places: Sequence[RunFolder], split: str) -> Tables:
    """Return the tables that runs' predictions on a split are scored with, as one; of most tasks there are none."""
    paths = [place.tables(split) for place in places]
    return join_tables([read_json(path) for path in paths if path.is_file()])


def write_predictions(path: Path, outcome: Outcome, examples: Sequence[Example], answer: Answer) -> None:
    """Write one line for each utterance of a split: the prediction, with scores, beside the reference."""
    columns = [*answer.columns("reference"), *answer.columns("prediction")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    scored = answer.score_columns if outcome.scores is not None else ()
    writer.writerow(["id", "file", "start", "duration", "speaker", *columns, *(f"score_{name}" for name in scored)])
    scores = outcome.scores.tolist() if outcome.scores is not None and scored else [[]] * len(outcome.ids)
    for example, reference, prediction, row in zip(examples, outcome.references, outcome.predictions, scores, strict=True):
        item = example.utterance
        known = [item.id, item.audio, item.start, example.seconds, group_of(item)]
        cells = [*answer.write(reference), *answer.write(prediction)]
        writer.writerow([*known, *cells, *(f"{score:.6g}" for score in row)])
    write_text(path, buffer.getvalue())


def read_predictions(path: Path, answer: Answer) -> tuple[Outcome, list[str]]:
    """Return the outcome and the speakers that `write_predictions` wrote."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _outcome_of(list(csv.DictReader(file)), answer)
    except (ValueError, TypeError, KeyError, csv.Error) as problem:
        raise damaged_predictions(path, first_line(problem)) from None


def damaged_predictions(path: Path, problem: str) -> UserError:
    """Return the error about predictions that are not those that a run wrote."""
    result = RunFolder(path.parent).result.name
    mend = f"Remove the file and {result} beside it: the command that trained the run writes both again."
    return UserError(f"Expected a run's predictions in '{path}', found a damaged file ({problem}). {mend}")


def _outcome_of(rows: Sequence[Mapping[str, str]], answer: Answer) -> tuple[Outcome, list[str]]:
    if not rows:
        raise ValueError("not one row")
    # columns of scores without a score stand in files of earlier versions
    scores = [[float(value) for key, value in row.items() if key.startswith("score_") and value] for row in rows]
    outcome = Outcome(
        ids=tuple(row["id"] for row in rows),
        predictions=tuple(answer.read(row, "prediction") for row in rows),
        references=tuple(answer.read(row, "reference") for row in rows),
        scores=torch.tensor(scores) if scores and scores[0] else None,
    )
    return outcome, [row["speaker"] for row in rows]


def group_of(utterance: Utterance) -> str:
    """Return whom an interval resamples with the utterance: its speaker; where nobody knows who spoke, its recording."""
    return utterance.speaker or (f"{_UNKNOWN}{utterance.session}" if utterance.session else "")


_UNKNOWN = "unknown, in "


def group_word(groups: Sequence[str]) -> str:
    """Return what an interval resamples: speakers, or recordings where no speaker has a name, as in diarization."""
    known = [group for group in groups if group]
    return "recording" if known and all(group.startswith(_UNKNOWN) for group in known) else "speaker"


def write_outcome(path: Path, outcome: Outcome, marks: Sequence[str]) -> None:
    """Write scores and embeddings of a split, where there are any."""
    tensors = {"scores": outcome.scores, "embeddings": outcome.embeddings}
    present = {name: value for name, value in tensors.items() if value is not None}
    if present:
        save_tensors(path, present, {"ids": list(outcome.ids), "marks": list(marks)})


def write_layer_outcomes(place: RunFolder, role: str, outcomes: Sequence[Mapping[str, Outcome]], marks: Sequence[str]) -> None:
    """Write the scores that each layer alone gives a split, unless they are too many to keep."""
    for split in outcomes[0] if outcomes else ():
        scores = [of_layer[split].scores for of_layer in outcomes]
        if all(one is not None for one in scores) and sum(one.numel() for one in scores if one is not None) <= MOST_SCORES:
            stacked = torch.stack([one.float() for one in scores if one is not None])  # (layer, utterance, output)
            facts = {"ids": list(outcomes[0][split].ids), "marks": list(marks)}
            save_tensors(place.layer_outcomes(role, split), {"scores": stacked}, facts)


def intervals_of(
    question: Question, vocabulary: Mapping[str, Any], outcome: Outcome, speakers: Sequence[str], tables: Tables
) -> dict[str, list[float] | None]:
    """Return a 95 % interval for each metric; None where there are too few speakers to resample."""
    if not all(speakers):
        return dict.fromkeys(question.metrics)
    found = metrics.bootstrap_intervals(question.row_scorer(vocabulary, outcome, tables), [*question.metrics], speakers)
    return {metric: None if interval is None else [*interval] for metric, interval in found.items()}


def split_results(task: TaskData, outcomes: Mapping[str, Outcome], by: Sequence[str] = ()) -> dict[str, Any]:
    """Return the part of result.json about the splits: scores, intervals, counts, confusion, each by split."""
    question, vocabulary, answer = task.question, task.expert.vocabulary, task.answer
    groups = {split: [group_of(example.utterance) for example in task.splits[split]] for split in outcomes}
    found = {split: task.score(split, outcome) for split, outcome in outcomes.items()}
    result: dict[str, Any] = {
        "scores": {split: finite({**found[split], "loss": outcome.loss}) for split, outcome in outcomes.items()},
        "intervals": {
            split: intervals_of(question, vocabulary, outcome, groups[split], task.tables.get(split, {}))
            for split, outcome in outcomes.items()
        },
        "num_speakers": {split: len({*groups[split]} - {""}) for split in outcomes},
        "resampled": {split: group_word(groups[split]) for split in outcomes},  # what num_speakers counts
        "num_utterances": {split: len(outcome.ids) for split, outcome in outcomes.items()},
    }
    if by:
        result["by"] = {split: {name: by_label(task, split, outcome, name) for name in by} for split, outcome in outcomes.items()}
    details = {split: question.details(vocabulary, outcome) for split, outcome in outcomes.items()}
    if any(details.values()):
        result["details"] = details
    if answer.classes:
        result["classes"] = list(answer.classes)
    for split, outcome in outcomes.items():
        for name, count in answer.counts(outcome.references, outcome.predictions).items():
            result.setdefault(name, {})[split] = count
    return result


def by_label(task: TaskData, split: str, outcome: Outcome, name: str) -> dict[str, Any]:
    """Return the scores of each group of a split whose utterances agree in a label, or in speaker or session."""
    examples = task.splits[split]
    groups: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        item = example.utterance
        value = {"speaker": item.speaker, "session": item.session}.get(name) or item.labels.get(name)
        groups.setdefault("(none)" if value in (None, "") else str(value), []).append(row)
    if {*groups} == {"(none)"}:
        known = sorted({key for example in examples for key in example.utterance.labels} | {"speaker", "session"})
        raise UserError(
            f"Expected a label to group by after --by, found no '{name}'.{nearest(name, known)} There: {', '.join(known)}."
        )
    return {
        value: {"num_utterances": len(rows), **finite(task.score(split, outcome.take(rows)))}
        for value, rows in sorted(groups.items())
    }


def finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return scores as json can hold them: None where one is not defined, as an error rate of one class alone."""
    return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def environment(device: torch.device, seconds: float) -> dict[str, Any]:
    """Return where and with what a run was made."""
    return {
        "headwater": _version("headwater"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads",
        "seconds": round(seconds, 2),
        "peak_memory_mb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
        ),
        "peak_device_memory_mb": round(torch.cuda.max_memory_allocated(device) / 2**20) if device.type == "cuda" else None,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
