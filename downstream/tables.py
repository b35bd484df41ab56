"""The tables of a corpus that a question is scored with: trial lists, rttm, a lexicon."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from ..core.errors import UserError
from ..corpus.base import Corpus
from .base import Question, Tables


def tables_of(question: Question, corpus: Corpus, split: str) -> Tables:
    """Return the tables of a split that a question is scored with, as json gives them back: a run folder keeps them."""
    there = corpus.tables_of(split)
    if not {*question.tables} <= {*there}:
        there = {**question.make_tables(f"split '{split}' of {corpus.name}", corpus.splits[split]), **there}
    missing = [name for name in question.tables if name not in there]
    if missing:
        known = ", ".join(there) or "none"
        raise UserError(
            f"Expected a table '{missing[0]}' of split '{split}' of {corpus.name}, which {question.name} is scored with, found "
            f"{known}. Choose a corpus that has it with --corpus."
        )
    try:
        return json.loads(json.dumps({name: there[name] for name in question.tables}))
    except TypeError as problem:
        raise UserError(
            f"Expected the tables {', '.join(question.tables)} of {corpus.name} as json holds them (dicts with words as keys, "
            f"lists, words, numbers), found that it cannot: {problem}. Mend the corpus' reader."
        ) from None


def join_tables(parts: Sequence[Tables]) -> Tables:
    """Return the tables of several runs' splits as one: dicts united, lists put one behind the other, each once."""
    return {name: _joined(name, [part[name] for part in parts]) for name in (parts[0] if parts else ())}


def _joined(name: str, tables: Sequence[Any]) -> Any:
    different: list[Any] = []
    for table in tables:
        if table not in different:
            different.append(table)
    if len(different) == 1:
        return different[0]
    if all(isinstance(table, Mapping) for table in different):
        return {key: value for table in different for key, value in table.items()}
    if all(isinstance(table, list) for table in different):
        return list(chain(*different))
    raise UserError(f"Expected the table '{name}' of all runs to be dicts or lists, found others that differ. Name a single run.")
