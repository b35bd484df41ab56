"""Trials: pairs of utterances, of one speaker or of two, and what they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ..base import Outcome

_TRIES = 20  # draws for each trial that is wanted, until all are found
Trial = tuple[int, str, str]  # 1: of one speaker, 0: of two; the ids of both utterances


def make_trials(ids: Sequence[str], speakers: Sequence[str], most: int) -> list[Trial]:
    """Return all pairs of utterances, or a draw of at most so many, half of them of one speaker: always the same one."""
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names, voices = [ids[row] for row in order], [speakers[row] for row in order]
    if len(names) * (len(names) - 1) // 2 <= most:
        pairs: Sequence[tuple[int, int]] = list(combinations(range(len(names)), 2))
    else:
        pairs = drawn_pairs(voices, most)
    return [(int(voices[one] == voices[other]), names[one], names[other]) for one, other in pairs]


def drawn_pairs(speakers: Sequence[str], most: int) -> list[tuple[int, int]]:
    """Return pairs of rows drawn without repetition, half of them of one speaker where there are so many."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(speakers):
        rows.setdefault(name, []).append(row)
    generator, found = np.random.default_rng(0), {True: set[tuple[int, int]](), False: set[tuple[int, int]]()}
    for same, pairs in found.items():
        for _ in range(_TRIES * most):
            if len(pairs) >= most // 2:
                break
            one = int(generator.integers(len(speakers)))
            own = rows[speakers[one]]
            other = own[generator.integers(len(own))] if same else int(generator.integers(len(speakers)))
            if one != other and (speakers[one] == speakers[other]) == same:
                pairs.add((min(one, other), max(one, other)))
    return [pair for pairs in found.values() for pair in sorted(pairs)]


def require_both(trials: Sequence[Sequence[Any]], what: str) -> None:
    """Refuse trials of one kind, of which there is no error rate."""
    targets = sum(trial[0] == 1 for trial in trials)
    if not 0 < targets < len(trials):
        raise UserError(
            f"Expected trials of one speaker and of two in {what}, found {targets} and {len(trials) - targets}. It takes two "
            "speakers, one of them with two utterances: choose other splits with -o corpus.protocol=…, or add speakers."
        )


@dataclass(frozen=True)
class Scored:
    """The trials of a split whose utterances are there, by falling score."""

    is_target: NDArray[np.bool_]
    scores: NDArray  # (trial)
    first: NDArray[np.intp]  # rows of the outcome
    second: NDArray[np.intp]

    def weights(self, counts: NDArray) -> NDArray:
        """Return how often each trial counts where a draw of speakers has each row so often.

        Speakers are drawn on both sides: a trial of two counts as often as there are pairs of their copies. A copy of a speaker
        is somebody of its own, so that a trial of one speaker counts once for each copy, and no trial is made across copies.
        """
        one, other = counts[self.first], counts[self.second]
        return np.where(self.is_target, np.minimum(one, other), one * other)


def score_trials(outcome: Outcome, trials: Sequence[Trial], normalizes: bool) -> Scored:
    """Return the trials between an outcome's rows with their scores; those of utterances that are not there are left out.

    An outcome of several runs has an id several times: the trials are made within each run, in the order of the rows.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(map(str, outcome.ids)):
        rows.setdefault(name, []).append(row)
    there = [
        (label, one, other)
        for label, first, second in trials
        for one, other in zip(rows.get(first, ()), rows.get(second, ()), strict=False)
    ]
    labels, first, second = (np.array(column, dtype=np.intp) for column in (zip(*there, strict=True) if there else ((), (), ())))
    vectors = np.asarray(outcome.predictions)
    scores = cosines(vectors, first, second, normalizes)
    order = np.argsort(-scores, kind="stable")
    return Scored(labels[order] == 1, scores[order], first[order], second[order])


def cosines(vectors: NDArray, first: NDArray, second: NDArray, normalizes: bool = False) -> NDArray:
    """Return the cosine of the rows of each trial, normalised by what both sides score against the cohort where asked.

    `normalizes`: behind each embedding stand mean and deviation of its cosines with the cohort (adaptive s-norm).
    """
    values = vectors[:, :-2] if normalizes else vectors
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    found = np.empty(len(first))
    for start in range(0, len(first), 4096):  # the vectors of all trials at once would be many times those of the split
        part = slice(start, start + 4096)
        found[part] = np.einsum("ij,ij->i", values[first[part]], values[second[part]], dtype=np.float64)
    if not normalizes:
        return found
    sides = [(found - vectors[rows, -2]) / np.maximum(vectors[rows, -1], 1e-6) for rows in (first, second)]
    return (sides[0] + sides[1]) / 2
