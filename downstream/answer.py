"""What an answer is: a class, ratings, or a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def as_scored(vocabulary: Mapping[str, Any], scores: Tensor) -> tuple[Any, ...]:
    """Return the class of the highest score of each row; where dimensions are rated, the ratings themselves."""
    if "dimensions" in vocabulary:
        return tuple(tuple(row) for row in scores.double().tolist())
    return tuple(vocabulary["classes"][index] for index in scores.argmax(dim=-1).tolist())


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


def names_of(vocabulary: Mapping[str, Any]) -> list[str]:
    """Return what the scores of an answer are of: classes or rated dimensions; nothing, where a text is the answer."""
    return [*vocabulary.get("classes", ()), *vocabulary.get("dimensions", ())]


def _answer(row: Mapping[str, str], kind: str) -> Any:
    numbers = tuple(float(value) for key, value in row.items() if key.startswith(f"{kind}_"))
    return numbers or row[kind]
