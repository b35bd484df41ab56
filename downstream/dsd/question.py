"""Device-directed speech as a question: labels, scores, and the threshold that dev places."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import UserError
from ...corpus.base import Corpus
from .. import classification, metrics
from ..answer import OneClass
from ..base import Outcome, Question, Tables
from ..labels import Classes, LabelsConfig, check_words, label_key, require_trainable
from .plot import det_plot

CLASSES = ("other", "directed")
LABELS_MEANT = {
    "directed": ("1", "true", "yes", "y", "directed", "device", "device-directed", "device_directed"),
    "other": (
        *("0", "false", "no", "n", "other", "undirected", "not directed", "not-directed", "not_directed"),
        *("non-directed", "non_directed", "nondirected", "non-device", "not device", "non-device-directed", "background"),
    ),
}
METRICS: Mapping[str, Literal["higher", "lower"]] = {
    "eer": "lower",  # equal error rate
    "auc": "higher",
    "acc": "higher",  # at threshold 0.5
    "acc_point": "higher",  # at the operating point, which dev chose
    "far": "lower",  # of the others, accepted at the operating point
    "frr": "lower",  # of the directed, rejected there
}


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the two classes with the corpus' words for them, and the operating point that dev will place."""
    parse_point(options.operating_point)
    if labels.keep is not None:
        raise UserError(f"Expected no labels.keep for dsd, whose classes are {' and '.join(CLASSES)}, found {labels.keep}.")
    key, found = column_and_labels(corpus, labels)
    check_words(labels.merge or (), found, corpus.name)
    classes = Classes(CLASSES, merge_of(found, labels, key, corpus.name), key)
    counts = Counter(name for name in map(classes.of, corpus.splits.get("train", ())) if name is not None)
    classes = replace(classes, counts={name: counts[name] for name in CLASSES})
    require_trainable(classes, corpus)
    require_both(classes, corpus)
    return {**classes.vocabulary(), "operating_point": options.operating_point, "threshold": 0.5}


def require_both(classes: Classes, corpus: Corpus) -> None:
    """Refuse a dev split of one class: no error rate exists there, and no threshold can be placed."""
    found = {name for row in corpus.splits["dev"] if (name := classes.of(row)) is not None}
    if len(found) < len(CLASSES):
        raise UserError(
            f"Expected both classes in split 'dev' of {corpus.name}, which places the operating point, "
            f"found {', '.join(found)} only. See `headwater corpus check`, or choose another protocol with -o corpus.protocol=…"
        )


def column_and_labels(corpus: Corpus, labels: LabelsConfig) -> tuple[str, Counter[str]]:
    """Return where the corpus keeps the label, and the words it uses."""
    key = labels.column or label_key(corpus, "directed")
    found = Counter(
        str(row.labels[key]) for rows in corpus.splits.values() for row in rows if row.labels.get(key) not in (None, "")
    )
    if not found:
        raise UserError(
            f"Expected a label '{key}' in {corpus.name}, found none. Name its column: -o corpus.options.columns.label=HEADER"
        )
    return key, found


def merge_of(found: Mapping[str, int], labels: LabelsConfig, key: str, corpus: str) -> dict[str, str]:
    """Return what each word of a corpus means; a word that nobody knows is refused."""
    meant = {word: name for name, words in LABELS_MEANT.items() for word in words}
    merge, unknown = {}, []
    for word in found:
        chosen = (labels.merge or {}).get(word, word)
        plain = str(chosen).strip().lower().removesuffix(".0")
        if plain in meant:
            merge[word] = meant[plain]
        else:
            unknown.append(word)
    if unknown:
        listed = ", ".join(f"{word} ({found[word]})" for word in sorted(found))
        raise UserError(
            f"Expected labels such as 1, true, yes, directed, device and 0, false, no, other in '{key}' of {corpus}, "
            # quoted: yaml takes a bare `on` for true
            f"found {listed}. Say what they mean: -o labels.merge='{{\"{sorted(unknown)[0]}\": directed}}'"
        )
    return merge


