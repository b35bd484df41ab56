"""Speaker verification: x-vector, loss, trials, metrics, and intervals over speakers on both sides of a trial."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch
from headwater.downstream import metrics
from headwater.downstream.asv import question
from headwater.downstream.asv.answer import Embedding
from headwater.downstream.asv.expert import TASK, Asv, AsvConfig
from headwater.downstream.asv.question import QUESTION, TrialsConfig
from headwater.downstream.asv.trials import cosines, make_trials, score_trials
from headwater.downstream.asv.xvector import SHRINK, XVector, am_softmax, mean_and_deviation
from headwater.downstream.base import Outcome, Output
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.tables import tables_of
from headwater.runs.config.recipes import find_recipe, read_yaml
from headwater.runs.config.resolve import resolve
from headwater.upstream.base import Frames, UpstreamSpec

SPECS = {"audio": UpstreamSpec("audio", 1, 6, 16_000, lambda samples: samples // 320)}
SMALL = AsvConfig(dim=8, pooled_dim=10)
VOCABULARY = {"speakers": ["a", "b", "c"], "dim": 8, "s_norm": None, "p_target": 0.01, "max_trials": 100, "threshold": 0.5}


def theirs(name: str) -> ModuleType:
    """Return a module of s3prl's verification; without the package the test is skipped, or fails where that is asked for."""
    if os.environ.get("HEADWATER_REQUIRE_S3PRL") != "1":
        pytest.importorskip("s3prl", reason="s3prl is not installed")
    return importlib.import_module(f"s3prl.downstream.sv_voxceleb1.{name}")


def expert_of(options: AsvConfig = SMALL, **vocabulary: Any) -> Asv:
    torch.manual_seed(0)
    return TASK.build(options, {**VOCABULARY, **vocabulary}, SPECS)  # type: ignore[return-value]


def outcome_of(vectors: Sequence[Sequence[float]], speakers: str, ids: Sequence[str] | None = None) -> Outcome:
    names = ids or [f"u{row}" for row in range(len(vectors))]
    return Outcome(tuple(names), tuple(np.array(vector, np.float32) for vector in vectors), tuple(speakers.split()))


# head


def test_the_head_is_s3prls_with_its_weights() -> None:
    model = theirs("model")
    options = {"agg_dim": 10, "dropout_p": 0.0, "batch_norm": False}
    torch.manual_seed(1)
    other = model.Model(8, 10, "SP", "XVector", "UtteranceExtractor", options)
    connector, objective = torch.nn.Linear(6, 8), model.AMSoftmaxLoss(8, 3)
    expert = expert_of()
    expert.xvector.projector.load_state_dict(connector.state_dict())
    for ours, layer in zip(expert.xvector.layers, other.framelevel_feature_extractor.module, strict=True):
        ours.linear.load_state_dict(layer.kernel.state_dict())
    expert.xvector.embedding.load_state_dict(other.utterancelevel_feature_extractor.linear1.state_dict())
    expert.last.load_state_dict(other.utterancelevel_feature_extractor.linear2.state_dict())
    expert.speakers.data = objective.W.data.T.clone()
    values = torch.randn(4, 33, 6)
    nothing_padded = torch.zeros(4, 33 - SHRINK)
    output = expert({"audio": Frames(values, (33,) * 4)})
    expected = other.inference(connector(values), nothing_padded)
    assert torch.allclose(output.values, expected, atol=1e-5)
    loss = objective(other(connector(values), nothing_padded), torch.tensor([0, 2, 1, 1]))
    ours_loss = expert.loss(output, Batch(None, (), ids=tuple("1234"), targets=("a", "c", "b", "b")))
    assert float(loss.detach()) == pytest.approx(float(ours_loss.detach()), abs=1e-5)


def test_padding_does_not_change_an_embedding() -> None:
    head = expert_of().xvector
    values = torch.randn(2, 40, 6)
    values[1, 25:] = 1000.0
    both = head(Frames(values, (40, 25)))
    assert torch.allclose(both[1], head(Frames(values[1:, :25], (25,)))[0], atol=1e-5)


