"""Emotion as a question: one class of a few, scored over a whole split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from .. import metrics
from ..base import Outcome, Tables
from ..classification import question_of_classes
from ..labels import Classes

METRICS: Mapping[str, Literal["higher", "lower"]] = {"wa": "higher", "ua": "higher", "macro_f1": "higher"}
PRIMARY_METRIC = "ua"

# what corpora call the same emotion; a run is tested on another corpus through this table
SYNONYMS = (
    {"neu", "neutral", "n"},
    {"hap", "happy", "happiness", "joy", "h"},
    {"ang", "angry", "anger", "a"},
    {"sad", "sadness", "s"},
    {"fea", "fear", "fearful", "f"},
    {"dis", "disgust", "d"},
    {"sur", "surprise", "surprised", "u"},
    {"con", "contempt", "c"},
)


def same_emotion(name: str, classes: Classes) -> str | None:
    """Return the class that means the same as a corpus' label, if there is one."""
    if classes.merge.get(name, name) in classes.names:
        return classes.merge.get(name, name)
    alike = next((group for group in SYNONYMS if name.lower() in group), {name.lower()})
    return next((ours for ours in classes.names if ours.lower() in alike), None)


def score(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, float]:
    """Return weighted accuracy, unweighted accuracy and macro-F1 of a whole split."""
    truth, predictions, classes = outcome.references, outcome.predictions, vocabulary["classes"]
    return {
        "wa": metrics.accuracy(truth, predictions),
        "ua": metrics.unweighted_accuracy(truth, predictions, classes),
        "macro_f1": metrics.macro_f1(truth, predictions, classes),
    }


QUESTION = replace(question_of_classes("emotion", "emotion", METRICS, score, same_emotion), primary_metric=PRIMARY_METRIC)
