"""Find near-identical audio: a copy with another gain, another start by a few milliseconds, or another sample rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .sound import NOTHING, Sound, agreement

LIKELY = 0.8  # cosine of two fingerprints above which their waveforms are compared
SAME = 0.75  # correlation of two waveforms above which they are one recording
MOST_COMPARED = 3000  # pairs whose waveforms are compared: the likeliest
_ROWS = 256  # of fingerprints that are compared at once


@dataclass(frozen=True)
class Pair:
    """Two utterances that are one recording."""

    first: int  # row
    second: int
    correlation: float


def likely_pairs(sounds: Sequence[Sound]) -> list[tuple[int, int, float]]:
    """Return pairs of rows whose fingerprints agree and that are about as long, the likeliest first.

    Sorted by duration, each is compared with those that are at most 50 ms or 2 % longer.
    """
    seconds = np.array([sound.seconds for sound in sounds])
    prints = np.stack([sound.fingerprint for sound in sounds]).astype(np.float32)
    heard = np.array([sound.peak > NOTHING for sound in sounds])
    prints = normed(prints - prints[heard].mean(axis=0) * (heard.sum() >= 50)) if heard.any() else prints * 0
    order = np.array([row for row in np.argsort(seconds, kind="stable") if heard[row]], dtype=int)
    sorted_seconds, found = seconds[order], list[tuple[int, int, float]]()
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        last = sorted_seconds[min(start + _ROWS, len(order)) - 1]
        end = int(np.searchsorted(sorted_seconds, last + max(0.05, 0.02 * last), side="right"))
        others = order[start:end]
        cosines = prints[rows] @ prints[others].T
        longer = sorted_seconds[None, start:end] - sorted_seconds[start : start + len(rows), None]
        near = (cosines > LIKELY) & (longer <= np.maximum(0.05, 0.02 * sorted_seconds[start : start + len(rows), None]))
        near &= np.arange(len(others))[None] > np.arange(len(rows))[:, None]
        found += [(int(rows[a]), int(others[b]), float(cosines[a, b])) for a, b in np.argwhere(near)]
    return sorted(found, key=lambda pair: -pair[2])


def near_identical(sounds: Sequence[Sound], waveform: Callable[[int], NDArray]) -> list[Pair]:
    """Return the pairs that are one recording; `waveform` reads a row at 8 kHz."""
    found = []
    for first, second, _ in likely_pairs(sounds)[:MOST_COMPARED]:
        correlation = agreement(waveform(first), waveform(second))
        if correlation >= SAME:
            found.append(Pair(min(first, second), max(first, second), correlation))
    return found


def normed(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length one; what has no length stays nothing."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 1e-6)


def groups_of(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Return the number of each row's group: rows that are one recording, directly or through others, share it."""
    group = [*range(count)]

    def top(row: int) -> int:
        """Return the first row of a group."""
        while group[row] != row:
            row = group[row]
        return row

    for pair in pairs:
        first, second = sorted((top(pair.first), top(pair.second)))
        group[second] = first
    return [top(row) for row in range(count)]
