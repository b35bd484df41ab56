"""Masked prediction as a question: the unit of each hidden frame, among those that a teacher's frames were clustered into."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from ..base import Outcome, Question, Tables
from ..teaching import TaughtConfig, taught_question

SUMS = ("hidden", "right", "nats", "visible", "visible_right")  # frames that were hidden, those guessed, -log p; those visible


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return nats a hidden frame and the shares that were right of hidden and of visible frames, over a whole split."""
    assert outcome.scores is not None, "pretrain decodes sums"
    hidden, right, nats, visible, visible_right = outcome.scores.double().sum(dim=0).tolist()
    return {
        "nats": nats / hidden if hidden else math.nan,
        "accuracy": right / hidden if hidden else math.nan,
        "visible_accuracy": visible_right / visible if visible else math.nan,
    }


def units_of(options: Any) -> dict[str, Any]:
    """Return how many units there are."""
    return {"units": options.units}


def question_of(options: TaughtConfig) -> Question:
    """Return the question with the stretches that the options request; centroids are fitted later, and lie with the weights."""
    metrics: dict[str, Literal["higher", "lower"]] = {"nats": "lower", "accuracy": "higher", "visible_accuracy": "higher"}
    return taught_question("pretrain", options.longest, sums=SUMS, metrics=metrics, score=score, make_vocabulary=units_of)


QUESTION = question_of(TaughtConfig())
