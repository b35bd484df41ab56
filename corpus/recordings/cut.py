"""Recordings cut into utterances: as a table says, in stretches of a stated length, or whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..audio import header_seconds
from ..base import Utterance
from .source import Recording

SHORTEST_REST = 1.0  # seconds: what is left at the end and shorter belongs to the stretch before


def utterances_of(recording: Recording, stretch: float | None, root: Path) -> list[Utterance]:
    """Return the utterances of a recording; those that name no end are cut where they are longer than a stretch."""
    rows = recording.stretches or (Utterance(short_name(recording.name, root), recording.name),)
    if stretch is None or all(row.duration is not None for row in rows):
        return list(rows)
    seconds = header_seconds(recording.name, None if recording.data is None else io.BytesIO(recording.data))
    return [cut for row in rows for cut in cut_row(row, seconds, stretch)]


def cut_row(row: Utterance, seconds: float, stretch: float) -> Iterator[Utterance]:
    """Yield the stretches of an utterance that goes on to the end of its file; one that is not longer stays as it is."""
    bounds = bounds_of(row.start, seconds, stretch)
    if row.duration is not None or len(bounds) < 2:
        yield row
        return
    for start, end in bounds:
        yield replace(row, id=f"{row.id}#{start:g}-{end:g}", start=start, duration=end - start)


def bounds_of(first: float, seconds: float, stretch: float) -> list[tuple[float, float]]:
    """Return start and end of each stretch, to the microsecond.

    >>> bounds_of(0.0, 70.5, 30.0)
    [(0.0, 30.0), (30.0, 60.0), (60.0, 70.5)]
    >>> bounds_of(0.0, 60.4, 30.0)
    [(0.0, 30.0), (30.0, 60.4)]
    """
    length = int((seconds - first) * 1e6) / 1e6
    count = max(1, int(length / stretch) + (length % stretch >= SHORTEST_REST))
    starts = [round(first + number * stretch, 6) for number in range(count)]
    return list(zip(starts, [*starts[1:], round(first + length, 6)], strict=True))


def short_name(name: str, root: Path) -> str:
    """Return a recording's name below the folder that its source lies in."""
    path = Path(name)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else name
