"""Two systems on the same utterances: intervals, p-values, and the quick ways to them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from headwater.analysis.comparison import paired
from headwater.analysis.comparison.paired import (
    Rescored,
    counted_by,
    differences,
    discordant,
    holm,
    permutation_p,
    quick_gap,
    swaps,
)
from headwater.analysis.comparison.tallies import RANKINGS, tallies_of
from headwater.downstream.asr.question import QUESTION as ASR
from headwater.downstream.avd.question import QUESTION as AVD
from headwater.downstream.base import Outcome, Question
from headwater.downstream.dsd.question import QUESTION as DSD
from headwater.downstream.emotion.question import QUESTION as EMOTION
from headwater.downstream.ks.question import QUESTION as KS
from headwater.downstream.pr.question import QUESTION as PR
from headwater.downstream.sf.question import QUESTION as SF
from headwater.downstream.sid.question import QUESTION as SID

CLASSES = {"classes": ["a", "b", "c"]}
DIRECTED = {"classes": ["other", "directed"], "threshold": 0.5, "operating_point": "eer"}
RATED = {"dimensions": ["arousal", "valence", "dominance"], "scale": [1, 7]}
QUESTIONS: dict[str, tuple[Question, Mapping[str, Any]]] = {
    "emotion": (EMOTION, CLASSES),
    "ks": (KS, CLASSES),
    "sid": (SID, CLASSES),
    "dsd": (DSD, DIRECTED),
    "avd": (AVD, RATED),
    "asr": (ASR, {"characters": [], "normalize": "upper"}),
    "pr": (PR, {"phones": []}),
    "sf": (SF, {"characters": [], "slots": []}),
}


def outcome_of(task: str, seed: int, count: int = 240) -> Outcome:
    """Return a system's answers to one test; the references are those of every seed."""
    truth, generator = np.random.default_rng(0), np.random.default_rng(seed + 1)
    ids = tuple(f"u{row}" for row in range(count))
    if task == "avd":
        rated = truth.uniform(1, 7, (count, 3))
        predicted = rated + generator.normal(0.5, 1.5, (count, 3))
        return Outcome(ids, tuple(map(tuple, predicted.tolist())), tuple(map(tuple, rated.tolist())))
    if task in ("asr", "pr", "sf"):
        message = [
            " ".join(truth.choice(["UP", "DOWN", "[x:X]" if task == "sf" else "LEFT"], size=truth.integers(1, 6))) for _ in ids
        ]
        result = [" ".join(word for word in text.split() if generator.random() < 0.8) for text in message]
        return Outcome(ids, tuple(result), tuple(message))
    if task == "dsd":
        directed = truth.random(count) < 0.4
        scores = np.clip(np.round(0.4 * directed + generator.random(count) * 0.6, 2), 0, 1)  # with equal ones
        words = np.array(DIRECTED["classes"])
        tensor = torch.tensor(np.stack([1 - scores, scores], axis=1), dtype=torch.float32)
        return Outcome(ids, tuple(words[(scores > 0.45).astype(int)]), tuple(words[directed.astype(int)]), tensor)
    requested = truth.integers(3, size=count)
    right = generator.random(count) < 0.6
    given = np.where(right, requested, generator.integers(3, size=count))
    return Outcome(ids, tuple("abc"[place] for place in given), tuple("abc"[place] for place in requested))


def speakers_of(count: int, speakers: int) -> tuple[str, ...]:
    """Return speakers of uneven shares."""
    codes = np.random.default_rng(3).choice(speakers, size=count, p=np.arange(1, speakers + 1) / (speakers * (speakers + 1) / 2))
    codes[:speakers] = np.arange(speakers)
    return tuple(f"s{code:02d}" for code in codes)


@pytest.mark.parametrize("task", QUESTIONS)
def test_the_quick_way_gives_what_the_tasks_own_score_gives(task: str) -> None:
    question, vocabulary = QUESTIONS[task]
    kind = question.answer(vocabulary)
    of_seed = [outcome_of(task, seed).columns(kind) for seed in (1, 2, 3, 4)]
    sides = (of_seed[:2], of_seed[2:])
    _, units = np.unique(speakers_of(240, 9), return_inverse=True)
    slow = Rescored(sides, units, lambda outcome: question.score(vocabulary, outcome, {}))
    generator = np.random.default_rng(7)
    for metric in question.metrics:
        gap = quick_gap(metric, sides, units, kind, slow)
        assert gap is not None, f"{task} {metric} is scored draw by draw"
        masks = generator.random((20, 9)) < 0.5
        np.testing.assert_allclose(gap.swapped(masks), slow.gap(metric).swapped(masks), atol=1e-9)
        for draw in generator.integers(9, size=(20, 9)):
            assert gap.drawn(draw) == pytest.approx(slow.drawn(draw)[metric], abs=1e-9)


def test_a_metric_that_only_shares_its_name_is_scored_by_its_own_task() -> None:
    """Another task's `ua` may be anything."""
    strange = replace(
        EMOTION, metrics={"ua": "higher"}, score=lambda _, outcome, __: {"ua": float(np.sum(outcome.predictions == "a"))}
    )
    kind = strange.answer(CLASSES)
    sides = ([outcome_of("emotion", 1).columns(kind)], [outcome_of("emotion", 2).columns(kind)])
    _, units = np.unique(speakers_of(240, 9), return_inverse=True)
    slow = Rescored(sides, units, lambda outcome: strange.score(CLASSES, outcome, {}))
    assert tallies_of("ua")
    assert quick_gap("ua", sides, units, kind, slow) is None
    found = differences(sides, speakers_of(240, 9), strange, CLASSES, {})["ua"]
    assert found.value == sum(np.equal(outcome_of("emotion", 2).predictions, "a")) - sum(
        np.equal(outcome_of("emotion", 1).predictions, "a")
    )


