"""What an expert answers and scores, as run folders keep it: looked at on dev before all of the steps are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..downstream.base import Outcome
from ..errors import UserError
from .step import TaskData


def refuse_unfit(task: TaskData, outcome: Outcome) -> None:
    """Refuse answers that could not be written down at the end, and scores that lack a metric."""
    problem = unfit_answer(task.expert.vocabulary, outcome)
    if problem:
        raise UserError(f"Task '{task.name}': {problem}")
    for told, found in (
        ("Expert.score", task.expert.score(outcome)),
        ("Question.score", task.question.score(task.expert.vocabulary, outcome)),
    ):
        problem = unfit_scores(task.question.metrics, found, told)
        if problem:
            raise UserError(f"Task '{task.name}': {problem}")


def unfit_answer(vocabulary: Mapping[str, Any], outcome: Outcome) -> str:
    """Return what is wrong with the first answer that a table of predictions has no place for; "" where all fit."""
    for source, values in (("Expert.reference", outcome.references), ("Expert.decode", outcome.predictions)):
        wrong = [value for value in values if not fits(vocabulary, value)]
        if wrong:
            return f"Expected {fitting(vocabulary)} of each utterance from {source}, found {_short(wrong[0])}. Return that."
    return ""


def fitting(vocabulary: Mapping[str, Any]) -> str:
    """Return in words what `fits`."""
    if "dimensions" in vocabulary:
        names = ", ".join(map(str, vocabulary["dimensions"]))
        return f"a tuple of {len(vocabulary['dimensions'])} numbers (vocabulary['dimensions']: {names})"
    return "one of vocabulary['classes']" if "classes" in vocabulary else "a text"


def fits(vocabulary: Mapping[str, Any], value: Any) -> bool:
    """Tell whether a value is one that stands in a table: ratings, a class, or a text."""
    if "dimensions" in vocabulary:
        right = isinstance(value, tuple | list) and len(value) == len(vocabulary["dimensions"])
        return right and all(isinstance(number, float | int) for number in value)
    if "classes" in vocabulary:
        return isinstance(value, str | int) and value in vocabulary["classes"]
    return isinstance(value, str)


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
