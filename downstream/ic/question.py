"""Intent classification as a question: a value for each slot, all of which must be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ...core.errors import UserError, nearest
from ...corpus.base import Corpus, Utterance
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig, refuse_classes
from .answer import Slots

SLOTS = ("action", "object", "location")  # of Fluent Speech Commands
NONE = "none"  # the value of a slot that an utterance does not fill
_MOST_NAMED = 5  # values named in a result


def question_of(slots: Sequence[str]) -> Question:
    """Return the question of some slots."""
    metrics: dict[str, Literal["higher", "lower"]] = {"acc": "higher", **{f"acc_{slot}": "higher" for slot in slots}}
    return Question(
        name="ic",
        metrics=metrics,
        primary_metric="acc",
        make_vocabulary=make_vocabulary,
        select=select,
        target=words_of,
        answer=lambda vocabulary: Slots({slot: tuple(values) for slot, values in vocabulary["slots"].items()}),
        score=score,
        adapt=adapt,
        details=details,
        label=False,
    )


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return each slot's values in the training split, in the corpus' own order."""
    refuse_classes("ic", labels, "slots")
    slots = tuple(options.slots)
    require_slots(slots, corpus)
    found = {slot: {word for row in corpus.splits["train"] for word in [words_of({"slots": [slot]}, row)[0]]} for slot in slots}
    for slot, values in found.items():
        if len(values) < 2:
            raise UserError(
                f"Expected at least two values of slot '{slot}' in the training split of {corpus.name}, found only "
                f"{', '.join(sorted(values))}. Leave it out: -o ic.slots='[{', '.join(name for name in slots if name != slot)}]'"
            )
    return {"slots": {slot: _ordered(values, corpus.label_order.get(slot, ())) for slot, values in found.items()}}


def _ordered(values: set[str], order: Sequence[str]) -> list[str]:
    return [*(value for value in order if value in values), *sorted(values - {*order})]


def require_slots(slots: Sequence[str], corpus: Corpus) -> None:
    """Refuse slots that no utterance of a corpus fills, slots named twice, and an empty training or dev split."""
    if not slots or len({*slots}) < len(slots):
        raise UserError(f"Expected ic.slots to name each slot once, found {list(slots)}. Such as -o ic.slots='[action, object]'")
    rows = [row for split in corpus.splits.values() for row in split]
    known = sorted({key for row in rows for key, value in row.labels.items() if isinstance(value, str | int)})
    for slot in slots:
        if slot not in known:
            raise UserError(
                f"Expected a column '{slot}' in {corpus.name}, found {', '.join(known) or 'no labels'}.{nearest(slot, known)} "
                "Say which columns are slots: -o ic.slots='[action, object]'"
            )
    for split in ("train", "dev"):
        if not corpus.splits.get(split):
            found = ", ".join(f"{name} {len(rows)}" for name, rows in corpus.splits.items())
            raise UserError(
                f"Expected utterances in split '{split}' of {corpus.name}, found none (splits: {found}). Check the corpus."
            )


def select(_: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return all utterances: a slot that is not filled has the value none."""
    return list(utterances)


def words_of(vocabulary: Mapping[str, Any], utterance: Utterance) -> tuple[str, ...]:
    """Return the value of each slot."""
    return tuple(str(utterance.labels.get(slot, NONE)).strip() or NONE for slot in vocabulary["slots"])


def score(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, float]:
    """Return the share of utterances whose slots are all right, and that of each slot."""
    slots = [*vocabulary["slots"]]
    shape = (len(outcome.ids), len(slots))
    right = np.asarray(outcome.references).reshape(shape) == np.asarray(outcome.predictions).reshape(shape)
    of_slots = {f"acc_{slot}": float(column.mean()) for slot, column in zip(slots, right.T, strict=True)}
    return {"acc": float(right.all(axis=1).mean()), **of_slots}


def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return which values of a split no prediction can have, since training had none of them: each is an error."""
    known = {(slot, value) for slot, values in vocabulary["slots"].items() for value in values}
    pairs = [pair for words in outcome.references for pair in zip(vocabulary["slots"], words, strict=True)]
    unseen = Counter(pair for pair in pairs if pair not in known)
    if not unseen:
        return {}
    named = ", ".join(f"{slot}={value} ({count})" for (slot, value), count in unseen.most_common(_MOST_NAMED))
    return {"values unseen in training": named + " …" * (len(unseen) > _MOST_NAMED)}


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the run's own vocabulary, once another corpus is found to have its slots."""
    refuse_classes("ic", labels, "slots")
    rows = [row for split in corpus.splits.values() for row in split]
    lacking = [slot for slot in vocabulary["slots"] if not any(slot in row.labels for row in rows)]
    if lacking:
        raise UserError(f"Expected the run's slots as columns of {corpus.name}, found no '{lacking[0]}'. Name the column so.")
    return dict(vocabulary), f"slots {', '.join(vocabulary['slots'])}"


QUESTION = question_of(SLOTS)
