"""The threshold that dev places in a task's vocabulary, and the mean of several runs'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

THRESHOLD = "threshold"  # its key in a vocabulary


def mean_threshold(vocabularies: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of the thresholds that dev placed in several runs."""
    return sum(vocabulary[THRESHOLD] for vocabulary in vocabularies) / len(vocabularies)
