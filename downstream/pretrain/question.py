"""Masked prediction as a question: the unit of each hidden frame, among those that a teacher's frames were clustered into."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...corpus.base import Corpus
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig
from ..teaching import Sums, everybody, no_target, without_labels

SUMS = ("hidden", "right", "nats", "visible", "visible_right")  # frames that were hidden, those guessed, -log p; those visible


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return how many units there are; their centroids are fitted before the first step, and lie with the weights."""
    without_labels("pretrain", labels, corpus)
    return {"units": options.units}


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return nats a hidden frame and the shares that were right of hidden and of visible frames, over a whole split."""
    assert outcome.scores is not None, "pretrain decodes sums"
    hidden, right, nats, visible, visible_right = outcome.scores.double().sum(dim=0).tolist()
    return {
        "nats": nats / hidden if hidden else math.nan,
        "accuracy": right / hidden if hidden else math.nan,
        "visible_accuracy": visible_right / visible if visible else math.nan,
    }


QUESTION = Question(
    name="pretrain",
    metrics={"nats": "lower", "accuracy": "higher", "visible_accuracy": "higher"},
    primary_metric="nats",
    make_vocabulary=make_vocabulary,
    select=everybody,
    target=no_target,
    answer=lambda _: Sums(SUMS),
    score=score,
    label=False,
    needs_labels=False,
)
