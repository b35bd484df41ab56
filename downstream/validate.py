"""What an expert answers and scores, as run folders keep it: looked at on dev before all of the steps are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .answer import fits, fitting
from .base import Outcome


def unfit_answer(vocabulary: Mapping[str, Any], outcome: Outcome) -> str:
    """Return what is wrong with the first answer that a table of predictions has no place for; "" where all fit."""
    for source, values in (("Expert.reference", outcome.references), ("Expert.decode", outcome.predictions)):
        wrong = [value for value in values if not fits(vocabulary, value)]
        if wrong:
            return f"Expected {fitting(vocabulary)} of each utterance from {source}, found {_short(wrong[0])}. Return that."
    return ""


def unfit_scores(metrics: Mapping[str, str], found: Any, told: str) -> str:
    """Return which declared metric is no number among the scores that a function gave; "" where all are."""
    given = found if isinstance(found, Mapping) else {}
    missing = [name for name in metrics if not isinstance(given.get(name), float | int)]
    if not missing:
        return ""
    words, gives = ", ".join(f"'{name}'" for name in missing), ", ".join(map(str, given)) or "no metric"
    return (
        f"Expected a number for {words} from {told}, found {given.get(missing[0])!r}. It gives {gives}. "
        "Add it there, or take it out of Question.metrics."
    )


def _short(value: Any) -> str:
    words = " ".join(repr(value).split())
    return f"{words[:60]}{'…' * (len(words) > 60)} ({type(value).__name__})"
