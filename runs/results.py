"""What a run leaves behind: predictions, scores with intervals, the table's numbers, pictures."""

from __future__ import annotations

import csv
import io
import math
import platform
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.errors import UserError, first_line, nearest
from ..core.files import write_text
from ..core.tensors import save_tensors
from ..corpus.base import Utterance
from ..corpus.batch import Example
from ..downstream import metrics
from ..downstream.answer import _answer
from ..downstream.base import Outcome, Question

MOST_CLASSES = 60  # told one by one: of more, counts, confusion and a column of scores each would be all that is seen
Scorer = Callable[[Outcome], dict[str, float]]


def write_predictions(path: Path, outcome: Outcome, examples: Sequence[Example], vocabulary: Mapping[str, Any]) -> None:
    """Write one line for each utterance of a split: what was answered, with scores, beside the reference."""
    classes, dimensions = vocabulary.get("classes", ()), vocabulary.get("dimensions", ())
    answers = [f"{kind}_{name}" for kind in ("reference", "prediction") for name in dimensions] or ["reference", "prediction"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    scored = classes if outcome.scores is not None and len(classes) <= MOST_CLASSES else ()
    writer.writerow(["id", "file", "start", "duration", "speaker", *answers, *(f"score_{name}" for name in scored)])
    scores = outcome.scores.tolist() if outcome.scores is not None and scored else [[]] * len(outcome.ids)
    for example, reference, prediction, row in zip(examples, outcome.references, outcome.predictions, scores, strict=True):
        item = example.utterance
        known = [item.id, item.audio, item.start, example.seconds, group_of(item)]
        answered = [f"{value:.6g}" for value in (*reference, *prediction)] if dimensions else [reference, prediction]
        writer.writerow([*known, *answered, *(f"{score:.6g}" for score in row)])
    write_text(path, buffer.getvalue())


def read_predictions(path: Path) -> tuple[Outcome, list[str]]:
    """Return the outcome and the speakers that `write_predictions` wrote."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _outcome_of(list(csv.DictReader(file)))
    except (ValueError, TypeError, KeyError, csv.Error) as problem:
        mend = "Remove the file and result.json beside it: the command that trained the run writes both again."
        raise UserError(
            f"Expected a run's predictions in '{path}', found a damaged file ({first_line(problem)}). {mend}"
        ) from None


def _outcome_of(rows: Sequence[Mapping[str, str]]) -> tuple[Outcome, list[str]]:
    # columns of scores without a score stand in files of earlier versions
    scores = [[float(value) for key, value in row.items() if key.startswith("score_") and value] for row in rows]
    outcome = Outcome(
        ids=tuple(row["id"] for row in rows),
        predictions=tuple(_answer(row, "prediction") for row in rows),
        references=tuple(_answer(row, "reference") for row in rows),
        scores=torch.tensor(scores) if scores and scores[0] else None,
    )
    return outcome, [row["speaker"] for row in rows]


def group_of(utterance: Utterance) -> str:
    """Return whom an interval resamples with the utterance: its speaker; where nobody knows who spoke, its recording."""
    return utterance.speaker or (f"unknown, in {utterance.session}" if utterance.session else "")


def write_outcome(path: Path, outcome: Outcome, marks: Sequence[str]) -> None:
    """Write scores and embeddings of a split, where there are any."""
    tensors = {"scores": outcome.scores, "embeddings": outcome.embeddings}
    present = {name: value for name, value in tensors.items() if value is not None}
    if present:
        save_tensors(path, present, {"ids": list(outcome.ids), "marks": list(marks)})


def intervals_of(score: Scorer, names: Sequence[str], outcome: Outcome, speakers: Sequence[str]) -> dict[str, list[float] | None]:
    """Return a 95 % interval for each metric; None where there are too few speakers to resample."""
    if not all(speakers):
        return dict.fromkeys(names)
    remembered: dict[bytes, dict[str, float]] = {}
    rows_of = outcome.columns()

    def one(metric: str, rows: np.ndarray) -> float:
        """Return one metric of a resample."""
        key = rows.tobytes()  # the same resamples serve every metric
        if key not in remembered:
            remembered[key] = score(rows_of.take(rows))
        return remembered[key][metric]

    found: dict[str, list[float] | None] = {}
    for metric in names:
        interval = metrics.bootstrap_interval(partial(one, metric), speakers)
        found[metric] = None if interval is None else [float(interval[0]), float(interval[1])]
    return found


def split_results(
    question: Question,
    vocabulary: Mapping[str, Any],
    outcomes: Mapping[str, Outcome],
    splits: Mapping[str, Sequence[Example]],
    by: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what result.json says of the splits: scores, intervals, counts, confusion, each by split."""
    groups = {split: [group_of(example.utterance) for example in splits[split]] for split in outcomes}
    score, classes = partial(question.score, vocabulary), vocabulary.get("classes", ())
    names = [*question.metrics]
    found = {split: score(outcome) for split, outcome in outcomes.items()}
    result: dict[str, Any] = {
        "scores": {split: {**finite(found[split]), "loss": outcome.loss} for split, outcome in outcomes.items()},
        "intervals": {split: intervals_of(score, names, outcome, groups[split]) for split, outcome in outcomes.items()},
        "num_speakers": {split: len({*groups[split]} - {""}) for split in outcomes},
        "num_utterances": {split: len(outcome.ids) for split, outcome in outcomes.items()},
    }
    if by:
        result["by"] = {
            split: {name: by_label(question, vocabulary, outcome, splits[split], name) for name in by}
            for split, outcome in outcomes.items()
        }
    details = {split: question.details(vocabulary, outcome) for split, outcome in outcomes.items()}
    if any(details.values()):
        result["details"] = details
    if classes:
        result["classes"] = list(classes)
    if 0 < len(classes) <= MOST_CLASSES:
        result["counts"] = {
            split: dict(sorted(Counter(map(str, outcome.references)).items())) for split, outcome in outcomes.items()
        }
        result["confusion"] = {
            split: metrics.confusion_matrix(outcome.references, outcome.predictions, classes).astype(int).tolist()
            for split, outcome in outcomes.items()
        }
    return result


def by_label(
    question: Question, vocabulary: Mapping[str, Any], outcome: Outcome, examples: Sequence[Example], name: str
) -> dict[str, Any]:
    """Return the scores of each group of a split whose utterances agree in a label, or in speaker or session."""
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
        value: {"num_utterances": len(rows), **finite(question.score(vocabulary, outcome.take(rows)))}
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


def commit() -> str | None:
    """Return the commit of the clone that this code runs from; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None
