"""A metric over many draws of speakers at once, where sums over each speaker's utterances or one ranking decide it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...downstream.answer import Answer
from ...downstream.base import Outcome

_CELLS = 2_000_000  # numbers of one table at once
Curve = Callable[[NDArray, NDArray], NDArray]  # false alarms and misses by falling threshold: (draw, place) -> (draw,)
Sides = tuple[Sequence[Outcome], Sequence[Outcome]]  # two systems' predictions for the same utterances in the same order, by seed


@dataclass(frozen=True)
class Gap:
    """How far the second side is above the first in one metric, on draws of units and with units swapped."""

    drawn: Callable[[NDArray], float]  # numbers of the units drawn, with repetitions
    swapped: Callable[[NDArray], NDArray]  # (swap, unit): True where the sides change places -> one value for each swap
    second: Callable[[NDArray], float]  # what the second side alone scores on the units drawn


@dataclass(frozen=True)
class Tally:
    """A metric as sums: what each utterance adds to them, and the metric of the sums."""

    rows: Callable[[Answer, Outcome], NDArray]  # (utterance, statistic)
    value: Callable[[NDArray], NDArray]  # (…, statistic) -> (…)


def tallied(tally: Tally, answer: Answer, sides: Sides, units: NDArray[np.intp]) -> Gap | None:
    """Return a metric's gap from sums over the units, averaged over seeds; None where predictions lack what it adds up."""
    sums = []
    for side in sides:
        of_side = []
        for outcome in side:
            try:
                rows = tally.rows(answer, outcome)
            except (KeyError, ValueError, IndexError, TypeError, AttributeError):
                return None  # a metric of the same name, of another task
            total = np.zeros((int(units.max()) + 1, rows.shape[1]))
            np.add.at(total, units, rows)
            of_side.append(total)
        sums.append(np.stack(of_side))  # (seed, unit, statistic)
    first, second = sums
    change, whole = second - first, (first.sum(axis=1, keepdims=True), second.sum(axis=1, keepdims=True))

    def drawn(chosen: NDArray) -> float:
        """Return the gap on one draw."""
        counts = np.bincount(chosen, minlength=first.shape[1]).astype(float)
        return float(np.mean(tally.value(counts @ second) - tally.value(counts @ first)))

    def swapped(masks: NDArray) -> NDArray:
        """Return the gap with units swapped: (swap,)."""
        moved = masks.astype(float) @ change  # (seed, swap, statistic)
        return np.mean(tally.value(whole[1] - moved) - tally.value(whole[0] + moved), axis=0)

    def alone(chosen: NDArray) -> float:
        """Return what the second side scores on one draw."""
        return float(np.mean(tally.value(np.bincount(chosen, minlength=first.shape[1]).astype(float) @ second)))

    return Gap(drawn, swapped, alone)


def ranked(value: Curve, answer: Answer, sides: Sides, units: NDArray[np.intp]) -> Gap | None:
    """Return the gap of a metric of one ranking, by the score of the second of two classes; None where there are not two."""
    pairs = list(zip(*sides, strict=True))
    if len(answer.classes) != 2 or any(side.scores is None for pair in pairs for side in pair):
        return None
    rankings = [_ranking(first, second, answer.classes[1], units) for first, second in pairs]

    def gaps(kept: NDArray, moved: NDArray) -> NDArray:
        """Return the gap where units count so often for their own side, and for the other one: (draw, unit) -> (draw,)."""
        found = []
        for ranking in rankings:
            own, other = kept[:, ranking.unit], moved[:, ranking.unit]
            of_second = value(*ranking.rates(np.where(ranking.is_second, own, other)))
            found.append(of_second - value(*ranking.rates(np.where(ranking.is_second, other, own))))
        return np.mean(found, axis=0)

    def drawn(chosen: NDArray) -> float:
        """Return the gap on one draw."""
        counts = np.bincount(chosen, minlength=int(units.max()) + 1)[None].astype(float)
        return float(gaps(counts, np.zeros_like(counts))[0])

    def swapped(masks: NDArray) -> NDArray:
        """Return the gap with units swapped: (swap,)."""
        pieces = np.array_split(masks.astype(float), -(-masks.shape[0] * 2 * len(units) // _CELLS))
        return np.concatenate([gaps(1 - piece, piece) for piece in pieces])

    def alone(chosen: NDArray) -> float:
        """Return what the second side scores on one draw."""
        counts = np.bincount(chosen, minlength=int(units.max()) + 1).astype(float)
        own = [np.where(ranking.is_second, counts[ranking.unit], 0.0)[None] for ranking in rankings]
        return float(np.mean([value(*ranking.rates(of_seed)) for ranking, of_seed in zip(rankings, own, strict=True)]))

    return Gap(drawn, swapped, alone)


@dataclass(frozen=True)
class Ranking:
    """Both sides' predictions on one test in one order, by falling score."""

    unit: NDArray[np.intp]
    is_second: NDArray[np.bool_]
    is_positive: NDArray[np.bool_]
    last: NDArray[np.intp]  # places of the last of equal scores

    def rates(self, counts: NDArray) -> tuple[NDArray, NDArray]:
        """Return alarms and misses from accepting nothing to everything, by how often predictions count: (draw, place)."""
        hits, alarms = (np.cumsum(counts * kind, axis=1)[:, self.last] for kind in (self.is_positive, ~self.is_positive))
        start = np.zeros((len(counts), 1))
        with np.errstate(invalid="ignore"):  # a draw of one class has no rate: not a number
            return np.hstack([start, alarms / alarms[:, -1:]]), np.hstack([start + 1, 1 - hits / hits[:, -1:]])


def _ranking(first: Outcome, second: Outcome, name: str, units: NDArray[np.intp]) -> Ranking:
    scores = np.concatenate([np.asarray(side.scores[:, 1], np.float64) for side in (first, second) if side.scores is not None])
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    is_second = np.arange(len(scores)) >= len(units)
    return Ranking(np.tile(units, 2)[order], is_second[order], np.tile(np.asarray(first.references) == name, 2)[order], last)
