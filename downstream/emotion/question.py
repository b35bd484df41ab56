"""Emotion as a question: one class of a few, scored over a whole split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from ...core.errors import UserError
from ...corpus.base import Corpus
from .. import classification, metrics
from ..base import Outcome, Question
from ..labels import Classes, LabelsConfig, label_key

METRICS: Mapping[str, Literal["higher", "lower"]] = {"wa": "higher", "ua": "higher", "macro_f1": "higher"}
PRIMARY_METRIC = "ua"


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:  # noqa: ARG001
    """Return the run's classes; the section's options do not change them."""
    return classification.make_vocabulary("emotion", labels, corpus)


# what corpora call the same emotion; a run is tested on another corpus through this table
SYNONYMS = (
    {"neu", "neutral", "n"},
    {"hap", "happy", "happiness", "joy", "h"},
    {"ang", "angry", "anger", "a"},
    {"sad", "sadness", "s"},
    {"fea", "fear", "fearful", "f"},
    {"dis", "disgust", "d"},
    {"sur", "surprise", "surprised", "u"},
    {"con", "contempt", "c"},
)


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the run's vocabulary for another corpus' labels, and a line that says what was matched and left out."""
    classes = Classes.from_vocabulary(vocabulary)
    if labels.keep and {*labels.keep} != {*classes.names}:
        raise UserError(
            f"Expected the run's own classes ({', '.join(classes.names)}), found labels.keep={labels.keep}. "
            "Leave it out: a run answers with the classes that it was trained on."
        )
    key = labels.column or label_key(corpus, "emotion")
    found = Counter(str(row.labels[key]) for rows in corpus.splits.values() for row in rows if row.labels.get(key) is not None)
    merge = labels.merge or {name: match for name in found if (match := same_emotion(name, classes)) and match != name}
    there = Classes(classes.names, merge, key)
    matched = {name: merge.get(name, name) for name in found if merge.get(name, name) in classes.names}
    if not matched:
        listed = ", ".join(sorted(found)) or "none"
        raise UserError(
            f"Expected labels of {corpus.name} among {', '.join(classes.names)}, found {listed}. "
            "Say which is which: -o labels.merge='{THEIRS: ours}'"
        )
    left = {name: count for name, count in found.items() if name not in matched}
    said = ", ".join(f"{theirs}={ours}" for theirs, ours in sorted(matched.items()))
    dropped = ", ".join(f"{name} ({count})" for name, count in sorted(left.items()))
    return {**vocabulary, **there.vocabulary(), "counts": dict(classes.counts)}, f"labels {said}" + (
        f"; left out {dropped}" if left else ""
    )


def same_emotion(name: str, classes: Classes) -> str | None:
    """Return the class that means the same as a corpus' label, if there is one."""
    if classes.merge.get(name, name) in classes.names:
        return classes.merge.get(name, name)
    alike = next((group for group in SYNONYMS if name.lower() in group), {name.lower()})
    return next((ours for ours in classes.names if ours.lower() in alike), None)


def score(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, float]:
    """Return weighted accuracy, unweighted accuracy and macro-F1 of a whole split."""
    truth, answers, classes = outcome.references, outcome.predictions, vocabulary["classes"]
    return {
        "wa": metrics.accuracy(truth, answers),
        "ua": metrics.unweighted_accuracy(truth, answers, classes),
        "macro_f1": metrics.macro_f1(truth, answers, classes),
    }


QUESTION = Question(
    name="emotion",
    metrics=METRICS,
    primary_metric=PRIMARY_METRIC,
    make_vocabulary=make_vocabulary,
    select=classification.select,
    score=score,
    adapt=adapt,
)