@pytest.mark.parametrize("length", [1, 3, SHRINK, SHRINK + 1])
def test_an_utterance_shorter_than_a_stretch_has_an_embedding_of_its_own(length: int) -> None:
    head = expert_of().xvector
    values = torch.randn(1, length, 6)
    alone = head(Frames(values, (length,)))
    assert alone.isfinite().all()
    beside = torch.cat([values, torch.full((1, 30, 6), 50.0)], dim=1)
    assert torch.allclose(alone, head(Frames(beside, (length,))), atol=1e-5)


def test_the_statistics_are_mean_and_sample_deviation_of_valid_frames() -> None:
    values = torch.randn(2, 5, 3)
    valid = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    found = mean_and_deviation(values, valid)
    assert torch.allclose(found[0], torch.cat([values[0].mean(0), values[0].std(0)]), atol=1e-6)
    assert torch.allclose(found[1], torch.cat([values[1, :2].mean(0), values[1, :2].std(0)]), atol=1e-6)


def test_the_deviation_of_one_frame_is_zero_and_its_gradient_a_number() -> None:
    values = torch.ones(1, 3, 2, requires_grad=True)
    mean_and_deviation(values, torch.ones(1, 3, dtype=torch.bool)).sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert mean_and_deviation(torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool)).tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_the_five_layers_have_the_x_vectors_contexts() -> None:
    head = XVector(6, 8, 10)
    assert [tuple(layer.linear.weight.shape) for layer in head.layers] == [(8, 40), (8, 24), (8, 24), (8, 8), (10, 8)]
    assert SHRINK == 14
    assert tuple(head.embedding.weight.shape) == (8, 20)


# loss


def test_am_softmax_by_hand() -> None:
    embeddings, weights = torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    own, other = math.exp(30 * (1 - 0.4)), math.exp(0.0)
    found = am_softmax(embeddings, weights, torch.tensor([0]), 30.0, 0.4)
    assert float(found) == pytest.approx(-math.log(own / (own + other)), abs=1e-7)
    wrong = am_softmax(embeddings, weights, torch.tensor([1]), 30.0, 0.4)
    assert float(wrong) == pytest.approx(-math.log(math.exp(-12.0) / (math.exp(-12.0) + math.exp(30.0))))


def test_the_loss_of_speakers_whom_training_does_not_know_is_no_number() -> None:
    expert = expert_of()
    output = Output(torch.rand(3, 8))
    assert math.isnan(float(expert.loss(output, Batch(None, (), ids=tuple("123"), targets=("x", "y", "z")))))
    mixed = expert.loss(output, Batch(None, (), ids=tuple("123"), targets=("x", "b", "z")))
    alone = expert.loss(Output(output.values[1:2]), Batch(None, (), ids=("2",), targets=("b",)))
    assert torch.equal(mixed, alone)


def test_training_leaves_out_what_is_not_longer_than_two_seconds() -> None:
    expert = expert_of()
    assert [expert.can_train_on("a", seconds) for seconds in (1.9, 2.0, 2.01)] == [False, False, True]


def test_a_crop_is_optional() -> None:
    long = Utterance("l", "l.wav", duration=20.0)
    assert expert_of().crop(long, torch.Generator().manual_seed(0)) == long
    assert expert_of(replace(SMALL, crop_seconds=4.0)).crop(long, torch.Generator().manual_seed(0)).duration == 4.0


# trials


def test_all_pairs_are_trials_where_they_are_few() -> None:
    trials = make_trials(["u2", "u1", "u3"], ["b", "a", "a"], most=3)
    assert trials == [(0, "u1", "u2"), (1, "u1", "u3"), (0, "u2", "u3")]


