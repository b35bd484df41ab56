"""The emotion expert: linear -> mean -> linear over the weighted sum (of each modality), cross entropy."""

from __future__ import annotations

from ..base import Task
from ..classification import LINEAR, ClassifierConfig, build_classifier
from .question import QUESTION

TASK = Task(
    name="emotion",
    options=ClassifierConfig,
    question=lambda _: QUESTION,
    build=build_classifier,
    linear=LINEAR,
)