@pytest.mark.parametrize("task", QUESTIONS)
@pytest.mark.parametrize("speakers", [4, 10, 20])
def test_a_system_differs_from_itself_by_nothing_with_p_1(task: str, speakers: int) -> None:
    question, vocabulary = QUESTIONS[task]
    side = [outcome_of(task, 1)]
    for found in differences((side, side), speakers_of(240, speakers), question, vocabulary, {}).values():
        assert (found.value, found.p) == (0.0, 1.0)
        assert found.interval == ((0.0, 0.0) if speakers >= 8 else None)


@pytest.mark.parametrize("task", ["emotion", "dsd", "avd", "asr", "sf"])
def test_changing_the_order_of_the_sides_turns_the_sign_alone(task: str) -> None:
    question, vocabulary = QUESTIONS[task]
    one, other, speakers = [outcome_of(task, 1)], [outcome_of(task, 2)], speakers_of(240, 9)
    there, back = (differences(sides, speakers, question, vocabulary, {}) for sides in ((one, other), (other, one)))
    for metric, found in there.items():
        assert found.value == pytest.approx(-back[metric].value)
        assert found.p == back[metric].p


def test_every_way_of_swapping_few_speakers_is_tried_once() -> None:
    masks = np.concatenate([*swaps(10)])
    assert masks.shape == (1024, 10)
    assert len(np.unique(masks, axis=0)) == 1024
    # by hand: of four speakers who all gain 1, only no swap and all swaps give so much
    assert permutation_p(lambda masks: (1.0 - 2 * masks).sum(axis=1), 4.0, 4) == 2 / 16


def test_many_speakers_are_swapped_at_random_and_p_is_never_0() -> None:
    assert permutation_p(lambda masks: (1.0 - 2 * masks).sum(axis=1), 40.0, 40) == 1 / 10_001


def test_the_random_swaps_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    question, vocabulary = QUESTIONS["emotion"]
    sides = ([outcome_of("emotion", 1)], [outcome_of("emotion", 5)])
    exact = differences(sides, speakers_of(240, 10), question, vocabulary, {})["ua"].p
    monkeypatch.setattr(paired, "MOST_EXACT", 3)
    drawn = differences(sides, speakers_of(240, 10), question, vocabulary, {})["ua"].p
    assert exact is not None
    assert drawn == pytest.approx(exact, abs=0.02)


def test_without_speakers_utterances_change_sides_and_there_is_no_interval() -> None:
    question, vocabulary = QUESTIONS["emotion"]
    found = differences(([outcome_of("emotion", 1)], [outcome_of("emotion", 2)]), [""] * 240, question, vocabulary, {})["wa"]
    assert found.interval is None
    assert found.p is not None
    assert 0 < found.p <= 1


def test_seeds_are_averaged_and_their_spread_is_reported() -> None:
    question, vocabulary = QUESTIONS["emotion"]
    ones, others = [outcome_of("emotion", seed) for seed in (1, 2, 3)], [outcome_of("emotion", seed) for seed in (4, 5, 6)]
    found = differences((ones, others), speakers_of(240, 9), question, vocabulary, {})["wa"]
    gaps = [
        question.score(vocabulary, other, {})["wa"] - question.score(vocabulary, one, {})["wa"]
        for one, other in zip(ones, others, strict=True)
    ]
    assert found.value == pytest.approx(np.mean(gaps))
    assert found.spread == pytest.approx(np.std(gaps, ddof=1))


def test_mcnemar_counts_what_one_side_alone_has_right() -> None:
    truth, one, other = tuple("aaaaaaaaab"), tuple("aaaaaaaaab"), tuple("aabbbbbbbb")
    ids = tuple(map(str, range(10)))
    found = discordant(Outcome(ids, one, truth), Outcome(ids, other, truth))
    assert found is not None
    assert (found.first, found.second) == (7, 0)
    assert found.p == pytest.approx(2 * 0.5**7)
    assert discordant(Outcome(ids, one, truth), Outcome(ids, one, truth)).p == 1.0  # type: ignore[union-attr]
    assert discordant(outcome_of("avd", 1), outcome_of("avd", 2)) is None


@pytest.mark.parametrize(("task", "metric"), [("emotion", "wa"), ("dsd", "acc_point"), ("asr", None)])
def test_the_metric_that_counts_right_predictions_is_found(task: str, metric: str | None) -> None:
    question, vocabulary = QUESTIONS[task]
    outcome = outcome_of(task, 1)
    assert counted_by(question, vocabulary, outcome, {}) == metric
    assert counted_by(question, vocabulary, replace(outcome, predictions=outcome.references), {}) == metric


def test_holm_multiplies_the_smallest_p_most_and_keeps_the_order() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]


def test_five_thousand_utterances_are_compared_in_seconds() -> None:
    question, vocabulary = QUESTIONS["emotion"]
    sides = ([outcome_of("emotion", 1, 5531)], [outcome_of("emotion", 2, 5531)])
    start = time.process_time()
    differences(sides, speakers_of(5531, 10), question, vocabulary, {})
    assert time.process_time() - start < 5


def test_every_ranking_is_a_metric_of_a_task() -> None:
    assert {*RANKINGS} <= {name for question, _ in QUESTIONS.values() for name in question.metrics}
