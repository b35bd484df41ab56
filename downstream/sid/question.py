"""Speaker identification as a question: one of the speakers of the training split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ...core.errors import UserError
from ...corpus.base import Corpus
from .. import classification, metrics
from ..base import Outcome, Tables
from ..classification import question_of_classes
from ..labels import LabelsConfig, label_key

METRICS: Mapping[str, Literal["higher", "lower"]] = {"acc": "higher"}


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:  # noqa: ARG001
    """Return the speakers of the training split, who must be those of the other splits too."""
    if labels.keep is None:
        labels = replace(labels, keep=speakers_of(corpus, labels))
    return classification.make_vocabulary("speaker", labels, corpus)


def speakers_of(corpus: Corpus, labels: LabelsConfig) -> list[str] | None:
    """Return the speakers of all splits in order; refuse one who is not in training."""
    key, merge = labels.column or label_key(corpus, "speaker"), labels.merge or {}
    by_split = {
        split: {merge.get(str(row.labels[key]), str(row.labels[key])) for row in rows if row.labels.get(key) is not None}
        for split, rows in corpus.splits.items()
    }
    found = set().union(*by_split.values())
    unseen = sorted(found - by_split.get("train", set()))
    if unseen:
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        raise UserError(
            f"Expected every speaker of {corpus.name} in its training split, since sid chooses among those it was trained on, "
            f"found '{unseen[0]}'{more} in other splits only. Use a corpus whose splits share their speakers (voxceleb1), "
            "or name those to distinguish with labels.keep."
        )
    return sorted(found) or None


def score(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, float]:  # noqa: ARG001
    """Return the accuracy."""
    return {"acc": metrics.accuracy(outcome.references, outcome.predictions)}


QUESTION = replace(question_of_classes("sid", "speaker", METRICS, score), make_vocabulary=make_vocabulary, shares=("speakers",))
