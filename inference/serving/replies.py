"""What is shown of a run and of its predictions: as json, on a page, in an app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...core.run_folder import RunFolder
from ...downstream.sd.answer import Spoken
from ...runs.config.schema import roles_of
from ..export.names import plain_name
from ..export.readme import LICENCE_NOTE
from ..folds import Folds
from ..predict import Prediction, Predictor, predict_items
from ..sharing.lineage import licence_line
from ..trained_run import TrainedRun
from ..waveforms import SAMPLE_RATE, Waveform, read_waveform

SHORTEST_WINDOW, LONGEST_WINDOW = 0.25, 20.0  # seconds of a timeline's windows


def facts_of(run: TrainedRun | Folds) -> dict[str, Any]:
    """Return what a user of a run has to know: what it predicts, what it was made from, what it may be used for."""
    first = run.runs[0] if isinstance(run, Folds) else run
    stored = RunFolder(first.folder).read().result()
    sections = roles_of(first.config)
    return {
        "run": run.folder.resolve().name,
        "task": first.config.only.task,
        "predicts": run.answer.kind,
        "labels": [*run.answer.score_names],
        "upstream": " + ".join(plain_name(section.name) for section in sections.values()),
        "finetuned": any(section.trainable for section in sections.values()),
        "corpus": stored.get("corpus") or first.config.only.corpus.name,
        "reads_text": run.uses_text,
        "marks": [*run.marks],
        "sample_rate": SAMPLE_RATE,
        "licence": f"{licence_line(first.folder, first.name)}. {LICENCE_NOTE}",
    }


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as json has it; what cannot be read has its error alone."""
    if prediction.error:
        return {"file": prediction.file, "error": prediction.error}
    return {
        "file": prediction.file,
        "seconds": round(prediction.seconds, 3),
        "label": label_json(prediction.label),
        "scores": prediction.scores,
    }


def label_json(label: Any) -> Any:
    """Return a label as json has it: a word or a text, a list of slots, or of turns."""
    if isinstance(label, Spoken):
        return [{"speaker": speaker, "start": start, "end": end} for speaker, start, end in label.turns]
    return [*label] if isinstance(label, tuple) else None if label is None else str(label)


def timeline(run: Predictor, waveform: Waveform, seconds: float, text: str | None = None) -> list[Prediction]:
    """Return a prediction for each of the equal windows, of at most so many seconds, that a waveform is cut into.

    A window without sound carries its error; with a text, each window has the whole of it.
    """
    parts = parts_of(waveform, seconds)
    predictions = predict_items(run, [part for _, part in parts], lambda _: text or "")
    return [replace(found, start=start) for found, (start, _) in zip(predictions, parts, strict=True)]


def parts_of(waveform: Waveform, seconds: float) -> list[tuple[float, Waveform]]:
    """Return the windows of a timeline, each with the second that it begins at."""
    if not SHORTEST_WINDOW <= seconds <= LONGEST_WINDOW:
        raise UserError(
            f"Expected windows of {SHORTEST_WINDOW:g} to {LONGEST_WINDOW:g} seconds, found {seconds:g}. For instance: 2"
        )
    samples = read_waveform(waveform)
    parts = np.array_split(samples, max(1, -(-len(samples) // round(seconds * SAMPLE_RATE))))
    starts = np.cumsum([0, *map(len, parts[:-1])]) / SAMPLE_RATE
    return [(float(start), Waveform(part, SAMPLE_RATE, waveform.name)) for start, part in zip(starts, parts, strict=True)]


def windows_json(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return the windows of a timeline as json has them; one without sound has an error in place of a label."""
    rows = []
    for found in predictions:
        shown = {key: value for key, value in prediction_json(found).items() if key not in ("file", "seconds")}
        rows.append({"start": round(found.start, 3), "end": round(found.start + found.seconds, 3), **shown})
    return rows
