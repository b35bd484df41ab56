"""The keyword spotting expert: linear -> mean -> linear, cross entropy, classes drawn alike."""

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
class KsConfig(ClassifierConfig):
    """The `ks:` section."""

    even_classes: bool = True  # training draws each class as often: most clips are of unknown words
    crop_seconds: Annotated[float, ABOVE_0] | None = 1.0  # seconds used of a longer clip (noise) in a training step; None: all


def build(options: KsConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Classifier:
    """Return the expert for a vocabulary and what the upstreams promise."""
    crop_seconds = options.crop_seconds
    return build_classifier(options, vocabulary, specs, crop_seconds=crop_seconds, even_classes=options.even_classes)


TASK = Task(name="ks", options=KsConfig, question=lambda _: QUESTION, build=build, linear={**LINEAR, "crop_seconds": None})