def test_a_draw_of_trials_is_balanced_without_repetition_and_always_the_same() -> None:
    ids, speakers = [f"u{row:03d}" for row in range(60)], [f"s{row % 6}" for row in range(60)]
    trials = make_trials(ids, speakers, most=100)
    voice = dict(zip(ids, speakers, strict=True))
    assert sum(label for label, *_ in trials) == 50
    assert len({(one, other) for _, one, other in trials}) == len(trials) == 100
    assert all(label == (voice[one] == voice[other]) and one != other for label, one, other in trials)
    assert trials == make_trials(ids[::-1], speakers[::-1], most=100)


def test_a_split_with_fewer_pairs_of_one_kind_than_asked_for_gives_those() -> None:
    ids, speakers = [f"u{row:03d}" for row in range(30)], ["a", "a", *(f"s{row}" for row in range(28))]
    trials = make_trials(ids, speakers, most=40)
    assert sum(label for label, *_ in trials) <= 1
    assert sum(not label for label, *_ in trials) == 20


def corpus_of(**splits: str) -> Corpus:
    rows = {
        split: tuple(
            Utterance(f"{split}{n}", "x.wav", speaker=None if who == "-" else who) for n, who in enumerate(words.split())
        )
        for split, words in splits.items()
    }
    return Corpus("mine", "split", None, rows)


def test_a_corpus_without_a_list_has_the_pairs_of_its_speakers() -> None:
    corpus = corpus_of(train="a b", dev="c c d -")
    assert tables_of(QUESTION, corpus, "dev") == {"trials": [[1, "dev0", "dev1"], [0, "dev0", "dev2"], [0, "dev1", "dev2"]]}
    given = replace(corpus, split_tables={"dev": {"trials": [(1, "dev0", "dev1")]}})
    assert tables_of(QUESTION, given, "dev") == {"trials": [[1, "dev0", "dev1"]]}


@pytest.mark.parametrize("dev", ["c c c", "c d e"])
def test_a_split_of_one_kind_of_trial_is_refused(dev: str) -> None:
    with pytest.raises(UserError, match=r"Expected trials of one speaker and of two in split 'dev' of mine, found \d and \d"):
        tables_of(QUESTION, corpus_of(train="a b", dev=dev), "dev")


@pytest.mark.parametrize(("train", "found"), [("- -", "none"), ("a a -", "only a")])
def test_training_on_fewer_than_two_speakers_is_refused(train: str, found: str) -> None:
    with pytest.raises(UserError, match=rf"at least two speakers in split 'train' .* found {found}\. .* column 'speaker'"):
        question.make_vocabulary(TrialsConfig(), LabelsConfig(), corpus_of(train=train))


def test_labels_are_refused() -> None:
    with pytest.raises(UserError, match=r"Expected no labels\.column for asv, whose labels are the speakers, found emotion"):
        question.make_vocabulary(TrialsConfig(), LabelsConfig(column="emotion"), corpus_of(train="a b"))


# scores


def test_a_trial_scores_the_cosine_of_its_embeddings() -> None:
    outcome = outcome_of([[1, 0], [2, 2], [0, 1]], "a a b")
    scored = score_trials(outcome, [(1, "u0", "u1"), (0, "u0", "u2"), (0, "u1", "gone")], normalizes=False)
    assert scored.scores.tolist() == pytest.approx([math.sqrt(0.5), 0.0])
    assert scored.is_target.tolist() == [True, False]


def test_several_runs_make_their_trials_apart() -> None:
    outcome = outcome_of([[1, 0], [1, 0], [0, 1], [1, 1]], "a a a a", ids=["u0", "u1", "u0", "u1"])
    scored = score_trials(outcome, [(1, "u0", "u1")], normalizes=False)
    assert scored.scores.tolist() == pytest.approx([1.0, math.sqrt(0.5)])


def test_s_norm_by_hand() -> None:
    vectors = np.array([[1.0, 0.0, 0.2, 0.1], [0.6, 0.8, 0.4, 0.2]])
    found = cosines(vectors, np.array([0]), np.array([1]), normalizes=True)
    assert found.tolist() == pytest.approx([((0.6 - 0.2) / 0.1 + (0.6 - 0.4) / 0.2) / 2])


