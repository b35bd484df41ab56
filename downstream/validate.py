"""Answers and scores that a run folder has no place for: found on dev, before all of the steps are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .answer import Answer
from .base import Outcome


def prediction_problem(answer: Answer, outcome: Outcome) -> str:
    """Return what is wrong with the first prediction that a table has no place for; "" where all fit."""
    for source, values in (("Question.reference", outcome.references), ("Expert.decode", outcome.predictions)):
        wrong = [value for value in values if not answer.fits(value)]
        if wrong:
            return f"Expected {answer.wanted} of each utterance from {source}, found {_short(wrong[0])}. Return that."
    return ""


def score_problem(metrics: Mapping[str, str], found: Any) -> str:
    """Return which declared metric is no number among the scores of a split; "" where all are."""
    given = found if isinstance(found, Mapping) else {}
    missing = [name for name in metrics if not isinstance(given.get(name), float | int)]
    if not missing:
        return ""
    missing_names, gives = ", ".join(f"'{name}'" for name in missing), ", ".join(map(str, given)) or "no metric"
    return (
        f"Expected a number for {missing_names} from Question.score, found {given.get(missing[0])!r}. It gives {gives}. "
        "Add it there, or take it out of Question.metrics."
    )


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return f"{text[:60]}{'…' * (len(text) > 60)} ({type(value).__name__})"
