"""What a run leaves behind: predictions, scores with intervals, the table's numbers, pictures."""

from __future__ import annotations

import csv
import io
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

from ..corpus.batch import Example
from ..downstream.base import Outcome
from . import metrics
from .checkpoint import save_tensors, write_text

Scorer = Callable[[Outcome], dict[str, float]]


def write_predictions(path: Path, outcome: Outcome, examples: Sequence[Example], classes: Sequence[str]) -> None:
    """Write one line for each utterance of a split: what was answered, with scores, beside the reference."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["id", "file", "start", "duration", "speaker", "reference", "prediction", *(f"score_{name}" for name in classes)]
    )
    scores = outcome.scores.tolist() if outcome.scores is not None else [[]] * len(outcome.ids)
    for example, reference, prediction, row in zip(examples, outcome.references, outcome.predictions, scores, strict=True):
        item = example.utterance
        known = [item.id, item.audio, item.start, example.seconds, item.speaker or "", reference, prediction]
        writer.writerow([*known, *(f"{score:.6g}" for score in row)])
    write_text(path, buffer.getvalue())


def read_predictions(path: Path) -> tuple[Outcome, list[str]]:
    """Return the outcome and the speakers that `write_predictions` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [[float(value) for key, value in row.items() if key.startswith("score_")] for row in rows]
    outcome = Outcome(
        ids=tuple(row["id"] for row in rows),
        predictions=tuple(row["prediction"] for row in rows),
        references=tuple(row["reference"] for row in rows),
        scores=torch.tensor(scores) if scores and scores[0] else None,
    )
    return outcome, [row["speaker"] for row in rows]


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

    def one(metric: str, rows: np.ndarray) -> float:
        """Return one metric of a resample."""
        key = rows.tobytes()  # the same resamples serve every metric
        if key not in remembered:
            remembered[key] = score(outcome.take(rows.tolist()))
        return remembered[key][metric]

    found: dict[str, list[float] | None] = {}
    for metric in names:
        interval = metrics.bootstrap_interval(partial(one, metric), speakers)
        found[metric] = None if interval is None else [float(interval[0]), float(interval[1])]
    return found


def split_results(
    score: Scorer,
    names: Sequence[str],
    classes: Sequence[str],
    outcomes: Mapping[str, Outcome],
    speakers: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return what result.json says of the splits: scores, intervals, counts, confusion, each by split."""
    result: dict[str, Any] = {
        "scores": {split: {**score(outcome), "loss": outcome.loss} for split, outcome in outcomes.items()},
        "intervals": {split: intervals_of(score, names, outcome, speakers[split]) for split, outcome in outcomes.items()},
        "num_speakers": {split: len({*speakers[split]} - {""}) for split in outcomes},
        "counts": {split: dict(sorted(Counter(map(str, outcome.references)).items())) for split, outcome in outcomes.items()},
    }
    if classes:
        result["classes"] = list(classes)
        result["confusion"] = {
            split: metrics.confusion_matrix(outcome.references, outcome.predictions, classes).astype(int).tolist()
            for split, outcome in outcomes.items()
        }
    return result


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
