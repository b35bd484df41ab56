"""Slot filling as a question: what is said and which slots it fills, F1 of their names and error rate of their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ...core.errors import UserError
from ...corpus.base import Corpus, Utterance
from ..answer import Text
from ..base import Outcome, Question, Tables
from ..ctc import left_out
from ..labels import LabelsConfig, refuse_classes
from ..spelling import unseen_tokens
from .slots import TAGS, pieces_of, tokens_of, type_f1, value_errors, written

COLUMN = "tagged"  # of a table


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the characters and slots of a run, and which column tells them."""
    refuse_classes("sf", labels, "slots", allowed=("column",))
    vocabulary: dict[str, Any] = {"column": column_of(labels, corpus), "normalize": options.normalize}
    require_slots(vocabulary, corpus, ("train", "dev"))
    pieces = [piece for row in corpus.splits["train"] for piece in pieces_of(vocabulary, row) or ()]
    names = {name for name, _ in pieces if name} | {*corpus.tables.get("slots", ())}
    characters = {" ", *chain.from_iterable(words for _, words in pieces)}
    return {**vocabulary, "characters": sorted(characters), "slots": sorted(names)}


def tokens(vocabulary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a run can write: characters, and where each slot begins and ends."""
    return (*vocabulary["characters"], *(f"{mark}-{name}" for name in vocabulary["slots"] for mark in "BE"))


def column_of(labels: LabelsConfig, corpus: Corpus) -> str:
    """Return the column of texts with slots, or that of tags beside words."""
    if labels.column:
        return labels.column
    found = {key for split in corpus.splits.values() for row in split for key in row.labels}
    return COLUMN if COLUMN in found or TAGS not in found else TAGS


def require_slots(vocabulary: Mapping[str, Any], corpus: Corpus, splits: Sequence[str]) -> None:
    """Refuse a corpus without texts with slots, and a text that none can be read from."""
    for split in splits:
        rows = corpus.splits.get(split, ())
        texts = [pieces_of(vocabulary, row) for row in rows]
        if not any(texts):
            there = ", ".join(sorted({key for row in rows for key in row.labels})) or "none"
            raise UserError(
                f"Expected texts with slots in split '{split}' of {corpus.name}, found none in column '{vocabulary['column']}' "
                f"(columns there: {there}). Write them into a column 'tagged', such as `play [artist: the beatles] now` "
                "(or -o labels.column=HEADER), or words into 'text' and a tag for each into 'iob', such as `O artist artist O`."
            )


def select(vocabulary: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances of which it is known what is said and which slots it fills."""
    return [row for row in utterances if pieces_of(vocabulary, row) is not None]


def target(vocabulary: Mapping[str, Any], utterance: Utterance) -> str:
    """Return the text with slots of an utterance: its tokens get their numbers in the loss."""
    pieces = pieces_of(vocabulary, utterance)
    assert pieces is not None, f"'{utterance.id}' has no slots: select() leaves such utterances out"
    return written(pieces)


def notes(vocabulary: Mapping[str, Any], splits: Mapping[str, Sequence[Utterance]]) -> tuple[str, ...]:
    """Return a note that counts the utterances without a text with slots."""
    counts, rows = left_out(splits, lambda row: pieces_of(vocabulary, row) is not None)
    return (f"left out, nothing in column '{vocabulary['column']}': {counts} (the first: {rows[0].id})",) if rows else ()


def answer(vocabulary: Mapping[str, Any]) -> Text:
    """Return a text with slots in brackets as the kind of answer."""
    return Text(tokens(vocabulary), "tokens", "transcript with slots in brackets")


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return the mean F1 of slot names over utterances, and the character error rate of the words in slots of a whole split."""
    columns = (np.asarray(column).tolist() for column in (outcome.references, outcome.predictions))
    pairs = [*zip(*columns, strict=True)]
    edits, characters = np.sum([value_errors(*pair) for pair in pairs], axis=0)
    cer = float(edits / characters) if characters else float("nan")
    return {"slot_type_f1": float(np.mean([type_f1(*pair) for pair in pairs])), "slot_value_cer": cer}


def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return which characters and slots of a split no prediction can have."""
    pieces = chain.from_iterable(map(tokens_of, outcome.references))
    return unseen_tokens("characters and slots", tokens(vocabulary), pieces)


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the run's vocabulary with the column that holds another corpus' slots."""
    refuse_classes("sf", labels, "slots", allowed=("column",))
    adapted = {**vocabulary, "column": column_of(labels, corpus)}
    require_slots(adapted, corpus, [*corpus.splits])
    return adapted, f"slots of column '{adapted['column']}'"


QUESTION = Question(
    name="sf",
    metrics={"slot_type_f1": "higher", "slot_value_cer": "lower"},
    primary_metric="slot_type_f1",
    make_vocabulary=make_vocabulary,
    select=select,
    target=target,
    answer=answer,
    score=score,
    adapt=adapt,
    notes=notes,
    details=details,
    label=False,
)
