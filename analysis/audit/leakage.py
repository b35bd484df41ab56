"""Detect what the splits of a corpus share: speakers, sessions, texts, files, and audio that is the same."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

NAMES = {  # kind -> what is shared
    "audio": "byte-identical audio",
    "near": "near-identical audio",
    "file": "audio files",
    "speaker": "speakers",
    "session": "sessions",
    "text": "texts",
}


@dataclass(frozen=True)
class Leak:
    """Tested utterances that share something with those of the training split or of dev."""

    kind: str
    rows: int  # tested utterances that share it
    of: int  # tested utterances where it is known
    values: int  # different ones that are shared
    of_values: int
    examples: tuple[str, ...]  # ids of a few such utterances


def leak(kind: str, folds: Sequence[Mapping[str, Sequence[tuple[str, Hashable | None]]]], split: str) -> Leak:
    """Return what is shared over some folds; each gives a split's (id, value), None where the value is not known."""
    shared: list[tuple[str, Hashable]] = []
    known: list[Hashable] = []
    for fold in folds:
        seen = {value for name, rows in fold.items() if name != split for _, value in rows if value is not None}
        tested = [(name, value) for name, value in fold.get(split, ()) if value is not None]
        known += [value for _, value in tested]
        shared += [(name, value) for name, value in tested if value in seen]
    values = {value for _, value in shared}
    return Leak(kind, len(shared), len(known), len(values), len({*known}), tuple(name for name, _ in shared[:5]))


def words_of(text: str | None) -> str | None:
    """Return a text without case, marks and spaces that make no difference; None where there is none.

    >>> words_of(" Don't  stop! "), words_of("…")
    ("don't stop", None)
    """
    return " ".join(re.findall(r"[\w']+", (text or "").lower())) or None
