"""Score a search as the MediaEval QUESST evaluation of 2014 does: term weighted value and normalized cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit

from ..downstream.metrics import MIN_SPEAKERS, expanded_tail

Numbers = NDArray[np.float64]
_DRAWS = 500
_NEWTON_STEPS, _CONVERGED = 100, 1e-10


@dataclass(frozen=True)
class Costs:
    """What mistakes cost, as QUESST 2014 has it."""

    prior: float = 0.0008  # chance that a document holds a query
    miss: float = 100.0
    false_alarm: float = 1.0

    @property
    def beta(self) -> float:
        """How much a rate of false alarms counts against a rate of misses: 12.49."""
        return self.false_alarm / self.miss * (1 / self.prior - 1)

    @property
    def effective_prior(self) -> float:
        """The prior that has both costs in it (0.0741289), as the official scorer is given it."""
        return 1 / (1 + self.beta)


@dataclass(frozen=True)
class Trials:
    """Every query against every document."""

    scores: Numbers  # (query, document)
    targets: NDArray[np.bool_]  # (query, document): the document holds the query
    counted: NDArray[np.bool_]  # (query, document): False where a trial is left out

    def seen(self) -> Trials:
        """Return the queries that have a document to find and one to pass over: the others have no rates."""
        hits, others = self.targets & self.counted, ~self.targets & self.counted
        kept = hits.any(axis=1) & others.any(axis=1)
        return Trials(self.scores[kept], self.targets[kept], self.counted[kept])


@dataclass(frozen=True)
class TermWeightedValue:
    """A term weighted value and the threshold that it is reached at: higher scores are detections."""

    value: float
    threshold: float


@dataclass(frozen=True)
class _Ranked:
    """All trials by falling score: what each adds to a sum over them, where its query and its document count so often."""

    scores: Numbers
    query: NDArray[np.intp]
    document: NDArray[np.intp]
    is_target: NDArray[np.bool_]
    last: NDArray[np.intp]  # places of the last of equal scores
    shape: tuple[int, int]

    def values(self, queries: Numbers, documents: Numbers, beta: float) -> Numbers:
        """Return the term weighted value at each place of `last`, where rows and columns count so often."""
        times = documents[self.document]
        hits = np.bincount(self.query, times * self.is_target, self.shape[0])
        others = np.bincount(self.query, times * ~self.is_target, self.shape[0])
        rated = queries * ((hits > 0) & (others > 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            share = rated / rated.sum()
            gain, loss = np.nan_to_num(share / hits, posinf=0.0), np.nan_to_num(share * beta / others, posinf=0.0)
        steps = times * np.where(self.is_target, gain[self.query], -loss[self.query])
        return np.cumsum(steps)[self.last] if rated.any() else np.full(len(self.last), np.nan)


def _ranked(trials: Trials) -> _Ranked:
    query, document = np.nonzero(trials.counted)
    scores = trials.scores[query, document]
    order = np.argsort(-scores, kind="stable")
    scores, query, document = scores[order], query[order], document[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    return _Ranked(scores, query, document, trials.targets[query, document], last, trials.scores.shape)


def term_weighted_value(trials: Trials, threshold: float, costs: Costs = Costs()) -> float:
    """Return 1 - mean over queries of (misses + beta x false alarms), where scores above the threshold are detections.

    Rates are over a query's own trials; a query without a target in the documents is left out, as in the official scorer.
    """
    seen = trials.seen()
    found = seen.scores > threshold
    hits, others = seen.targets & seen.counted, ~seen.targets & seen.counted
    recall = (found & hits).sum(axis=1) / hits.sum(axis=1)
    alarms = (found & others).sum(axis=1) / others.sum(axis=1)
    return float(np.mean(recall - costs.beta * alarms)) if len(recall) else float("nan")


def best_term_weighted_value(trials: Trials, costs: Costs = Costs()) -> TermWeightedValue:
    """Return the highest term weighted value of all thresholds (MTWV), at least the 0 of no detection at all."""
    ranked = _ranked(trials.seen())
    if not len(ranked.scores):
        return TermWeightedValue(float("nan"), float("nan"))
    values = ranked.values(np.ones(ranked.shape[0]), np.ones(ranked.shape[1]), costs.beta)
    place = int(np.argmax(values))
    if not values[place] > 0:
        return TermWeightedValue(0.0, float(ranked.scores[0]))  # nothing is above the highest score
    here = ranked.last[place]
    below = ranked.scores[here + 1] if here + 1 < len(ranked.scores) else ranked.scores[here] - 1
    return TermWeightedValue(float(values[place]), float((ranked.scores[here] + below) / 2))


def normalized_cross_entropy(trials: Trials, costs: Costs = Costs(), scale: float = 1.0, offset: float = 0.0) -> float:
    """Return Cnxe of scale x score + offset, taken as log-likelihood ratios: 0 knows everything, 1 no more than the prior."""
    prior, odds = costs.effective_prior, np.log(costs.effective_prior / (1 - costs.effective_prior))
    ratios, is_target = _flat(trials)
    ratios = scale * ratios + offset + odds
    entropy = -prior * np.mean(log_expit(ratios[is_target])) - (1 - prior) * np.mean(log_expit(-ratios[~is_target]))
    return float(entropy / -(prior * np.log(prior) + (1 - prior) * np.log1p(-prior)))


def calibration(trials: Trials, costs: Costs = Costs()) -> tuple[float, float]:
    """Return the scale and the offset of the scores that make Cnxe least: a logistic regression, by Newton's method."""
    prior, odds = costs.effective_prior, np.log(costs.effective_prior / (1 - costs.effective_prior))
    scores, is_target = _flat(trials)
    centre, spread = scores.mean(), max(float(scores.std()), 1e-12)
    inputs = np.stack([(scores - centre) / spread, np.ones_like(scores)])
    weights = np.where(is_target, prior / is_target.sum(), (1 - prior) / (~is_target).sum())
    signs, line = np.where(is_target, 1.0, -1.0), np.zeros(2)

    def loss(line: Numbers) -> float:
        return float(-(weights * log_expit(signs * (line @ inputs + odds))).sum())

    for _ in range(_NEWTON_STEPS):
        chance = np.exp(log_expit(-signs * (line @ inputs + odds)))
        slope = -(inputs * (weights * signs * chance)).sum(axis=1)
        bend = (inputs * (weights * chance * (1 - chance))) @ inputs.T + 1e-12 * np.eye(2)
        step, size, now = np.linalg.solve(bend, slope), 1.0, loss(line)
        while size > 1e-6 and not loss(line - size * step) <= now:
            size /= 2
        line = line - size * step
        if size <= 1e-6 or now - loss(line) < _CONVERGED:
            break
    return float(line[0] / spread), float(line[1] - line[0] * centre / spread)


