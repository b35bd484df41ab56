"""Distillation as a question: how far from the teacher's frames are those that were made of the upstream's?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..base import Outcome, Question, Tables
from ..teaching import TaughtConfig, taught_question

SUMS = ("frames", "l1", "cosine", "distance")  # each but the count is a mean over the teacher's layers, summed over frames


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return the means over all frames of a split."""
    assert outcome.scores is not None, "distil decodes sums"
    frames, *sums = outcome.scores.double().sum(dim=0).tolist()
    return {name: value / max(frames, 1) for name, value in zip(SUMS[1:], sums, strict=True)}


def question_of(options: TaughtConfig) -> Question:
    """Return the question with the stretches that the options request."""
    metrics: dict[str, Literal["higher", "lower"]] = {"distance": "lower", "l1": "lower", "cosine": "higher"}
    return taught_question("distil", options.longest, sums=SUMS, metrics=metrics, score=score)


QUESTION = question_of(TaughtConfig())
