"""Keyword spotting as a question: one of the keywords, another word, or silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from .. import metrics
from ..base import Outcome, Tables
from ..classification import question_of_classes
from ..labels import Classes

METRICS: Mapping[str, Literal["higher", "lower"]] = {"acc": "higher", "ua": "higher"}
OTHER_WORD = "_unknown_"


def same_word(name: str, classes: Classes) -> str | None:
    """Return the class of another corpus' word: one that is no keyword is an unknown word.

    >>> classes = Classes(("yes", "_unknown_", "_silence_"), {}, "keyword")
    >>> same_word("Yes", classes), same_word("nine", classes), same_word("silence", classes)
    ('yes', '_unknown_', '_silence_')
    """
    plain = name.strip().lower()
    alike = next((ours for ours in classes.names if ours.strip("_").lower() == plain.strip("_")), None)
    return alike or (OTHER_WORD if OTHER_WORD in classes.names else None)


def score(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, float]:
    """Return accuracy, and the mean recall of the classes."""
    truth, predictions = outcome.references, outcome.predictions
    return {
        "acc": metrics.accuracy(truth, predictions),
        "ua": metrics.unweighted_accuracy(truth, predictions, vocabulary["classes"]),
    }


def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return the recall of each class that the split has."""
    counts = metrics.confusion_matrix(outcome.references, outcome.predictions, vocabulary["classes"])
    totals, right = counts.sum(axis=1), np.diagonal(counts)
    rows = zip(vocabulary["classes"], right.tolist(), totals.tolist(), strict=True)
    return {"recall": {name: round(hits / count, 3) for name, hits, count in rows if count}}


# each split has its own stretches of the noise files, which are the silence
QUESTION = replace(question_of_classes("ks", "keyword", METRICS, score, same_word), details=details, shares=("recordings",))