def _flat(trials: Trials) -> tuple[Numbers, NDArray[np.bool_]]:
    return trials.scores[trials.counted].astype(np.float64), trials.targets[trials.counted]


def intervals(trials: Trials, threshold: float, costs: Costs = Costs(), seed: int = 0) -> dict[str, list[float] | None]:
    """Return 95 % intervals of MTWV and of ATWV at a threshold over draws of queries and of documents, each with replacement.

    None with fewer than 8 queries.
    """
    seen = trials.seen()
    ranked, (queries, documents) = _ranked(seen), seen.scores.shape
    if queries < MIN_SPEAKERS:
        return {"mtwv": None, "atwv": None}
    generator = np.random.default_rng(seed)
    place = int(np.searchsorted(-ranked.scores[ranked.last], -threshold)) - 1  # the last score above the threshold
    found: dict[str, list[float]] = {"mtwv": [], "atwv": []}
    for _ in range(_DRAWS):
        rows, columns = (np.bincount(generator.integers(size, size=size), minlength=size) for size in (queries, documents))
        values = ranked.values(rows.astype(float), columns.astype(float), costs.beta)
        found["mtwv"].append(max(0.0, float(values.max())))
        found["atwv"].append(float(values[place]) if place >= 0 else 0.0)
    tail = expanded_tail(0.025, queries)
    return {name: [float(end) for end in np.nanquantile(values, [tail, 1 - tail])] for name, values in found.items()}
