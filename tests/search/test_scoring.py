"""The scorer: cases worked out by hand, and properties that hold for any scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from headwater.search.scoring import (
    Costs,
    Trials,
    best_term_weighted_value,
    calibration,
    intervals,
    normalized_cross_entropy,
    term_weighted_value,
)

CHEAP = Costs(prior=0.5, miss=1.0, false_alarm=0.3)  # beta 0.3


def trials(scores: object, targets: object, counted: object = None) -> Trials:
    values = np.asarray(scores, float)
    mask = np.ones(values.shape, bool) if counted is None else np.asarray(counted, bool)
    return Trials(values, np.asarray(targets, bool), mask)


TWO = trials([[0.9, 0.8, 0.1, 0.2], [0.3, 0.7, 0.6, 0.4]], [[1, 0, 0, 0], [0, 1, 1, 0]])


def drawn(seed: int, queries: int = 12, documents: int = 40) -> Trials:
    generator = np.random.default_rng(seed)
    targets = generator.random((queries, documents)) < 0.15
    return trials(np.round(generator.normal(size=targets.shape) + 2 * targets, 1), targets)  # with ties


def test_the_costs_of_quesst_2014() -> None:
    assert Costs().beta == pytest.approx(12.49)
    # the number that the release's own scoring script gives its scorer
    assert Costs().effective_prior == pytest.approx(0.0741289, abs=1e-7)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.85, (1 + 0) / 2),
        (0.65, ((1 - 0.3 / 3) + 1 / 2) / 2),
        (0.5, ((1 - 0.3 / 3) + 1) / 2),
        (0.35, ((1 - 0.3 / 3) + (1 - 0.3 / 2)) / 2),
        (0.0, (1 - 0.3 + 1 - 0.3) / 2),
        (1.0, 0.0),
    ],
)
def test_a_term_weighted_value_by_hand(threshold: float, expected: float) -> None:
    assert term_weighted_value(TWO, threshold, CHEAP) == pytest.approx(expected)


def test_the_best_threshold_by_hand() -> None:
    best = best_term_weighted_value(TWO, CHEAP)
    assert (best.value, best.threshold) == (pytest.approx(0.95), pytest.approx(0.5))
    dear = best_term_weighted_value(TWO)  # one false alarm of three costs more than it brings
    assert (dear.value, dear.threshold) == (pytest.approx(0.5), pytest.approx(0.85))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_value_is_the_best_of_all_thresholds(seed: int) -> None:
    some = drawn(seed)
    places = np.unique(some.scores)
    for costs in (Costs(), CHEAP):
        best = best_term_weighted_value(some, costs)
        every = [term_weighted_value(some, threshold, costs) for threshold in [places[0] - 1, *places]]
        assert best.value == pytest.approx(max(every))
        assert term_weighted_value(some, best.threshold, costs) == pytest.approx(best.value)


def test_no_detection_is_better_than_false_alarms() -> None:
    best = best_term_weighted_value(trials([[0.1, 0.9]], [[1, 0]]))
    assert best.value == 0.0
    assert term_weighted_value(trials([[0.1, 0.9]], [[1, 0]]), best.threshold) == 0.0


def test_queries_in_no_document_and_trials_left_out_do_not_count() -> None:
    scores = [[0.9, 0.8, 0.1, 0.2, 5.0], [0.3, 0.7, 0.6, 0.4, 5.0], [9.0, 9.0, 9.0, 9.0, 9.0]]
    targets = [[1, 0, 0, 0, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]]
    more = trials(scores, targets, [[1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert best_term_weighted_value(more, CHEAP) == best_term_weighted_value(TWO, CHEAP)
    assert normalized_cross_entropy(more.seen()) == normalized_cross_entropy(TWO)


def test_the_cross_entropy_by_hand() -> None:
    even = Costs(prior=0.5, miss=1.0, false_alarm=1.0)
    three = np.log(3.0)  # odds of 3 to 1 for what is true: log2(4 / 3) bits on either side
    assert normalized_cross_entropy(trials([[three, -three]], [[1, 0]]), even) == pytest.approx(np.log2(4 / 3))
    one_sided = np.mean([np.log2(4 / 3), np.log2(4)])  # as sure of what is false
    assert normalized_cross_entropy(trials([[three, three]], [[1, 0]]), even) == pytest.approx(one_sided)


def test_scores_that_say_nothing_have_the_entropy_of_the_prior() -> None:
    some = drawn(0)
    assert normalized_cross_entropy(trials(np.zeros_like(some.scores), some.targets)) == pytest.approx(1.0)
    assert normalized_cross_entropy(some, Costs(), 0.0, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_makes_the_cross_entropy_least(seed: int) -> None:
    some = drawn(seed)
    found = normalized_cross_entropy(some, Costs(), *calibration(some))
    other = minimize(lambda line: normalized_cross_entropy(some, Costs(), *line), [1.0, 0.0], method="Nelder-Mead")
    assert found == pytest.approx(other.fun, abs=1e-6)
    moved = trials(10 * some.scores + 3, some.targets)
    assert normalized_cross_entropy(moved, Costs(), *calibration(moved)) == pytest.approx(found, abs=1e-8)


def test_scores_that_part_all_trials_need_nearly_no_bits() -> None:
    parted = trials([[2.0, -1.0, -1.5]], [[1, 0, 0]])
    assert normalized_cross_entropy(parted, Costs(), *calibration(parted)) < 0.01


def test_intervals_hold_the_value_and_need_eight_queries() -> None:
    some = drawn(5, queries=30, documents=80)
    best = best_term_weighted_value(some, CHEAP)
    found = intervals(some, best.threshold, CHEAP)
    for ends in found.values():
        assert ends is not None
        assert ends[0] < best.value < ends[1]
    assert intervals(some, best.threshold, CHEAP) == found
    assert intervals(drawn(5, queries=7), 0.0) == {"mtwv": None, "atwv": None}
