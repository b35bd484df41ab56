"""Metrics against golden numbers, scikit-learn, and what must hold for any of them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn import metrics as sklearn_metrics

from headwater.downstream import metrics

CLASSES = ("neu", "hap", "ang", "sad")


def random_answers(seed: int, count: int = 200, right: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    references = generator.choice(CLASSES, count, p=[0.5, 0.3, 0.15, 0.05])
    guesses = generator.choice(CLASSES, count)
    return references, np.where(generator.random(count) < right, references, guesses)


@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_equal_scikit_learn(seed: int) -> None:
    references, predictions = random_answers(seed)
    assert metrics.accuracy(references, predictions) == pytest.approx(sklearn_metrics.accuracy_score(references, predictions))
    recall = sklearn_metrics.balanced_accuracy_score(references, predictions)
    assert metrics.unweighted_accuracy(references, predictions, CLASSES) == pytest.approx(recall)
    f1 = sklearn_metrics.f1_score(references, predictions, labels=CLASSES, average="macro", zero_division=0)
    assert metrics.macro_f1(references, predictions, CLASSES) == pytest.approx(f1)
    counts = sklearn_metrics.confusion_matrix(references, predictions, labels=CLASSES)
    np.testing.assert_array_equal(metrics.confusion_matrix(references, predictions, CLASSES), counts)


def test_a_class_without_references_has_no_recall_but_counts_in_macro_f1() -> None:
    references, predictions = ["neu", "neu", "hap"], ["neu", "sad", "hap"]
    assert metrics.unweighted_accuracy(references, predictions, CLASSES) == pytest.approx((0.5 + 1.0) / 2)
    assert metrics.macro_f1(references, predictions, CLASSES) == pytest.approx((2 / 3 + 1.0 + 0.0 + 0.0) / 4)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_classes_and_of_rows_changes_no_metric(seed: int) -> None:
    references, predictions = random_answers(seed)
    order = np.random.default_rng(seed).permutation(len(references))
    for metric in (metrics.unweighted_accuracy, metrics.macro_f1):
        shuffled = metric(references[order], predictions[order], CLASSES[::-1])
        assert metric(references, predictions, CLASSES) == pytest.approx(shuffled)


def test_one_class_for_every_prediction_gives_chance_in_unweighted_accuracy() -> None:
    references, _ = random_answers(0)
    assert metrics.unweighted_accuracy(references, ["neu"] * len(references), CLASSES) == pytest.approx(1 / len(CLASSES))


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(ValueError, match="found 'fear'"):
        metrics.confusion_matrix(["neu"], ["fear"], CLASSES)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"found shapes \(2,\) and \(1,\)"):
        metrics.accuracy(["neu"], ["neu", "hap"])
    with pytest.raises(ValueError, match="at least one"):
        metrics.accuracy([], [])


def test_predictions_of_two_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one number for each utterance, found arrays of shape \(2, 1\)\. Score one dimension"):
        metrics.rmse([(1.0,), (2.0,)], [(1.0,), (3.0,)])


def test_concordance_equals_the_golden_number() -> None:
    assert metrics.concordance([3, -0.5, 2, 7], [2.5, 0, 2, 8]) == pytest.approx(0.97678917, abs=1e-8)


@pytest.mark.parametrize("predictions", [[0.1] * 5, [0.3, 0.3, 0.3, 0.3, 0.3]])
def test_a_constant_prediction_has_concordance_and_correlation_zero(predictions: list[float]) -> None:
    for references in ([0.1, 0.2, 0.3, 0.4, 0.5], [0.3] * 5):
        assert metrics.concordance(references, predictions) == 0.0
        assert metrics.pearson(references, predictions) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_concordance_is_symmetric_and_never_above_correlation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    references = generator.normal(size=30)
    predictions = 0.5 * references + generator.normal(size=30) + 1
    value = metrics.concordance(references, predictions)
    assert value == pytest.approx(metrics.concordance(predictions, references))
    assert abs(value) <= abs(metrics.pearson(references, predictions)) + 1e-12
    assert metrics.concordance(references, references) == pytest.approx(1.0)
    assert metrics.pearson(references, predictions) == pytest.approx(np.corrcoef(references, predictions)[0, 1])


def test_concordance_keeps_its_digits_far_from_zero() -> None:
    generator = np.random.default_rng(0)
    references, predictions = generator.integers(0, 40, (2, 1000)) / 4  # exact in float32, also when moved
    far = metrics.concordance((references + 2**20).astype(np.float32), (predictions + 2**20).astype(np.float32))
    assert far == pytest.approx(metrics.concordance(references, predictions), abs=1e-10)


def test_rmse_equals_the_hand_computed_value() -> None:
    assert metrics.rmse([0.0, 0.0], [3.0, 4.0]) == pytest.approx(np.sqrt(12.5))


@pytest.mark.parametrize(
    ("labels", "scores", "rate"),
    [
        ([0, 1, 0, 1, 0], [0.2, 0.8, 0.4, 0.5, 0.5], 0.2),
        ([0, 0, 1, 1, 1], [0.13, 0.26, 0.08, 0.19, 0.34], 0.5),
        ([0, 1, 1, 0], [0, 0.5, 0.7, 0.8], 0.5),
        ([0, 1, 0, 1, 1], [0.3] * 5, 0.5),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 0.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 1.0),
    ],
)
def test_equal_error_rate_equals_the_golden_numbers(labels: list[int], scores: list[float], rate: float) -> None:
    assert metrics.equal_error_rate(labels, scores)[0] == pytest.approx(rate, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_equals_the_root_on_the_whole_roc(seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, 300)
    scores = np.round(labels + generator.normal(0, 1.5, 300), 1)  # rounding makes ties
    alarms, hits, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    expected = brentq(lambda x: 1 - x - np.interp(x, alarms, hits), 0, 1)
    rate, threshold = metrics.equal_error_rate(labels, scores)
    assert rate == pytest.approx(expected, abs=1e-9)
    accepted = scores >= threshold
    assert accepted[labels == 0].mean() <= rate + 1e-9
    assert (~accepted[labels == 1]).mean() >= rate - 1e-9


def test_equal_error_rate_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="found 3 positive and 0 negative"):
        metrics.equal_error_rate([1, 1, 1], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("speakers", [1, 2, 7])
def test_fewer_than_eight_speakers_give_no_interval(speakers: int) -> None:
    groups = [f"speaker{index % speakers}" for index in range(100)]
    assert metrics.bootstrap_interval(lambda rows: float(rows.mean()), groups) is None


def test_an_interval_leaves_the_global_generator_alone_and_repeats_itself() -> None:
    groups = [f"speaker{index % 9}" for index in range(90)]
    values = np.random.default_rng(3).random(90)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    intervals = [metrics.bootstrap_interval(lambda rows: float(values[rows].mean()), groups, repeats=50) for _ in range(2)]
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002
    assert intervals[0] == intervals[1]
    assert intervals[0] != metrics.bootstrap_interval(lambda rows: float(values[rows].mean()), groups, repeats=50, seed=1)


def test_a_drawn_speaker_brings_all_of_its_rows() -> None:
    groups = np.repeat([f"speaker{index}" for index in range(8)], [1, 2, 3, 4, 5, 6, 7, 8])
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1])
    codes = np.unique(groups, return_inverse=True)[1]

    def whole_speakers(rows: np.ndarray) -> float:
        times = np.bincount(codes[rows], minlength=8) / sizes
        assert np.all(times == np.round(times)), "a speaker was cut"
        assert times.sum() == 8, "as many draws as speakers"
        return 0.0

    assert metrics.bootstrap_interval(whole_speakers, list(groups), repeats=20) == (0.0, 0.0)


@pytest.mark.parametrize("metric", ["wa", "ua"])
def test_the_interval_of_ten_unequal_speakers_covers_and_stays_in_range(metric: str) -> None:
    generator = np.random.default_rng(7)
    means = np.array([0.5, 0.6, 0.7, 0.8])  # true recall of each class over all speakers
    simulations, hits = 200, 0
    for _ in range(simulations):
        sizes = generator.integers(10, 60, size=10)
        speakers = np.repeat(np.arange(10), sizes)
        references = generator.integers(0, 4, size=len(speakers))
        recalls = generator.beta(means * 12, (1 - means) * 12, size=(10, 4))
        right = generator.random(len(speakers)) < recalls[speakers, references]
        predictions = np.where(right, references, (references + 1) % 4)

        def score(rows: np.ndarray, references: np.ndarray = references, predictions: np.ndarray = predictions) -> float:
            if metric == "wa":
                return metrics.accuracy(references[rows], predictions[rows])
            return metrics.unweighted_accuracy(references[rows], predictions[rows], range(4))

        interval = metrics.bootstrap_interval(score, [str(speaker) for speaker in speakers], repeats=200)
        assert interval is not None
        assert 0.0 <= interval[0] <= interval[1] <= 1.0
        hits += interval[0] <= means.mean() <= interval[1]
    assert hits / simulations >= 0.90


@pytest.mark.parametrize("seed", range(6))
def test_p_is_below_a_level_where_the_interval_of_that_level_leaves_out_0(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values, groups = generator.normal(0.1, 1.0, 60), [str(row % 12) for row in range(60)]

    def score(rows: np.ndarray) -> float:
        return float(values[rows].mean())

    p = metrics.bootstrap_p(score, groups)
    assert p is not None
    for level in (p * 0.7, min(p * 1.4, 1.0)):
        low, high = metrics.bootstrap_interval(score, groups, level=1 - level) or (0.0, 0.0)
        assert (low < 0 < high) == (level < p)
    assert metrics.bootstrap_p(lambda _: 0.0, groups) == 1.0
    assert 0 < (metrics.bootstrap_p(lambda _: 1.0, groups) or 0) < 0.01
    assert metrics.bootstrap_p(score, ["a"] * 60) is None


def test_an_interval_near_the_ceiling_stays_below_one() -> None:
    right = np.ones(100, dtype=bool)
    right[:6] = False  # one speaker answers badly, nine are perfect
    interval = metrics.bootstrap_interval(lambda rows: float(right[rows].mean()), [f"s{row // 10}" for row in range(100)])
    assert interval is not None
    assert interval[0] < 0.94 <= interval[1] <= 1.0


def test_a_thousand_draws_of_a_corpus_take_seconds() -> None:
    references, predictions = random_answers(0, count=5531)
    groups = [f"speaker{index % 10}" for index in range(5531)]
    started = time.perf_counter()
    metrics.bootstrap_interval(lambda rows: metrics.macro_f1(references[rows], predictions[rows], CLASSES), groups)
    assert time.perf_counter() - started < 10.0


def test_spread_is_the_sample_deviation_and_none_for_one_value() -> None:
    assert metrics.mean_and_spread([0.5]) == (0.5, None)
    assert metrics.mean_and_spread([0.4, 0.6]) == pytest.approx((0.5, np.sqrt(0.02)))
    with pytest.raises(ValueError, match="found none"):
        metrics.mean_and_spread([])
