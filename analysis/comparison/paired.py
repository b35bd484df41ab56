"""Two systems on the same utterances: by how much they differ, and how far chance alone would bring that about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...downstream import metrics
from ...downstream.answer import Answer
from ...downstream.base import Outcome, Question, Tables
from .resampling import Gap, Sides, ranked, tallied
from .tallies import RANKINGS, tallies_of

MOST_EXACT = 12  # units: up to so many, every way of swapping them is tried
SWAPS = 10_000  # drawn, where there are more
_AT_ONCE = 500  # swaps
SAME = 1e-9  # rounding: two ways to one number
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Difference:
    """A metric of the second side minus that of the first, over the same utterances."""

    first: float  # mean over seeds
    second: float
    spread: float | None  # of the difference over seeds; None: one seed
    interval: tuple[float, float] | None  # 95 %, of the difference over draws of speakers; None: too few, or not known
    p: float | None  # of a difference as large, were both sides one system; None: the metric is not defined here

    @property
    def value(self) -> float:
        """The difference."""
        return self.second - self.first

    @property
    def holds_0(self) -> bool:
        """False where the interval leaves out 0; what rounding left of a zero is one."""
        return self.interval is None or (self.interval[0] < SAME and self.interval[1] > -SAME)


@dataclass(frozen=True)
class Discordant:
    """Utterances that only one of two sides predicted correctly."""

    first: int
    second: int
    metric: str | None = None  # that is the share of such predictions; None: no metric of the task is

    @property
    def p(self) -> float:
        """McNemar's exact p: both kinds alike, utterances as if they knew nothing of each other."""
        from scipy.special import bdtr

        pairs = self.first + self.second
        return min(1.0, 2 * float(bdtr(min(self.first, self.second), pairs, 0.5))) if pairs else 1.0


def differences(
    sides: Sides,
    speakers: Sequence[str],
    question: Question,
    vocabulary: Mapping[str, Any],
    tables: Tables,
    other: Mapping[str, Any] | None = None,  # the second side's vocabulary, where its predictions are of another space
) -> dict[str, Difference]:
    """Return how the second side differs from the first in each metric of the question.

    Speakers are drawn for the interval (metrics.bootstrap_interval), and change sides for p; where they are not known,
    utterances do, and there is no interval. One draw, and one swap, is of all seeds.
    """
    known = all(speakers)
    names, units = np.unique(np.asarray(speakers if known else range(len(speakers)), dtype=str), return_inverse=True)
    answer = question.answer(vocabulary)
    if not answer.exchangeable:
        return unswapped(sides, speakers if known else None, question, (vocabulary, other or vocabulary), tables)

    def score(outcome: Outcome) -> Scores:
        """Return every metric of one side's predictions."""
        return question.score(vocabulary, outcome, tables)

    sides = ([outcome.columns(answer) for outcome in sides[0]], [outcome.columns(answer) for outcome in sides[1]])
    whole = [[score(outcome) for outcome in side] for side in sides]
    slow = Rescored(sides, units, score)
    found = {}
    for metric in question.metrics:
        gap = quick_gap(metric, sides, units, answer, slow) or slow.gap(metric)
        first, second = ([scores[metric] for scores in side] for side in whole)
        value = float(np.mean(second) - np.mean(first))
        p = None if np.isnan(value) else permutation_p(gap.swapped, value, len(names))
        found[metric] = difference(first, second, metrics.bootstrap_interval(gap.drawn, names.tolist()) if known else None, p)
    return found


