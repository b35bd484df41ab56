"""The diarization error rate: speech that is missed, made up or given to another speaker, over all speech."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...corpus.rttm import Turn


@dataclass(frozen=True)
class Errors:
    """Seconds of a recording; where two speak at once, seconds count twice."""

    missed: float
    alarms: float
    confused: float
    speech: float


@lru_cache(maxsize=2**16)  # an interval counts the same recordings a thousand times
def count_errors(
    references: tuple[Turn, ...], predictions: tuple[Turn, ...], collar: float = 0.0, *, skip_overlap: bool = False
) -> Errors:
    """Return the errors of a recording, the speakers matched so that they agree for longest.

    `collar`: seconds before and after each end of a true turn that do not count. `skip_overlap`: nor does what several say.
    """
    truth, guess = united(references), united(predictions)
    names, others = sorted({turn[0] for turn in truth}), sorted({turn[0] for turn in guess})
    edges = {point for _, start, end in (*truth, *guess) for point in (start, end)}
    ends = {point for _, start, end in truth for point in (start, end)}
    if collar:
        edges |= {point + side for point in ends for side in (-collar, collar)}
    points = np.array(sorted(edges))
    if len(points) < 2:
        return Errors(0.0, 0.0, 0.0, 0.0)
    middles, seconds = (points[1:] + points[:-1]) / 2, np.diff(points)
    said, found = _active(truth, names, middles), _active(guess, others, middles)
    counted = np.ones(len(middles), bool)
    if collar and ends:
        near = np.array(sorted(ends))
        counted &= np.abs(middles[:, None] - near[None]).min(axis=1) > collar
    if skip_overlap:
        counted &= said.sum(axis=1) < 2
    seconds = seconds * counted
    together = (said * seconds[:, None]).T @ found  # (speaker, predicted speaker): seconds in which both are active
    right = _matched(said, found, together)
    num_said, num_found = said.sum(axis=1), found.sum(axis=1)
    return Errors(
        missed=float(seconds @ np.maximum(num_said - num_found, 0)),
        alarms=float(seconds @ np.maximum(num_found - num_said, 0)),
        confused=float(seconds @ (np.minimum(num_said, num_found) - right)),
        speech=float(seconds @ num_said),
    )


def _matched(said: np.ndarray, found: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Return how many of the speakers of each stretch are found, matched one to one."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-together)
    return (said[:, rows] * found[:, columns]).sum(axis=1)


def united(turns: Iterable[Turn]) -> list[Turn]:
    """Return turns in which no speaker overlaps himself."""
    by_speaker: dict[str, list[Turn]] = {}
    for speaker, start, end in sorted(turns, key=lambda turn: (turn[0], turn[1])):
        own = by_speaker.setdefault(speaker, [])
        if own and start <= own[-1][2]:
            own[-1] = (speaker, own[-1][1], max(end, own[-1][2]))
        else:
            own.append((speaker, start, end))
    return [turn for own in by_speaker.values() for turn in own]


def _active(turns: Sequence[Turn], names: Sequence[str], moments: np.ndarray) -> np.ndarray:
    """Return 1 where a speaker is active: (moment, speaker)."""
    found = np.zeros((len(moments), len(names)))
    for speaker, start, end in turns:
        found[(moments > start) & (moments < end), names.index(speaker)] = 1
    return found


def error_rate(errors: Sequence[Errors]) -> float:
    """Return the error rate of a whole split; no number where nobody speaks."""
    speech = sum(one.speech for one in errors)
    wrong = sum(one.missed + one.alarms + one.confused for one in errors)
    return wrong / speech if speech else float("nan")
