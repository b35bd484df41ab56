"""Tasks: one folder each, and what their experts are built of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.faces import public_name, public_names

if TYPE_CHECKING:
    from .answer import Answer, OneClass, Ratings, Text, mean_by_seconds
    from .base import Expert, Outcome, Output, Question, Tables, Task
    from .classification import build_classifier, question_of_classes
    from .heads import Pooled, masked_mean
    from .labels import Classes
    from .load import list_tasks, load_task
    from .metrics import accuracy, concordance, equal_error_rate, macro_f1, pearson, rmse, unweighted_accuracy

FACE = {
    "base": "Expert Outcome Output Question Tables Task",
    "answer": "Answer OneClass Ratings Text mean_by_seconds",
    "classification": "build_classifier question_of_classes",
    "heads": "Pooled masked_mean",
    "labels": "Classes",
    "load": "list_tasks load_task",
    "metrics": "accuracy concordance equal_error_rate macro_f1 pearson rmse unweighted_accuracy",
}
__all__ = public_names(FACE)


def __getattr__(name: str) -> Any:
    return public_name(__name__, FACE, name)
