"""Distillation as a question: how far from the teacher's frames are those that were made of the upstream's?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...corpus.base import Corpus
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig
from ..teaching import Sums, everybody, no_target, without_labels

SUMS = ("frames", "l1", "cosine", "distance")  # each but the count is a mean over the teacher's layers, summed over frames


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:  # noqa: ARG001
    """Return nothing: means and deviations lie with the weights."""
    without_labels("distil", labels, corpus)
    return {}


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return the means over all frames of a split."""
    assert outcome.scores is not None, "distil decodes sums"
    frames, *sums = outcome.scores.double().sum(dim=0).tolist()
    return {name: value / max(frames, 1) for name, value in zip(SUMS[1:], sums, strict=True)}


QUESTION = Question(
    name="distil",
    metrics={"distance": "lower", "l1": "lower", "cosine": "higher"},
    primary_metric="distance",
    make_vocabulary=make_vocabulary,
    select=everybody,
    target=no_target,
    answer=lambda _: Sums(SUMS),
    score=score,
    label=False,
    needs_labels=False,
)