def parse_point(text: str) -> tuple[str, float]:
    """Return an operating point as what it fixes (eer, frr, far, threshold) and at which value.

    >>> parse_point("far=0.01")
    ('far', 0.01)
    """
    kind, _, value = text.partition("=")
    if kind == "eer" and not value:
        return "eer", 0.0
    number = value if kind in {"frr", "far"} else text
    try:
        parsed = float(number)
    except ValueError:
        parsed = math.nan
    if not 0 <= parsed <= 1:
        raise UserError(f"Expected operating_point eer, frr=0.05, far=0.01 or a threshold such as 0.5, found '{text}'.")
    return (kind if kind in {"frr", "far"} else "threshold"), parsed


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the vocabulary for another corpus' words."""
    key, found = column_and_labels(corpus, labels)
    merge = merge_of(found, labels, key, corpus.name)
    note = ", ".join(f"{word}={name}" for word, name in sorted(merge.items()))
    return {**vocabulary, "merge": merge, "key": key}, f"labels {note}"


def answer(vocabulary: Mapping[str, Any]) -> OneClass:
    """Return the kind of answer: 'directed' where its score reaches the threshold."""
    return OneClass(tuple(vocabulary["classes"]), vocabulary["threshold"])


def calibrate(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, Any]:
    """Return the vocabulary with the threshold that the predictions on dev place."""
    truth, scores = directed_and_scores(outcome)
    kind, value = parse_point(vocabulary["operating_point"])
    if kind == "threshold":
        threshold = value
    elif kind == "eer":
        threshold = metrics.equal_error_rate(truth, scores)[1]
    else:
        threshold = metrics.threshold_at(truth, scores, **{kind: value})
    return {**vocabulary, "threshold": float(threshold)}


def directed_and_scores(outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Return which utterances are directed (1), and their scores."""
    assert outcome.scores is not None, "scores are what this question is scored by"
    return np.array([name == CLASSES[1] for name in outcome.references], dtype=int), outcome.scores[:, 1].double().numpy()


def score(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, float]:  # noqa: ARG001
    """Return every metric of a whole split; those that need both classes are not a number where one is missing."""
    truth, scores = directed_and_scores(outcome)
    accepted = np.array([name == CLASSES[1] for name in outcome.predictions])
    both = 0 < truth.sum() < len(truth)
    return {
        "eer": metrics.equal_error_rate(truth, scores)[0] if both else math.nan,
        "auc": metrics.area_under_roc(truth, scores) if both else math.nan,
        "acc": float(np.mean((scores >= 0.5) == truth)),
        "acc_point": float(np.mean(accepted == truth)),
        "far": float(accepted[truth == 0].mean()) if not truth.all() else math.nan,
        "frr": float(1 - accepted[truth == 1].mean()) if truth.any() else math.nan,
    }


def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return the split's own EER threshold beside the one that dev chose."""
    truth, scores = directed_and_scores(outcome)
    both = 0 < truth.sum() < len(truth)
    own = {"eer_threshold": metrics.equal_error_rate(truth, scores)[1]} if both else {}
    return {**own, "operating_point": vocabulary["operating_point"], "threshold": vocabulary["threshold"]}


def draw(vocabulary: Mapping[str, Any], outcome: Outcome, stem: Path, marks: Sequence[str]) -> None:
    """Draw misses over false alarms, with the operating point."""
    truth, scores = directed_and_scores(outcome)
    if 0 < truth.sum() < len(truth):
        title = f"Misses and false alarms, {stem.name}"
        det_plot(truth, scores, vocabulary["threshold"], stem.with_name(f"det-{stem.name}.png"), title=title, marks=marks)


QUESTION = Question(
    name="dsd",
    metrics=METRICS,
    primary_metric="eer",
    make_vocabulary=make_vocabulary,
    select=classification.select,
    target=classification.target,
    reference=classification.reference,
    answer=answer,
    score=score,
    adapt=adapt,
    calibrate=calibrate,
    placed="threshold",
    details=details,
    draw=draw,
)