def unswapped(
    sides: Sides,
    speakers: Sequence[str] | None,
    question: Question,
    vocabularies: tuple[Mapping[str, Any], Mapping[str, Any]],
    tables: Tables,
) -> dict[str, Difference]:
    """Return how the second side differs from the first, where predictions of one cannot stand for the other's.

    Then p is the level at which the interval would end at 0.
    """
    known: dict[bytes, Scores] = {}
    scorers = [
        [question.row_scorer(vocabulary, outcome, tables) for outcome in side]
        for vocabulary, side in zip(vocabularies, sides, strict=True)
    ]

    def gap(rows: NDArray) -> Scores:
        """Return the gap in every metric on a draw of rows, averaged over seeds."""
        if (key := short(rows)) not in known:
            before, after = ([scorer(rows) for scorer in side] for side in scorers)
            known[key] = {
                name: float(np.mean([row[name] for row in after]) - np.mean([row[name] for row in before])) for name in before[0]
            }
        return known[key]

    def gap_in(name: str, rows: NDArray) -> float:
        """Return the gap in one metric."""
        return gap(rows)[name]

    everything = np.arange(len(sides[0][0].ids))
    whole = [[scorer(everything) for scorer in side] for side in scorers]
    names = [*question.metrics]
    intervals = metrics.bootstrap_intervals(gap, names, speakers) if speakers else dict.fromkeys(names)
    found = {}
    for name in names:
        first, second = ([scores[name] for scores in side] for side in whole)
        p = metrics.bootstrap_p(partial(gap_in, name), speakers) if speakers else None
        found[name] = difference(first, second, intervals[name], p)
    return found


def difference(
    first: Sequence[float], second: Sequence[float], interval: tuple[float, float] | None, p: float | None
) -> Difference:
    """Return how the second side differs from the first, by their scores of each seed."""
    _, spread = metrics.mean_and_spread([after - before for before, after in zip(first, second, strict=True)])
    return Difference(float(np.mean(first)), float(np.mean(second)), spread, interval, p)


class Rescored:
    """The gap in any metric, by scoring whole draws; what one draw scores serves every metric."""

    def __init__(self, sides: Sides, units: NDArray[np.intp], score: Callable[[Outcome], Scores]) -> None:
        self.sides, self.units, self.score = sides, units, score
        self.rows = [np.flatnonzero(units == unit) for unit in range(int(units.max()) + 1)]
        self.known: dict[bytes, Scores] = {}

    def gap(self, metric: str) -> Gap:
        """Return the gap in one metric."""
        return Gap(
            lambda chosen: self.drawn(chosen)[metric],
            lambda masks: np.array([self.swapped(mask)[metric] for mask in masks]),
            lambda chosen: self.second(chosen)[metric],
        )

    def second(self, chosen: NDArray) -> Scores:
        """Return the second side's scores on a draw of units."""
        rows = np.concatenate([self.rows[unit] for unit in chosen])
        scores = [self.score(outcome.take(rows)) for outcome in self.sides[1]]
        return {name: float(np.mean([one[name] for one in scores])) for name in scores[0]}

    def drawn(self, chosen: NDArray) -> Scores:
        """Return the gap in every metric on a draw of units."""
        key = short(chosen)
        if key not in self.known:
            rows = np.concatenate([self.rows[unit] for unit in chosen])
            self.known[key] = self.between(*([outcome.take(rows) for outcome in side] for side in self.sides))
        return self.known[key]

    def swapped(self, mask: NDArray[np.bool_]) -> Scores:
        """Return the gap in every metric with some units swapped."""
        key = short(mask)
        if key not in self.known:
            rows, pairs = mask[self.units], list(zip(*self.sides, strict=True))
            self.known[key] = self.between(
                [mixed(first, second, rows) for first, second in pairs], [mixed(second, first, rows) for first, second in pairs]
            )
        return self.known[key]

    def between(self, first: Sequence[Outcome], second: Sequence[Outcome]) -> Scores:
        """Return the second side's scores minus the first's, averaged over seeds."""
        scores = [(self.score(before), self.score(after)) for before, after in zip(first, second, strict=True)]
        return {name: float(np.mean([after[name] - before[name] for before, after in scores])) for name in scores[0][0]}


def short(draw: NDArray) -> bytes:
    """Return a key for a draw: ten thousand masks of a large test would fill the memory."""
    return hashlib.blake2b(draw.tobytes(), digest_size=16, person=draw.dtype.str.encode()).digest()


def mixed(outcome: Outcome, other: Outcome, rows: NDArray[np.bool_]) -> Outcome:
    """Return an outcome with another's predictions where `rows` is True."""
    scores = outcome.scores
    if scores is not None and other.scores is not None:
        scores = torch.where(torch.from_numpy(rows).unsqueeze(1), other.scores, scores)
    predictions = np.where(rows.reshape(-1, *[1] * (outcome.predictions.ndim - 1)), other.predictions, outcome.predictions)
    return Outcome(outcome.ids, predictions, outcome.references, scores)


