"""Who speaks when: turns of a recording, as RTTM files have them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..core.errors import UserError
from .base import Utterance

Turn = tuple[str, float, float]  # speaker, start and end in seconds
LABEL = "turns"  # of Utterance.labels: the turns of an utterance, counted from its start


def read_rttm(path: Path) -> dict[str, list[Turn]]:
    """Return the turns of each recording that a file names, by start; lines of other kinds than SPEAKER are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"Expected lines of RTTM in {path}, found: {problem}. Check the file.") from None
    found: dict[str, list[Turn]] = {}
    for number, line in enumerate(lines, start=1):
        cells = line.split()
        if not cells or cells[0] != "SPEAKER":
            continue
        start, seconds = (_number(cells[place]) if len(cells) > place else math.nan for place in (3, 4))
        if len(cells) < 8 or not (start >= 0 and seconds >= 0):
            raise UserError(
                f"Expected lines such as 'SPEAKER file 1 0.50 1.25 <NA> <NA> name <NA> <NA>' in {path}, found '{line[:80]}' in "
                f"line {number}. Mend the line."
            )
        if seconds > 0:
            found.setdefault(cells[1], []).append((cells[7], start, start + seconds))
    return {name: sorted(turns, key=lambda turn: turn[1:]) for name, turns in found.items()}


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def rttm_lines(name: str, turns: Iterable[Turn]) -> list[str]:
    """Return the lines of a recording; spaces in its name would be other columns."""
    plain = "_".join(name.split())
    return [f"SPEAKER {plain} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>" for speaker, start, end in turns]


def pieces_of(utterance: Utterance, seconds: float, longest: float) -> list[Utterance]:
    """Return a recording of so many seconds in pieces of equal length, none longer than `longest`, each with its own turns."""
    count = max(1, math.ceil(seconds / longest - 1e-9))
    if count == 1:
        return [utterance]
    size = seconds / count
    return [
        replace(
            utterance,
            id=f"{utterance.id}#{place}",
            start=utterance.start + place * size,
            duration=size,
            labels={**utterance.labels, LABEL: turns_within(utterance.labels[LABEL], place * size, (place + 1) * size)},
        )
        for place in range(count)
    ]


def turns_within(turns: Sequence[Turn], start: float, end: float) -> list[Turn]:
    """Return what a stretch has of turns, counted from its start."""
    cut = [(speaker, max(begin, start) - start, min(stop, end) - start) for speaker, begin, stop in turns]
    return [turn for turn in cut if turn[2] > turn[1]]


def most_speakers(splits: Mapping[str, Sequence[Utterance]]) -> int:
    """Return how many speakers the recording with most of them has."""
    return max((len({turn[0] for turn in row.labels[LABEL]}) for rows in splits.values() for row in rows), default=0)
