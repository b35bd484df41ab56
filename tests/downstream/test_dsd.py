"""Device-directed speech: its words, its errors, and the operating point that dev places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch
from headwater.downstream import metrics
from headwater.downstream.answer import OneClass
from headwater.downstream.base import Outcome, Output
from headwater.downstream.classification import build_classifier
from headwater.downstream.dsd import question
from headwater.downstream.dsd.expert import DsdConfig
from headwater.downstream.labels import LabelsConfig
from headwater.runs.results import intervals_of
from headwater.upstream.base import Frames, UpstreamSpec

SPECS = {
    "audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320),
    "text": UpstreamSpec("text", 1, 4, 0, lambda _: 1),
}


def corpus_of(*words: Any, dev: int = 2) -> Corpus:
    rows = [Utterance(f"u{index}", f"u{index}.wav", labels={"label": word}) for index, word in enumerate(words)]
    return Corpus("mine", "split", None, {"train": tuple(rows[:-dev]), "dev": tuple(rows[-dev:])})


def vocabulary_of(*words: Any, labels: LabelsConfig | None = None, point: str = "eer", dev: int = 2) -> dict[str, Any]:
    options = DsdConfig(operating_point=point)
    return question.make_vocabulary(options, labels or LabelsConfig(), corpus_of(*words, dev=dev))


def answer_at(threshold: float) -> OneClass:
    """The kind of answer at an operating point."""
    return question.answer({"classes": list(question.CLASSES), "threshold": threshold})


def outcome_of(truth: list[int], scores: list[float], threshold: float = 0.5) -> Outcome:
    table = torch.tensor([[1 - score, score] for score in scores])
    return Outcome(
        ids=tuple(f"u{index}" for index in range(len(truth))),
        predictions=answer_at(threshold).decide(table),
        references=tuple(question.CLASSES[value] for value in truth),
        scores=table,
    )


# words


def test_every_known_word_means_what_it_says() -> None:
    expected = {word: name for name, words in question.LABELS_MEANT.items() for word in words}
    shouted = {word.upper(): name for word, name in expected.items()}
    found = vocabulary_of(*expected, *shouted, "yes", "no")["merge"]
    assert found == expected | shouted
    assert {"1", "true", "yes", "directed", "device"} <= {word for word, name in expected.items() if name == "directed"}
    assert {"0", "false", "no", "other"} <= {word for word, name in expected.items() if name == "other"}


@pytest.mark.parametrize("words", [(1, 0), (1.0, 0.0), (True, False), ("1.0", "0.0"), (" Yes ", "NO")])
def test_numbers_truths_and_spaces_are_read_as_words(words: tuple[Any, Any]) -> None:
    vocabulary = vocabulary_of(*words, *words, *words)
    chosen = question.QUESTION.select(vocabulary, corpus_of(*words, *words, *words).splits["train"])
    assert len(chosen) == 4
    assert vocabulary["counts"] == {"other": 2, "directed": 2}


def test_the_classes_and_their_order_do_not_depend_on_the_words() -> None:
    assert vocabulary_of("no", "yes", "no", "yes")["classes"] == vocabulary_of("device", "other", "device", "other")["classes"]


def test_rows_without_a_label_are_passed_over() -> None:
    vocabulary = vocabulary_of("yes", "no", "", None, "yes", "no")
    assert vocabulary["counts"] == {"other": 1, "directed": 1}


def test_an_unknown_word_is_an_error_that_lists_what_was_found() -> None:
    with pytest.raises(UserError) as problem:
        vocabulary_of("yes", "tv", "no", "tv", "yes", "no")
    assert "in 'label' of mine, found no (2), tv (2), yes (2). Say what they mean" in str(problem.value)
    assert "-o labels.merge='{\"tv\": directed}'" in str(problem.value)


def test_words_of_ones_own_are_read_as_the_user_says() -> None:
    labels = LabelsConfig(merge={"tv": "other", "cmd": "directed"})
    assert vocabulary_of("cmd", "tv", "cmd", "tv", labels=labels)["merge"] == {"cmd": "directed", "tv": "other"}


def test_a_word_to_merge_that_nobody_uses_is_refused() -> None:
    with pytest.raises(UserError, match=r"a label of mine, found 'tvv'\. Did you mean 'tv'\?"):
        vocabulary_of("yes", "tv", "yes", "tv", labels=LabelsConfig(merge={"tvv": "other", "tv": "other"}))


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "classes to keep": (
        ("yes", "no") * 2,
        {"labels": LabelsConfig(keep=["yes"])},
        r"no labels\.keep for dsd, .* other and directed",
    ),
    "one word only": (("yes",) * 4, {}, r"every class in the training split of mine, found no 'other'"),
    "one class in dev": (
        ("yes", "no", "yes", "yes"),
        {},
        r"both classes in split 'dev' of mine, which places the operating point, found directed only\. See `",
    ),
    "no label": ((None,) * 4, {}, r"a label .* in mine, found none\. Name its column: -o corpus.options.columns.label=HEADER"),
    "far of two": (("yes", "no") * 2, {"point": "far=2"}, r"operating_point eer, frr=0\.05, .* found 'far=2'"),
    "far of nothing": (("yes", "no") * 2, {"point": "far="}, r"found 'far='"),
    "an unknown point": (("yes", "no") * 2, {"point": "fpr=0.1"}, r"found 'fpr=0\.1'"),
    "eer of something": (("yes", "no") * 2, {"point": "eer=0.1"}, r"found 'eer=0\.1'"),
    "a threshold below nothing": (("yes", "no") * 2, {"point": "-0.5"}, r"found '-0\.5'"),
    "no number": (("yes", "no") * 2, {"point": "nan"}, r"found 'nan'"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_an_impossible_request_is_refused(mistake: str) -> None:
    words, options, message = WRONG[mistake]
    with pytest.raises(UserError, match=message):
        vocabulary_of(*words, **options)


def test_another_corpus_words_are_matched_and_reported() -> None:
    adapted, message = question.adapt(vocabulary_of("yes", "no", "yes", "no"), LabelsConfig(), corpus_of("0", "1", "0", "1"))
    assert message == "labels 0=other, 1=directed"
    assert adapted["merge"] == {"0": "other", "1": "directed"}


# operating points


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eer", ("eer", 0.0)),
        ("frr=0.05", ("frr", 0.05)),
        ("far=0", ("far", 0.0)),
        ("0.7", ("threshold", 0.7)),
        ("1", ("threshold", 1.0)),
    ],
)
def test_an_operating_point_is_read(text: str, expected: tuple[str, float]) -> None:
    assert question.parse_point(text) == expected


def draws(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Labels and float32 scores, as an expert gives them."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(2, size=60)
    truth[:2] = 0, 1
    scores = generator.normal(truth, 1.0)
    scores = 1 / (1 + np.exp(-(np.round(scores) if ties else scores)))
    return truth, scores.astype(np.float32).astype(np.float64)


def rates(truth: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[float, float]:
    return float(np.mean(scores[truth == 0] >= threshold)), float(np.mean(scores[truth == 1] < threshold))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [0.0, 0.05, 0.3, 1.0])
def test_a_threshold_keeps_its_promise_at_the_least_cost(seed: int, ties: bool, limit: float) -> None:
    truth, scores = draws(seed, ties)
    candidates = [rates(truth, scores, place) for place in [-1.0, *scores, *np.nextafter(scores, 9.0)]]
    far, frr = rates(truth, scores, metrics.threshold_at(truth, scores, frr=limit))
    assert frr <= limit
    assert far == min(alarms for alarms, misses in candidates if misses <= limit)
    far, frr = rates(truth, scores, metrics.threshold_at(truth, scores, far=limit))
    assert far <= limit
    assert frr == min(misses for alarms, misses in candidates if alarms <= limit)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("point", ["frr=0", "frr=0.1", "far=0", "far=0.1"])
def test_scores_that_differ_in_the_last_digit_are_decided_alike(seed: int, point: str) -> None:
    truth, scores = draws(seed, ties=False)
    outcome = outcome_of(truth.tolist(), scores.tolist())
    vocabulary = question.calibrate({"operating_point": point}, outcome, {})
    assert outcome.scores is not None
    expected = answer_at(vocabulary["threshold"]).decide(outcome.scores)
    far, frr = rates(truth, scores, vocabulary["threshold"])
    assert (far if "far" in point else frr) <= float(point[4:])
    for shift in (1e-7, -1e-7):  # what another batch, or a store, makes of the same file
        assert answer_at(vocabulary["threshold"]).decide(outcome.scores + shift) == expected


def test_no_false_alarm_at_all_holds_where_another_has_the_highest_score() -> None:
    truth, scores = [0, 1, 1, 0], [0.9, 0.8, 0.7, 0.1]
    vocabulary = question.calibrate({"operating_point": "far=0"}, outcome_of(truth, scores), {})
    found = outcome_of(truth, scores, vocabulary["threshold"])
    assert set(found.predictions) == {"other"}
    assert question.score(vocabulary, found, {})["far"] == 0


def test_scores_next_to_each_other_are_distinguished() -> None:
    low = np.float32(0.5)
    scores = [float(low), float(np.nextafter(low, np.float32(1)))]
    table = torch.tensor([[0.5, score] for score in scores])
    outcome = Outcome(("a", "b"), ("other", "other"), question.CLASSES, table)
    placed = question.calibrate({"operating_point": "far=0"}, outcome, {})["threshold"]
    assert answer_at(placed).decide(table) == question.CLASSES


@pytest.mark.parametrize(
    ("point", "threshold"),
    [("eer", 0.6), ("frr=0", 0.35), ("far=0", 0.85), ("0.25", 0.25)],
)
def test_dev_places_the_threshold(point: str, threshold: float) -> None:
    truth, scores = [0, 0, 1, 0, 1], [0.1, 0.2, 0.5, 0.7, 0.9]
    outcome = outcome_of(truth, scores)
    found = question.calibrate({"operating_point": point, "threshold": 0.5}, outcome, {})["threshold"]
    far, frr = rates(np.array(truth), np.array(scores), found)
    expected_far, expected_frr = rates(np.array(truth), np.array(scores), threshold)
    assert (far, frr) == (expected_far, expected_frr)


def test_the_operating_point_changes_the_predictions_and_not_what_is_measured_without_it() -> None:
    truth, scores = [0, 0, 1, 0, 1], [0.1, 0.2, 0.5, 0.7, 0.9]
    found = {threshold: question.score({}, outcome_of(truth, scores, threshold), {}) for threshold in (0.5, 0.8)}
    assert found[0.5]["far"] == pytest.approx(1 / 3)
    assert found[0.5]["frr"] == 0
    assert (found[0.8]["far"], found[0.8]["frr"], found[0.8]["acc_point"]) == (0.0, 0.5, 0.8)
    assert all(found[0.5][name] == found[0.8][name] for name in ("eer", "auc", "acc"))


# scores


def test_all_metrics_of_a_split_by_hand() -> None:
    found = question.score({}, outcome_of([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]), {})
    expected = {"eer": 0.5, "auc": 0.75, "acc": 0.5, "acc_point": 0.5, "far": 0.5, "frr": 0.5}
    assert found == pytest.approx(expected)
    assert {*found} == {*question.METRICS}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_area_is_scikit_learns(seed: int, ties: bool) -> None:
    truth, scores = draws(seed, ties)
    assert metrics.area_under_roc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_a_split_of_one_class_has_no_error_rate_but_an_accuracy() -> None:
    found = question.score({}, outcome_of([1, 1, 1], [0.9, 0.8, 0.1]), {})
    assert math.isnan(found["eer"])
    assert math.isnan(found["auc"])
    assert math.isnan(found["far"])
    assert (found["acc"], found["frr"]) == pytest.approx((2 / 3, 1 / 3))
    assert question.details({"operating_point": "eer", "threshold": 0.5}, outcome_of([1, 1], [0.9, 0.8])) == {
        "operating_point": "eer",
        "threshold": 0.5,
    }


def test_draws_of_speakers_with_one_class_leave_an_interval() -> None:
    # 8 speakers, 2 of them only ever directed: some of the draws hold one class
    truth = [1, 1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    outcome = outcome_of(truth, [0.2 + 0.5 * value + 0.01 * row for row, value in enumerate(truth)])
    speakers = [f"s{row // 2}" for row in range(16)]
    vocabulary = {"classes": list(question.CLASSES), "threshold": 0.5}
    found = intervals_of(question.QUESTION, vocabulary, outcome, speakers, {})
    assert found["eer"] is not None
    assert found["acc"] is not None
    one = outcome_of([1] * 16, [0.9] * 16)
    assert intervals_of(question.QUESTION, vocabulary, one, speakers, {})["eer"] is None


# the expert


def expert_of(**options: Any) -> Any:
    vocabulary = vocabulary_of("yes", "no", "no", "no", "yes", "no")  # in train: 1 directed, 3 others
    torch.manual_seed(0)
    return build_classifier(DsdConfig(**options), vocabulary, SPECS)


def test_classes_are_weighted_by_their_rarity_where_requested() -> None:
    assert expert_of().class_weights.tolist() == [1.0, 1.0]
    assert expert_of(class_weights=True).class_weights.tolist() == pytest.approx([4 / (2 * 3), 4 / (2 * 1)])


def test_class_weights_make_the_rare_class_cost_more() -> None:
    output = Output(torch.zeros(2, 2))
    batch = Batch(None, (), ids=("a", "b"), targets=(0, 1))
    assert expert_of().loss(output, batch).item() == pytest.approx(math.log(2))
    assert expert_of(class_weights=True).loss(output, batch).item() == pytest.approx((2 / 3 + 2) / 2 * math.log(2))


def test_calibration_returns_a_vocabulary_and_is_used_for_the_next_file() -> None:
    expert = expert_of()
    before = {**expert.vocabulary, "operating_point": "far=0"}
    calibrated = expert.with_vocabulary(question.calibrate(before, outcome_of([0, 1, 1, 0], [0.8, 0.9, 0.7, 0.1]), {}))
    assert 0.8 < calibrated.vocabulary["threshold"] <= 0.9
    prediction = question.QUESTION.answer(calibrated.vocabulary)
    assert prediction.joined([(1.0, torch.tensor([0.25, 0.75]))])[0] == "other"
    assert prediction.joined([(1.0, torch.tensor([0.05, 0.95]))])[0] == "directed"
    assert expert.vocabulary["threshold"] == 0.5


def test_a_view_with_another_vocabulary_shares_the_weights() -> None:
    expert = expert_of()
    view = expert.with_vocabulary({**expert.vocabulary, "threshold": 0.9})
    frames = {role: Frames(torch.ones(1, 3, spec.dim), (3,)) for role, spec in SPECS.items()}
    with torch.no_grad():
        expert.classifier.bias += 1.0
    assert torch.equal(view(frames).values, expert(frames).values)
    assert (view.vocabulary["threshold"], expert.vocabulary["threshold"]) == (0.9, 0.5)
