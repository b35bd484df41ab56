"""The kind of answer: turns, decided from how likely each speaker is active in each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, permutations
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...core.errors import UserError
from ...corpus.rttm import Turn
from ..answer import Answer, Graph, Rows, Window

NOBODY = "nobody speaks"  # in place of turns, in a table
LINKED_SECONDS = 1.0  # on both sides of a cut, by which speakers of two windows are matched


@dataclass(frozen=True)
class Spoken:
    """The turns of a recording, and how likely each speaker is active in each frame, where that is known."""

    turns: tuple[Turn, ...]
    activity: NDArray | None = field(default=None, compare=False, repr=False)  # (frame, speaker)
    frame_seconds: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        """Return the turns as a table has them: speaker and seconds, `;` between turns."""
        return NOBODY if not self.turns else "; ".join(f"{speaker} {start:.3f} {end:.3f}" for speaker, start, end in self.turns)

    @classmethod
    def parsed(cls, text: str) -> Spoken:
        """Return the turns that `str` wrote."""
        parts = [part.rsplit(" ", 2) for part in text.split("; ") if part not in ("", NOBODY)]
        return cls(tuple((speaker, float(start), float(end)) for speaker, start, end in parts))


def turns_of(activity: NDArray, frame_seconds: float, threshold: float, median: int) -> tuple[Turn, ...]:
    """Return the turns of frames above a threshold, each speaker's smoothed by the median of so many frames."""
    from scipy.ndimage import median_filter

    active = activity > threshold
    if median > 1:
        active = median_filter(active.astype(np.uint8), size=(median, 1), mode="constant").astype(bool)
    found: list[Turn] = []
    for speaker, column in enumerate(active.T, start=1):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(np.int8), [0]])))
        found += [
            (f"speaker{speaker}", round(start * frame_seconds, 3), round(end * frame_seconds, 3))
            for start, end in edges.reshape(-1, 2).tolist()
        ]
    return tuple(sorted(found, key=lambda turn: turn[1:]))


@dataclass(frozen=True)
class Turns(Answer):
    """Who speaks when; the speakers of a recording have numbers, no names."""

    speakers: int
    threshold: float = 0.5
    median: int = 1  # frames
    frame_seconds: float = 0.02
    kind: ClassVar[str] = "turns"
    column: ClassVar[str | None] = "turns"

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return "the turns of a recording (Spoken)"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is turns."""
        return isinstance(value, Spoken)

    def decide(self, rows: Rows) -> tuple[Spoken, ...]:
        """Return the turns of each recording, decided anew where activities are known."""
        found = []
        for row in rows:
            assert isinstance(row, Spoken), f"expected the turns of a recording, found {type(row).__name__}"
            if row.activity is not None:
                turns = turns_of(row.activity, row.frame_seconds, self.threshold, self.median)
                row = Spoken(turns, row.activity, row.frame_seconds)
            found.append(row)
        return tuple(found)

    def average(self, windows: Sequence[Window]) -> Spoken:
        """Return a long file's windows as one: the speakers of each are matched with those before it where the file was cut.

        A window has a frame or so less than its seconds would hold: its last one is repeated up to the next window's start.
        """
        parts = [window for _, window in windows]
        joined, hop = parts[0].activity, parts[0].frame_seconds
        reach = max(1, round(LINKED_SECONDS / hop)) if hop else 1
        starts = accumulate(seconds for seconds, _ in windows)
        for start, part in zip(starts, parts[1:], strict=False):
            before, after = joined[-reach:].mean(axis=0), part.activity[:reach].mean(axis=0)
            order = max(permutations(range(len(after))), key=lambda places: float(before @ after[[*places]]))
            first = round(start / hop) if hop else len(joined)
            gap = np.repeat(joined[-1:], max(0, first - len(joined)), axis=0)
            joined = np.concatenate([joined[:first], gap, part.activity[:, [*order]]])
        return Spoken((), joined, hop)

    @property
    def of_silence(self) -> Spoken:
        """Nobody speaks where there is no sound."""
        return Spoken(())

    def read(self, row: Mapping[str, str], kind: str) -> Spoken:
        """Return the turns that stand in a line of a table."""
        return Spoken.parsed(row[kind])

    def describe(self) -> str:
        """Return how many speakers there are at most."""
        return f"who speaks when: turns of up to {self.speakers} speakers, who have numbers and no names."

    def graph(self) -> Graph:
        """Return the end of a graph: how likely each speaker is active, frame by frame."""
        facts = {"threshold": self.threshold, "median_frames": self.median, "frame_seconds": self.frame_seconds}
        reading = "a speaker is active in frames above threshold, after a median over median_frames"
        windows = "each begins at its own time in the file; match their speakers by the second on both sides of a cut"
        return Graph("activity", [1, "frames", self.speakers], facts, reading, windows, Tensor.sigmoid)


def refuse_many(speakers: int) -> None:
    """Refuse more speakers than permutations can be tried of."""
    if speakers > MOST_SPEAKERS:
        raise UserError(
            f"Expected at most {MOST_SPEAKERS} speakers in a recording, since all their orders are compared, found {speakers}. "
            f"Cut recordings shorter (-o corpus.options.chunk_seconds=10), or set -o sd.speakers={MOST_SPEAKERS}: the others "
            "then count as missed."
        )


MOST_SPEAKERS = 6
ORDERS = {count: torch.tensor([*permutations(range(count))]) for count in range(1, MOST_SPEAKERS + 1)}
