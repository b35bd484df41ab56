"""The device-directed speech expert: linear -> mean of each modality, put together -> linear, cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

from ..base import Task
from ..classification import LINEAR, ClassifierConfig, build_classifier
from .question import QUESTION


@dataclass(frozen=True)
class DsdConfig(ClassifierConfig):
    """The `dsd:` section."""

    operating_point: str = "eer"  # eer, frr=0.05, far=0.01 or a threshold: placed on dev, kept for test and predict


TASK = Task(name="dsd", options=DsdConfig, question=lambda _: QUESTION, build=build_classifier, linear=LINEAR)
