"""The speaker identification expert: linear -> mean -> linear, cross entropy, on crops of eight seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ...core.options import ABOVE_0
from ...upstream.base import UpstreamSpec
from ..base import Task
from ..classification import LINEAR, Classifier, ClassifierConfig, build_classifier
from .question import QUESTION


@dataclass(frozen=True)
class SidConfig(ClassifierConfig):
    """The `sid:` section."""

    crop_seconds: Annotated[float, ABOVE_0] | None = 8.0  # seconds used of a longer utterance in a training step; None: all


def build(options: SidConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Classifier:
    """Return the expert for a vocabulary and what the upstreams promise."""
    return build_classifier(options, vocabulary, specs, crop_seconds=options.crop_seconds)


TASK = Task(name="sid", options=SidConfig, question=lambda _: QUESTION, build=build, linear={**LINEAR, "crop_seconds": None})
