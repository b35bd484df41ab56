"""What splits share: speakers, and audio under the same or another name."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence

from ..core.text import printable
from .base import Utterance
from .fingerprints import file_hashes, hashes_folder


def shared_speakers(rows: Iterable[Utterance], others: Iterable[Utterance]) -> set[str]:
    """Return the speakers, as far as they are known, who are in both."""
    return {row.speaker for row in rows if row.speaker} & {row.speaker for row in others if row.speaker}


def identical_files(paths: Iterable[str]) -> list[list[str]]:
    """Return the groups of files with the same bytes; only files of the same size are hashed, each once for all runs."""
    by_size: dict[int, list[str]] = {}
    for path in sorted({*paths}):
        by_size.setdefault(os.path.getsize(path), []).append(path)
    candidates = [path for group in by_size.values() if len(group) > 1 for path in group]
    if not candidates:
        return []
    by_hash: dict[str, list[str]] = {}
    for path, found in file_hashes(candidates, hashes_folder()).items():
        by_hash.setdefault(found, []).append(path)
    return sorted(sorted(group) for group in by_hash.values() if len(group) > 1)


def first_names(groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return each file of some groups -> the first of its group."""
    return {path: group[0] for group in groups for path in group}


def shared_audio(
    rows: Sequence[Utterance], others: Iterable[Utterance], names: Mapping[str, str], *, stretches: bool = False
) -> list[Utterance]:
    """Return the rows whose file is among those of others, by `first_names`; of `stretches` only those that overlap."""
    there: dict[str, list[tuple[float, float]]] = {}
    for row in others:
        there.setdefault(names.get(row.audio, row.audio), []).append(_span(row))
    found = []
    for row in rows:
        spans = there.get(names.get(row.audio, row.audio), [])
        start, end = _span(row)
        if spans and (not stretches or any(start < other_end and other < end for other, other_end in spans)):
            found.append(row)
    return found


def _span(row: Utterance) -> tuple[float, float]:
    return row.start, math.inf if row.duration is None else row.start + row.duration


def alike_note(names: Iterable[str]) -> str:
    """Return which classes differ in case or space alone, in a line; nothing where all are apart.

    >>> alike_note(["angry", "ANGRY", "sad"])
    "classes that differ in case or space alone: 'angry' and 'ANGRY'"
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(alike(name), []).append(f"'{printable(name)}'")
    twins = {key: " and ".join(group) for key, group in groups.items() if len(group) > 1}
    what = "case, space or the form of a number" if any(map(_is_number, twins)) else "case or space"
    return f"classes that differ in {what} alone: {', '.join(twins.values())}" if twins else ""


def alike(name: str) -> str:
    """Return what classes have in common that differ in case, space or the form of a number alone.

    >>> alike(" Very  SAD"), alike("2.0"), alike("02")
    ('very sad', '2.0', '2.0')
    """
    plain = " ".join(name.split()).casefold()
    return str(float(plain)) if _is_number(plain) else plain


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,15}(\.\d*)?", word, re.ASCII) is not None