def test_s_norm_takes_the_nearest_training_speakers() -> None:
    expert = expert_of(replace(SMALL, s_norm=2), s_norm=2)
    expert.cohort.copy_(torch.eye(8)[:3])
    values = torch.tensor([[3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    row = expert.decode(Output(values))[0]
    assert row[:8].tolist() == pytest.approx([0.6, 0.8, *[0.0] * 6])
    assert row[8:].tolist() == pytest.approx([0.7, 0.1])  # of 0.8 and 0.6
    assert question.answer(expert.vocabulary).score_names[-2:] == ("cohort_mean", "cohort_deviation")


def test_training_remembers_the_mean_embedding_of_each_speaker() -> None:
    expert = expert_of(replace(SMALL, s_norm=2), s_norm=2).train()
    first, second = torch.eye(8)[:2], torch.eye(8)[2:4]
    expert.loss(Output(first), Batch(None, (), ids=("1", "2"), targets=("a", "a")))
    assert torch.allclose(expert.cohort[0], first.mean(dim=0))
    expert.loss(Output(second), Batch(None, (), ids=("1", "2"), targets=("a", "b")))
    assert torch.allclose(expert.cohort[0], 0.9 * first.mean(dim=0) + 0.1 * second[0])
    assert torch.allclose(expert.cohort[1], second[1])
    assert not expert.cohort[2].any()
    before = expert.cohort.clone()
    expert.eval().loss(Output(second), Batch(None, (), ids=("1", "2"), targets=("a", "b")))
    assert torch.equal(expert.cohort, before)


def test_windows_are_averaged_and_of_length_one_again() -> None:
    windows = [(1.0, torch.tensor([1.0, 0.0, 0.2, 0.1])), (1.0, torch.tensor([0.0, 1.0, 0.4, 0.3]))]
    found = Embedding(2, 0.5, normalizes=True).average(windows)
    assert found.tolist() == pytest.approx([math.sqrt(0.5), math.sqrt(0.5), 0.3, 0.2])


# metrics


def random_scores(seed: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([[1, 0], generator.integers(2, size=count - 2)])
    return labels, np.round(generator.normal(size=count) + labels, 2 if seed % 2 else 6)  # of odd seeds many are equal


@pytest.mark.parametrize("seed", range(6))
def test_the_eer_is_s3prls(seed: int) -> None:
    labels, scores = random_scores(2 * seed)
    expected, _ = theirs("utils").EER(labels, scores)
    assert metrics.equal_error_rate(labels, scores)[0] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("p_target", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_the_detection_cost_is_the_least_over_all_thresholds(seed: int, p_target: float) -> None:
    labels, scores = random_scores(seed)
    costs = [min(p_target, 1 - p_target)]  # nothing, or everything, is accepted
    for threshold in scores:
        missed = np.mean(scores[labels == 1] < threshold)
        accepted = np.mean(scores[labels == 0] >= threshold)
        costs.append(p_target * missed + (1 - p_target) * accepted)
    assert metrics.min_detection_cost(labels, scores, p_target) == pytest.approx(min(costs) / min(p_target, 1 - p_target))


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_repetitions(seed: int) -> None:
    labels, scores = random_scores(seed, 60)
    weights = np.random.default_rng(seed).integers(4, size=60)
    repeated = np.repeat(labels, weights), np.repeat(scores, weights)
    assert metrics.equal_error_rate(labels, scores, weights) == pytest.approx(metrics.equal_error_rate(*repeated))
    assert metrics.min_detection_cost(labels, scores, 0.05, weights) == pytest.approx(metrics.min_detection_cost(*repeated, 0.05))


# intervals over speakers


def test_a_draw_counts_the_copies_of_speakers_on_both_sides() -> None:
    outcome = outcome_of([[1, 0], [1, 1], [0, 1], [1, 2], [2, 1]], "a a b b c")
    trials = [(1, "u0", "u1"), (1, "u2", "u3"), (0, "u0", "u2"), (0, "u1", "u4"), (0, "u3", "u4")]
    scored = score_trials(outcome, trials, normalizes=False)
    rows = np.array([0, 1, 0, 1, 0, 1, 2, 3, 2, 3])  # a three times, b twice, c not at all
    counted = scored.weights(np.bincount(rows, minlength=5)).tolist()
    weights = dict(zip(zip(scored.first.tolist(), scored.second.tolist(), strict=True), counted, strict=True))
    assert weights == {(0, 1): 3, (2, 3): 2, (0, 2): 6, (1, 4): 0, (3, 4): 0}


def test_the_whole_split_is_the_draw_of_each_row_once() -> None:
    generator = np.random.default_rng(0)
    outcome = outcome_of(generator.normal(size=(12, 4)).tolist(), "a a a b b b c c c d d d")
    tables = tables_of(QUESTION, Corpus("m", "s", None, {"dev": utterances_of(outcome)}), "dev")
    whole = question.score(VOCABULARY, outcome, tables)
    assert question.scorer(VOCABULARY, outcome, tables)(np.arange(12)) == whole
    part = question.score(VOCABULARY, outcome.take([0, 1, 3, 4]), tables)
    assert part == question.scorer(VOCABULARY, outcome, tables)(np.array([0, 1, 3, 4]))
    assert all(math.isnan(value) for value in question.score(VOCABULARY, outcome.take([0, 1]), tables).values())


def utterances_of(outcome: Outcome) -> tuple[Utterance, ...]:
    return tuple(Utterance(name, f"{name}.wav", speaker=who) for name, who in zip(outcome.ids, outcome.references, strict=True))


def test_the_interval_covers_the_error_rate_of_all_speakers() -> None:
    """Speakers differ in how alike they are to others: an interval that resampled trials would cover too seldom."""
    generator, covered, blind, repeats = np.random.default_rng(3), 0, 0, 24
    truth = simulated_eer(generator, 500)
    for _ in range(repeats):
        outcome = simulated(generator, 16)
        trials = make_trials(list(outcome.ids), list(outcome.references), most=10_000)
        tables, groups = {"trials": trials}, list(outcome.references)
        scorer = question.scorer(VOCABULARY, outcome, tables)
        found = metrics.bootstrap_interval(lambda rows, scorer=scorer: scorer(rows)["eer"], groups, repeats=100)
        assert found is not None
        covered += found[0] <= truth <= found[1]
        scored = score_trials(outcome, trials, normalizes=False)
        low, high = over_trials(scored.is_target, scored.scores, generator)
        blind += low <= truth <= high
    assert covered / repeats >= 0.8  # 0.95 of 400 such draws
    assert blind < covered


def simulated(generator: np.random.Generator, speakers: int) -> Outcome:
    places = generator.normal(size=(speakers, 6)) + generator.normal(size=6)
    spread = generator.uniform(0.5, 1.6, size=(speakers, 1, 1))
    vectors = (places[:, None] + spread * generator.normal(size=(speakers, 5, 6))).reshape(-1, 6)
    return outcome_of(vectors.tolist(), " ".join(f"s{number:04d}" for number in range(speakers) for _ in range(5)))


def simulated_eer(generator: np.random.Generator, speakers: int) -> float:
    outcome = simulated(generator, speakers)
    trials = make_trials(list(outcome.ids), list(outcome.references), most=40_000)
    return question.score(VOCABULARY, outcome, {"trials": trials})["eer"]


def over_trials(labels: np.ndarray, scores: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    draws = (generator.integers(len(labels), size=len(labels)) for _ in range(40))
    values = [metrics.equal_error_rate(labels[rows], scores[rows])[0] for rows in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


# threshold, answer, recipe


def test_dev_places_the_threshold_where_misses_equal_false_alarms() -> None:
    outcome = outcome_of([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], "a a b b")
    tables = question.make_tables(
        100, "dev", [Utterance(name, "", speaker=who) for name, who in zip(outcome.ids, "aabb", strict=True)]
    )
    placed = question.calibrate(VOCABULARY, outcome, tables)["threshold"]
    assert 0.2 < placed < 0.99
    found = question.answer({**VOCABULARY, "dim": 2, "threshold": placed}).pairs()
    assert found(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.1]))[1] == "same"
    assert found(torch.tensor([1.0, 0.0]), torch.tensor([0.1, 1.0]))[1] == "different"
    assert question.calibrate(VOCABULARY, outcome.take([0, 1]), tables)["threshold"] == 0.5


def test_dev_places_the_threshold_on_the_trials_that_the_corpus_lists() -> None:
    """Among all pairs those of (a, b) are the hard ones; the list leaves them out, and the threshold lies lower."""
    outcome = outcome_of([[1, 0], [1, 0.9], [0, 1], [0.1, 1]], "a a b b")
    one, two, three, four = outcome.ids
    listed = {"trials": [(1, one, two), (1, three, four), (0, one, three), (0, one, four)]}
    every = {"trials": [*listed["trials"], (0, two, three), (0, two, four)]}
    assert (
        question.calibrate(VOCABULARY, outcome, listed)["threshold"] < question.calibrate(VOCABULARY, outcome, every)["threshold"]
    )


def test_an_embedding_is_written_and_read() -> None:
    answer = Embedding(2, 0.5)
    value = np.array([0.123456789, -2.0], np.float32)
    row = dict(zip(answer.columns("prediction"), answer.write(value), strict=True))
    assert row == {"prediction_0": "0.123457", "prediction_1": "-2"}
    assert np.allclose(answer.read(row, "prediction"), value, atol=1e-6)
    assert answer.read({"reference": "a"}, "reference") == "a"
    assert answer.fits("a")
    assert answer.fits(value)
    assert not answer.fits(np.zeros(3, np.float32))


def test_an_upstream_of_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"Expected an upstream of audio alone for asv, found audio and text"):
        TASK.build(SMALL, VOCABULARY, {**SPECS, "text": SPECS["audio"]})


def test_the_superb_recipe_is_s3prls_experiment() -> None:
    config = resolve([read_yaml(find_recipe("superb/asv")), {"upstream": {"name": "hubert"}}])
    training, optimizer, expert = config.training, config.optimizer, config.only.expert
    assert (training.steps, training.batch_size, training.piece_size, training.patience) == (200_000, 50, 10, None)
    assert (optimizer.name, optimizer.lr, optimizer.clip, optimizer.weight_decay) == ("adamw", 1e-4, 1000.0, 0.0)
    assert (expert.dim, expert.pooled_dim, expert.scale, expert.margin, expert.s_norm) == (512, 1500, 30.0, 0.4, None)
    assert (config.only.corpus.protocol, config.only.select_by) == ("veri", "eer")


def test_the_usual_corpus_of_verification_is_read_by_speaker() -> None:
    assert resolve([{"task": "asv", "upstream": {"name": "fbank"}}]).only.corpus.protocol == "veri"
    assert resolve([{"task": "sid", "upstream": {"name": "fbank"}}]).only.corpus.protocol == "iden"


def test_a_loss_by_float16_frames_is_formed_in_float32() -> None:
    loss = am_softmax(torch.rand(2, 8, dtype=torch.bfloat16), torch.rand(3, 8), torch.tensor([0, 1]), 30.0, 0.4)
    assert loss.dtype == torch.float32
    assert F.relu(loss).equal(loss)


def test_every_pair_of_a_small_split_is_a_trial() -> None:
    ids = [f"u{row}" for row in range(5)]
    assert [(one, other) for _, one, other in make_trials(ids, list("aabbc"), most=10)] == list(combinations(ids, 2))