def quick_gap(metric: str, sides: Sides, units: NDArray[np.intp], answer: Answer, slow: Rescored) -> Gap | None:
    """Return a metric's gap the quick way, where there is one that gives what the task's own score gives."""
    candidates = [tallied(tally, answer, sides, units) for tally in tallies_of(metric)]
    candidates += [ranked(value, answer, sides, units) for name, value in RANKINGS.items() if name == metric]
    generator, count = np.random.default_rng(1), int(units.max()) + 1
    draws = [np.arange(count), generator.integers(count, size=count)]
    masks = np.stack([np.zeros(count, bool), generator.random(count) < 0.5])
    own = slow.gap(metric)
    expected = [*(own.drawn(draw) for draw in draws), *own.swapped(masks)]
    for gap in (candidate for candidate in candidates if candidate is not None):
        found = [*(gap.drawn(draw) for draw in draws), *gap.swapped(masks)]
        if np.allclose(found, expected, rtol=0, atol=SAME, equal_nan=True):
            return gap
    return None


def permutation_p(gaps: Callable[[NDArray], NDArray], value: float, units: int) -> float:
    """Return how often units that change sides make a difference at least as large: of all ways, or of 10,000 drawn."""
    return permutation_p_of_any([gaps], [value], units)[0]


def permutation_p_of_any(gaps: Sequence[Callable[[NDArray], NDArray]], values: Sequence[float], units: int) -> list[float]:
    """Return for each of several differences how often units that change sides make any of them as large (Westfall, Young)."""
    from tqdm import tqdm

    ways = 2**units if units <= MOST_EXACT else SWAPS
    batches = tqdm(swaps(units), total=-(-ways // _AT_ONCE), desc="swapping", delay=2, leave=False, disable=None)
    counts = np.zeros(len(values), int)
    for masks in batches:
        largest = np.fmax.reduce([np.abs(gap(masks)) for gap in gaps])
        counts += [int(np.sum(largest >= abs(value) - SAME)) for value in values]
    return [count / ways if units <= MOST_EXACT else (1 + count) / (1 + ways) for count in counts.tolist()]


def swaps(units: int) -> Iterator[NDArray[np.bool_]]:
    """Return which units change sides, some swaps at a time: (swap, unit)."""
    if units <= MOST_EXACT:
        everything = np.arange(2**units)[:, None] >> np.arange(units) & 1 == 1
        yield from np.split(everything, range(_AT_ONCE, len(everything), _AT_ONCE))
        return
    generator = np.random.default_rng(0)
    for _ in range(SWAPS // _AT_ONCE):
        yield generator.random((_AT_ONCE, units)) < 0.5


def counted_by(question: Question, vocabulary: Mapping[str, Any], outcome: Outcome, tables: Tables) -> str | None:
    """Return the metric that is the share of predictions equal to the reference, found on permuted predictions."""
    generator, count = np.random.default_rng(2), len(outcome.ids)
    names, answer = [*question.metrics], question.answer(vocabulary)
    if not answer.exchangeable:  # no prediction is equal to a reference
        return None
    for _ in range(3):
        draw = outcome.columns(answer).take(generator.integers(count, size=min(count, 300)))
        draw = replace(draw, predictions=generator.permutation(draw.predictions))  # scores stay: a metric of theirs is told apart
        scores, share = question.score(vocabulary, draw, tables), float(np.mean(draw.references == draw.predictions))
        names = [name for name in names if abs(scores[name] - share) < SAME]
    return next(iter(names), None)


def discordant(first: Outcome, second: Outcome, metric: str | None = None) -> Discordant | None:
    """Return the utterances that one side alone has right; None where a prediction is no class and no transcript."""
    if not all(isinstance(value, str) for value in (*first.references, *first.predictions)):
        return None
    pairs = list(zip(first.references, first.predictions, second.predictions, strict=True))
    return Discordant(
        sum(truth == before != after for truth, before, after in pairs),
        sum(truth == after != before for truth, before, after in pairs),
        metric,
    )


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Return p-values as they are among several, by Holm's correction.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = list(values)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[place] = least
    return corrected
