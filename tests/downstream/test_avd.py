"""Arousal, valence, dominance: the loss, the pooling, the paper's sizes, and scales."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch
from headwater.downstream.avd import question
from headwater.downstream.avd.expert import Avd, AvdConfig, build, concordance_loss
from headwater.downstream.base import Outcome, Output
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.metrics import concordance
from headwater.upstream.base import Frames, UpstreamConfig, UpstreamSpec
from headwater.upstream.hub.models import class_of, configure, wrap
from headwater.upstream.hub.tiny import tiny_model

VOCABULARY = {"dimensions": ["arousal", "valence", "dominance"], "scale": [1.0, 7.0]}


def spec_of(dim: int, role: str = "audio") -> UpstreamSpec:
    return UpstreamSpec("text" if role == "text" else "audio", 1, dim, 16_000, lambda samples: samples // 320)


def make(dims: dict[str, int] | None = None, vocabulary: dict[str, Any] | None = None, **options: Any) -> Avd:
    torch.manual_seed(0)
    specs = {role: spec_of(dim, role) for role, dim in (dims or {"audio": 5}).items()}
    return build(AvdConfig(**options), vocabulary or VOCABULARY, specs)


def batch_of(targets: Sequence[tuple[float, ...]]) -> Batch:
    return Batch(None, (), ids=tuple(map(str, range(len(targets)))), targets=tuple(targets))


# the loss


def test_two_utterances_have_the_ccc_worked_out_by_hand() -> None:
    # means 1/2 and 1/4, variances 1/4 and 1/16, covariance 1/8: 2/8 / (1/4 + 1/16 + 1/16) = 2/3
    loss = concordance_loss(torch.tensor([[0.0], [0.5]]), torch.tensor([[0.0], [1.0]]))
    assert float(loss) == pytest.approx(1 / 3, rel=1e-5)


def test_the_loss_is_the_mean_over_dimensions() -> None:
    values, targets = torch.tensor([[0.0, 0.0], [0.5, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert float(concordance_loss(values, targets)) == pytest.approx((1 / 3 + 0) / 2, rel=1e-5)


def test_the_loss_is_one_minus_the_metric() -> None:
    truth, prediction = [3.0, -0.5, 2.0, 7.0], [2.5, 0.0, 2.0, 8.0]
    loss = concordance_loss(torch.tensor(prediction).unsqueeze(1), torch.tensor(truth).unsqueeze(1))
    assert concordance(truth, prediction) == pytest.approx(0.97678917, abs=1e-8)  # population moments, as Lin's
    assert 1 - float(loss) == pytest.approx(0.97678917, abs=1e-6)


def test_the_order_of_a_step_changes_nothing() -> None:
    values, targets = torch.rand(2, 9, 3, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(9)
    torch.testing.assert_close(concordance_loss(values[order], targets[order]), concordance_loss(values, targets))


def test_gradients_are_those_of_finite_differences() -> None:
    values, targets = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets[:, 1] = 0.5  # of a constant column too
    assert torch.autograd.gradcheck(concordance_loss, (values.requires_grad_(), targets))


@pytest.mark.parametrize(
    ("values", "targets"), [([0.1, 0.7, 0.3], [0.5] * 3), ([0.5] * 3, [0.1, 0.7, 0.3]), ([0.5] * 3, [0.5] * 3)]
)
def test_a_constant_side_costs_one_and_its_gradient_is_finite(values: list[float], targets: list[float]) -> None:
    predictions = torch.tensor(values).unsqueeze(1).requires_grad_()
    loss = concordance_loss(predictions, torch.tensor(targets).unsqueeze(1))
    loss.backward()
    assert loss.item() == pytest.approx(1.0, abs=1e-6)
    assert predictions.grad is not None
    assert bool(predictions.grad.isfinite().all())


def test_a_batch_of_one_costs_one_and_teaches_nothing() -> None:
    predictions = torch.tensor([[0.2, 0.4, 0.9]], requires_grad=True)
    loss = concordance_loss(predictions, torch.tensor([[0.1, 0.5, 0.9]]))
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert predictions.grad is not None
    assert float(predictions.grad.abs().max()) == 0


def test_constant_ratings_of_a_step_give_one_note_and_the_others_train(caplog: pytest.LogCaptureFixture) -> None:
    expert = make().train()
    output = Output(torch.rand(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True))
    batch = batch_of([(0.2, 0.5, 0.1), (0.4, 0.5, 0.9), (0.9, 0.5, 0.3), (0.7, 0.5, 0.4)])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            loss = expert.loss(output, batch)
    assert [record.getMessage() for record in caplog.records] == [
        "All 4 utterances of a step have the same valence: it trains nothing there."
    ]
    loss.backward()
    gradient = output.values.grad
    assert gradient is not None
    assert float(gradient[:, 1].abs().max()) == 0
    assert float(gradient[:, 0].abs().max()) > 0


def test_autocast_to_bf16_does_not_touch_the_loss_of_a_prediction() -> None:
    expert = make().train()
    values = torch.rand(16, 3, generator=torch.Generator().manual_seed(0))
    batch = batch_of([tuple(row) for row in torch.rand(16, 3, generator=torch.Generator().manual_seed(1)).tolist()])
    expected = expert.loss(Output(values), batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert float((expert.loss(Output(values), batch) - expected).abs()) <= 1e-6


def test_the_loss_of_a_split_is_that_of_all_of_it() -> None:
    expert = make()
    references = ((1.0, 2.0, 3.0), (5.0, 4.0, 6.0), (2.0, 6.0, 4.0))
    predictions = ((2.0, 2.0, 3.0), (4.0, 4.0, 4.0), (2.0, 5.0, 4.0))
    outcome = Outcome(("a", "b", "c"), predictions, references)
    columns = [concordance([row[index] for row in references], [row[index] for row in predictions]) for index in range(3)]
    assert expert.split_loss(outcome) == pytest.approx(1 - np.mean(columns))
    scores = question.score(VOCABULARY, outcome, {})
    assert scores["ccc"] == pytest.approx(np.mean(columns))
    assert scores["rmse_arousal"] == pytest.approx(math.sqrt(2 / 3))
    assert {*scores} == {*question.QUESTION.metrics}


# the head


def frames() -> Frames:
    values = torch.tensor([[[1.0, -2.0], [3.0, -4.0], [5.0, -9.0]], [[7.0, -1.0], [99.0, 99.0], [99.0, 99.0]]])
    return Frames(values, (3, 1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[(3 + 5) / 2, (-5 - 2) / 2], [7.0, -1.0]]),
        ({"combine": "sum"}, [[8.0, -7.0], [14.0, -2.0]]),
        ({"combine": "concat"}, [[3.0, -5.0, 5.0, -2.0], [7.0, -1.0, 7.0, -1.0]]),
        ({"pooling": "mean"}, [[3.0, -5.0], [7.0, -1.0]]),
    ],
)
def test_poolings_have_the_values_worked_out_by_hand(options: dict[str, Any], expected: list[list[float]]) -> None:
    expert = make({"audio": 2}, **options)
    torch.testing.assert_close(expert.fusion({"audio": frames()}), torch.tensor(expected))


def test_a_mean_alone_lets_the_store_keep_one_vector() -> None:
    assert make(pooling="mean").pools == {"audio": "mean"}
    assert make().pools == {"audio": None}


def test_the_regressor_is_linear_dropout_tanh_linear() -> None:
    expert = make({"audio": 2}, hidden_dim=4).eval()
    first, last = expert.regressor[0], expert.regressor[3]
    pooled = expert.fusion({"audio": frames()})
    expected = torch.tanh(pooled @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(expert({"audio": frames()}).values, expected)


def test_one_dimension_alone_is_predicted_alone() -> None:
    expert = make(vocabulary={"dimensions": ["valence"], "scale": [1.0, 5.0]})
    assert expert.regressor[3].out_features == 1
    assert {*question.question_of(["valence"]).metrics} == {"ccc", "ccc_valence", "pearson_valence", "rmse_valence"}


def test_ratings_are_on_the_corpus_scale_and_predict_clips_them() -> None:
    prediction = question.answer(VOCABULARY)
    predictions, scores = prediction.decided(make().decode(Output(torch.tensor([[0.0, 0.5, 1.0], [-0.5, 0.25, 2.0]]))))
    assert scores is not None
    assert predictions == ((1.0, 4.0, 7.0), (-2.0, 2.5, 13.0))
    assert prediction.joined([(1.0, scores[1])])[0] == (1.0, 2.5, 7.0)
    assert scores.tolist() == [[1.0, 4.0, 7.0], [-2.0, 2.5, 13.0]]


def test_a_target_becomes_the_rating_that_it_was() -> None:
    row = Utterance("u", "u.wav", labels={"arousal": 1, "valence": "4", "dominance": 6.4})
    target = question.target(VOCABULARY, row)
    assert target == pytest.approx((0.0, 0.5, 0.9))
    assert question.reference(VOCABULARY, target) == pytest.approx((1.0, 4.0, 6.4))


def test_a_long_files_ratings_are_averaged_by_seconds() -> None:
    windows = [(3.0, torch.tensor([1.0, 4.0, 8.0])), (1.0, torch.tensor([5.0, 4.0, 8.0]))]
    ratings, scores = question.answer(VOCABULARY).joined(windows)
    assert ratings == pytest.approx((2.0, 4.0, 7.0))
    assert scores is not None
    assert scores.tolist() == pytest.approx([2.0, 4.0, 7.0])


# the paper's sizes (its Table 1, millions of weights)

_HUBERT: dict[str, Any] = {"model_type": "hubert"}
_ROBUST = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
_TINYBERT = {
    "model_type": "bert",
    "hidden_size": 312,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "intermediate_size": 1200,
}
AUDIO = {
    "distilhubert": (_HUBERT | {"num_hidden_layers": 2, "feat_proj_layer_norm": False}, None, 24, 39),
    "hubert_base": (_HUBERT, None, 95, 109),
    "w2v2_large_robust_pruned": (_ROBUST, 12, 165, 180),
}


def weights_of(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def model_of(described: dict[str, Any], **made: Any) -> Any:
    """A model of a config on the meta device: its sizes without its memory."""
    kind = class_of(described["model_type"])
    settings = configure(
        kind.config_class(**{key: value for key, value in described.items() if key != "model_type"}), UpstreamConfig()
    )
    with torch.device("meta"):
        return kind(settings, **made)


@pytest.mark.parametrize("name", AUDIO)
def test_weights_of_upstreams_and_head_are_those_of_the_papers_table(name: str) -> None:
    described, keep, alone, with_text = AUDIO[name]
    audio = wrap(model_of(described), UpstreamConfig(keep_layers=keep))
    tinybert = model_of(_TINYBERT, add_pooling_layer=False)
    for text, millions in ((None, alone), (tinybert, with_text)):
        specs = {"audio": audio.spec} | ({"text": spec_of(text.config.hidden_size, "text")} if text is not None else {})
        with torch.device("meta"):
            expert = build(AvdConfig(), VOCABULARY, specs)
        total = weights_of(audio) + weights_of(expert) + (0 if text is None else weights_of(text))
        assert round(total / 1e6) == millions, total


def test_a_pruned_model_ends_in_the_final_norm_of_the_whole_ones_layer() -> None:
    whole, pruned = (wrap(tiny_model("test_hubert_large"), UpstreamConfig(keep_layers=keep)).eval() for keep in (None, 2))
    waveform = [torch.randn(8000, generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        middle, last = whole(waveform).values[2], pruned(waveform).values[-1]
        expected = whole.model.encoder.layer_norm(middle)  # type: ignore[union-attr]
    assert pruned.spec.num_layers == 3
    torch.testing.assert_close(last, expected)
    assert not torch.allclose(middle, expected, atol=1e-2)


# scales and ratings


def corpus_of(*ratings: tuple[Any, ...], scale: tuple[float, float] | None = None, dev: int = 1) -> Corpus:
    rows = [
        Utterance(f"u{index}", f"u{index}.wav", labels=dict(zip(question.DIMENSIONS, row, strict=False)))
        for index, row in enumerate(ratings)
    ]
    return Corpus("mine", "split", None, {"train": tuple(rows[:-dev]), "dev": tuple(rows[-dev:])}, scale=scale)


GOOD = ((1, 2, 3), (7, 5, 4), (4, 4, 4))


def vocabulary_of(corpus: Corpus, **options: Any) -> dict[str, Any]:
    return question.make_vocabulary(AvdConfig(**options), LabelsConfig(), corpus)


def test_the_scale_is_that_of_the_corpus_or_of_the_option() -> None:
    assert vocabulary_of(corpus_of(*GOOD, scale=(1, 7)))["scale"] == [1.0, 7.0]
    assert vocabulary_of(corpus_of(*GOOD), scale=[0.0, 10.0])["scale"] == [0.0, 10.0]


def test_dimensions_keep_their_order_however_they_are_named() -> None:
    found = vocabulary_of(corpus_of(*GOOD, scale=(1, 7)), dimensions=["dominance", "arousal"])
    assert found["dimensions"] == ["arousal", "dominance"]


def test_utterances_without_all_ratings_are_passed_over() -> None:
    corpus = corpus_of(*GOOD, scale=(1, 7))
    rows = [*corpus.splits["train"], Utterance("half", "h.wav", labels={"arousal": 3, "valence": "", "dominance": 2})]
    assert [row.id for row in question.select(VOCABULARY, rows)] == ["u0", "u1"]
    assert [row.id for row in question.select({"dimensions": ["arousal"]}, rows)] == ["u0", "u1", "half"]


WRONG: dict[str, tuple[Corpus, dict[str, Any], str]] = {
    "unknown scale": (
        corpus_of(*GOOD),
        {},
        r"the scale of the ratings of mine, which go from 1 to 7, found none\. Say it: -o avd\.scale",
    ),
    "outside": (
        corpus_of((1, 2, 3), (9, 5, 4), (4, 4, 4), scale=(1, 7)),
        {},
        r"from 1 to 7 in mine, found arousal 9 of 'u1' \(1 of 9 are outside; all go from 1 to 9\)\. Mend them",
    ),
    "two scales": (
        corpus_of((1, 2, 3), (7, 5, 4), (0.2, 0.4, 0.9), (6, 4, 4), (0.5, 0.1, 2), scale=(1, 7)),
        {},
        r"found arousal 0\.2 of 'u2' .* It looks as if two scales were mixed\.",
    ),
    "constant": (
        corpus_of((1, 4, 3), (7, 4, 4), (4, 4, 4), scale=(1, 7)),
        {},
        r"ratings of valence that differ in the training split of mine, found 4 in all 2\. .*\[arousal, dominance\]",
    ),
    "all constant": (
        corpus_of((4,), (4,), (5,), scale=(1, 7)),
        {"dimensions": ["arousal"]},
        r"found 4 in all 2\. Rate more utterances",
    ),
    "nothing rated": (
        corpus_of((), (), (), scale=(1, 7)),
        {},
        r"Expected ratings of arousal, valence, dominance in mine, found none",
    ),
    "no dev": (corpus_of((1, 2, 3), (7, 5, 4), (4, 4), scale=(1, 7)), {}, r"rated utterances in split 'dev' of mine, found none"),
    "a word": (corpus_of(("loud", 2, 3), *GOOD, scale=(1, 7)), {}, r"numbers as ratings of 'u0', found arousal 'loud'"),
    "no dimension": (
        corpus_of(*GOOD, scale=(1, 7)),
        {"dimensions": []},
        r"at least one dimension in avd\.dimensions, found none",
    ),
    "a scale upside down": (
        corpus_of(*GOOD),
        {"scale": [7.0, 1.0]},
        r"Expected avd\.scale='\[LOWEST, HIGHEST\]', found \[7, 1\]",
    ),
    "half a scale": (corpus_of(*GOOD), {"scale": [7.0]}, r"Expected avd\.scale='\[LOWEST, HIGHEST\]', found \[7\]"),
    "three ends": (corpus_of(*GOOD), {"scale": [1.0, 4.0, 7.0]}, r"Expected avd\.scale='\[LOWEST, HIGHEST\]', found \[1, 4, 7\]"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_ratings_that_nothing_can_be_trained_on_are_refused(mistake: str) -> None:
    corpus, options, message = WRONG[mistake]
    with pytest.raises(UserError, match=message):
        vocabulary_of(corpus, **options)


def test_another_corpus_ratings_are_brought_to_the_runs_scale() -> None:
    adapted, message = question.adapt(VOCABULARY, LabelsConfig(), corpus_of((1, 2, 3), (5, 5, 4), scale=(1, 5)))
    assert adapted["scale"] == [1.0, 5.0]
    assert message == "ratings from 1 to 5, brought to the run's scale from 1 to 7"


def test_a_table_that_says_no_scale_is_taken_to_have_the_runs() -> None:
    adapted, message = question.adapt(VOCABULARY, LabelsConfig(), corpus_of((1, 2, 3), (5, 5, 4)))
    assert adapted["scale"] == [1.0, 7.0]
    assert message == "ratings from 1 to 7, the run's scale, since the corpus says none"


def test_a_table_beyond_the_runs_scale_is_refused() -> None:
    with pytest.raises(UserError, match=r"Expected ratings from 1 to 7 in mine, found arousal 80 of 'u0'"):
        question.adapt(VOCABULARY, LabelsConfig(), corpus_of((80, 2, 3), (5, 5, 4)))


def test_tokens_may_be_pooled_otherwise_than_frames() -> None:
    specs = {"audio": 4, "text": 5}
    pools = {choice: make(specs, pooling="mean", text_pooling=choice).pools for choice in (None, "mean", "cls", "last")}
    assert pools[None] == pools["mean"] == {"audio": "mean", "text": "mean"}
    assert pools["cls"] == pools["last"] == {"audio": "mean", "text": None}
