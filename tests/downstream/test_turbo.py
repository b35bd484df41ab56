"""Turbo: what its loss is made of, which views it hears, and the settings it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from headwater.core.errors import UserError
from headwater.corpus.batch import Batch
from headwater.downstream.base import Outcome, Output
from headwater.downstream.turbo.contrast import TERMS, info_nce
from headwater.downstream.turbo.expert import Turbo, TurboConfig, build, question_of
from headwater.upstream.base import Frames, UpstreamSpec

VOCABULARY = {"classes": ["ang", "hap", "sad"], "merge": {}, "key": "label", "counts": {"ang": 2, "hap": 1, "sad": 1}}
SPECS = {
    "audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320),
    "text": UpstreamSpec("text", 1, 4, 0, lambda _: 1),
}
LENGTHS = {"audio": (6, 4, 2, 5), "text": (3, 1, 2, 2)}


def make(**options: Any) -> Turbo:
    torch.manual_seed(0)
    return build(TurboConfig(**{"joint_dim": 8, **options}), VOCABULARY, SPECS)


def frames_of(views: int = 1, seed: int = 0) -> dict[str, Frames]:
    """The frames of four utterances, once for each view: those of a frozen upstream."""
    generator = torch.Generator().manual_seed(seed)
    made = {role: torch.randn(4, max(LENGTHS[role]), spec.dim, generator=generator) for role, spec in SPECS.items()}
    return {role: Frames(values.repeat(views, 1, 1), LENGTHS[role] * views) for role, values in made.items()}


def batch_of(targets: tuple[int, ...] = (0, 1, 2, 0), texts: tuple[str, ...] = ("a", "b", "c", "d")) -> Batch:
    return Batch(None, (), ids=("u0", "u1", "u2", "u3")[: len(targets)], texts=texts, targets=targets)


def loss_of(expert: Turbo, batch: Batch | None = None) -> torch.Tensor:
    """The loss of a training step whose dropout draws from seed 1."""
    torch.manual_seed(1)
    return expert.loss(expert.train()(frames_of(expert.views)), batch or batch_of())


def output_of(views: int = 2) -> Output:
    """An answer to two utterances in two views, in a joint space of two dimensions."""
    first, second = [[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 2.0]], [[1.0, 1.0, 2.0, 0.0], [0.0, 3.0, -1.0, 1.0]]
    embeddings = torch.tensor(first + second if views == 2 else first)
    return Output(torch.zeros(2 * views, 3), embeddings=embeddings)


PAIR = Batch(None, (), ids=("u0", "u1"), texts=("a", "b"), targets=(0, 1))
# cosine (anchor, other) of each term for the two utterances of `output_of`, worked out by hand
S = math.sqrt(0.5)
COSINES = {
    "in_audio": [[S, 0.0], [S, 1.0]],
    "in_text": [[S, 0.0], [0.0, S]],
    "cross_11": [[S, 0.0], [S, 1.0]],
    "cross_12": [[1.0, -S], [0.0, S]],
    "cross_21": [[1.0, S], [S, 1.0]],
    "cross_22": [[S, 0.0], [0.0, S]],
}


def term_by_hand(name: str, temperature: float) -> float:
    rows = [[math.exp(value / temperature) for value in row] for row in COSINES[name]]
    return -sum(math.log(row[index] / sum(row)) for index, row in enumerate(rows)) / 2


@pytest.mark.parametrize("term", TERMS)
def test_each_term_of_two_utterances_has_the_value_worked_out_by_hand(term: str) -> None:
    expert = make(terms=[term], temperature=0.5, joint_dim=2).train()
    assert float(expert.contrast(output_of(expert.views), PAIR)) == pytest.approx(term_by_hand(term, 0.5), rel=1e-5)


def test_turbo_is_the_sum_of_six_terms_by_hand() -> None:
    expert = make(temperature=0.5, joint_dim=2).train()
    expected = sum(term_by_hand(term, 0.5) for term in TERMS)
    assert float(expert.contrast(output_of(), PAIR)) == pytest.approx(expected, rel=1e-5)
    mean = make(temperature=0.5, joint_dim=2, reduce="mean").train()
    assert float(mean.contrast(output_of(), PAIR)) == pytest.approx(expected / 6, rel=1e-5)


def test_the_loss_is_balanced_between_cross_entropy_and_contrast() -> None:
    expert = make(temperature=0.5, joint_dim=2, balance=0.25).train()
    contrast = sum(term_by_hand(term, 0.5) for term in TERMS)
    assert float(expert.loss(output_of(), PAIR)) == pytest.approx(0.25 * math.log(3) + 0.75 * contrast, rel=1e-5)


def test_turbo_with_the_term_of_cl_cross_alone_is_cl_cross() -> None:
    torch.testing.assert_close(loss_of(make(terms=["cross_11"])), loss_of(make(method="cl_cross")), rtol=0, atol=0)


def test_turbo_without_terms_is_vanilla() -> None:
    vanilla = make(method="vanilla")
    assert (vanilla.views, vanilla.loss_needs) == (1, "piece")
    torch.testing.assert_close(loss_of(make(terms=[])), loss_of(vanilla), rtol=0, atol=0)


def test_a_balance_of_one_leaves_the_cross_entropy() -> None:
    expert = make(balance=1.0)
    torch.manual_seed(1)
    values = expert.train()(frames_of(2)).values[:4]
    torch.testing.assert_close(loss_of(expert), F.cross_entropy(values, torch.tensor([0, 1, 2, 0])))


def test_two_views_differ_by_dropout_alone() -> None:
    for dropout, same in ((0.2, False), (0.0, True)):
        found = make(dropout=dropout).train()(frames_of(2)).embeddings
        assert found is not None
        assert torch.equal(found[:4], found[4:]) is same


def test_equal_views_cost_nothing_within_a_modality() -> None:
    expert = make(terms=["in_audio", "in_text"], joint_dim=64).train()
    embeddings = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    same = Output(torch.zeros(8, 3), embeddings=embeddings.repeat(2, 1))
    assert float(expert.contrast(same, batch_of())) < 1e-3


def test_classify_both_averages_the_cross_entropy_of_the_views() -> None:
    values = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    output = replace(output_of(), values=values)
    targets = torch.tensor(PAIR.targets)
    for classify, logits in (("first", values[:2]), ("both", values)):
        expert = make(classify=classify, balance=1.0, joint_dim=2).train()
        expected = F.cross_entropy(logits, targets.repeat(len(logits) // 2))
        torch.testing.assert_close(expert.loss(output, PAIR), expected)


def test_evaluation_uses_one_view_and_the_loss_is_the_cross_entropy() -> None:
    expert = make().eval()
    output = expert(frames_of(1))
    assert output.values.shape == (4, 3)
    torch.testing.assert_close(expert.loss(output, batch_of()), F.cross_entropy(output.values, torch.tensor([0, 1, 2, 0])))


def test_the_order_of_a_step_changes_nothing() -> None:
    expert, order = make(mask_same_label=True, symmetric=True, temperature=0.3).train(), [2, 0, 3, 1]
    torch.manual_seed(1)
    output, batch = expert(frames_of(2)), batch_of()
    rows = torch.tensor(order)
    assert output.embeddings is not None
    turned = Output(
        torch.cat([view[rows] for view in output.values.split(4)]),
        embeddings=torch.cat([view[rows] for view in output.embeddings.split(4)]),
    )
    mixed = Batch(
        None,
        (),
        ids=tuple(batch.ids[row] for row in order),
        texts=tuple(batch.texts[row] for row in order),
        targets=tuple(batch.targets[row] for row in order),
    )
    torch.testing.assert_close(expert.loss(turned, mixed), expert.loss(output, batch))


@pytest.mark.parametrize(
    ("options", "batch", "apart"),
    [
        ({}, batch_of(texts=("a", "a", "b", "c")), ()),
        ({"mask_same_text": True}, batch_of(texts=("a", "a", "b", "c")), ((0, 1),)),
        ({"mask_same_text": True}, batch_of(texts=("Oh, yes.", "no", "oh yes", "yes")), ((0, 2),)),
        ({}, batch_of(), ()),
        ({"mask_same_label": True}, batch_of(), ((0, 3),)),
        ({"mask_same_label": True, "mask_same_text": True}, batch_of(texts=("a", "a", "b", "c")), ((0, 1), (0, 3))),
        ({}, replace(batch_of(), ids=("u0", "u1", "u0", "u3")), ((0, 2),)),  # drawn twice, at the turn of two epochs
    ],
)
def test_who_is_no_negative(options: dict[str, bool], batch: Batch, apart: tuple[tuple[int, int], ...]) -> None:
    found = make(**options).no_negatives(batch, torch.device("cpu"))
    expected = torch.eye(4, dtype=torch.bool)
    for a, b in apart:
        expected[a, b] = expected[b, a] = True
    assert torch.equal(found, expected)


def test_masking_changes_the_loss_of_a_step_that_has_whom_to_mask() -> None:
    batch = batch_of(texts=("a", "a", "b", "c"))
    losses = [loss_of(make(**options), batch).item() for options in ({}, {"mask_same_text": True}, {"mask_same_label": True})]
    assert len({round(loss, 4) for loss in losses}) == 3
    assert max(losses) == losses[0]


def test_autocast_to_bf16_does_not_touch_the_loss_of_a_prediction() -> None:
    expert, batch = make().train(), batch_of()
    torch.manual_seed(1)
    output = expert(frames_of(2))
    expected = expert.loss(output, batch).item()
    with torch.autocast("cpu", torch.bfloat16):
        assert expert.loss(output, batch).item() == pytest.approx(expected, abs=1e-6)
        assert loss_of(expert).item() == pytest.approx(expected, rel=0.02)  # the head itself runs in bf16


def test_a_learned_temperature_starts_at_the_option_and_trains() -> None:
    fixed, learned = make(temperature=0.2), make(temperature=0.2, learn_temperature=True)
    torch.testing.assert_close(loss_of(learned), loss_of(fixed), rtol=1e-5, atol=1e-5)
    loss_of(learned).backward()
    assert learned.log_scale is not None
    assert learned.log_scale.grad is not None
    assert float(learned.log_scale.grad.abs()) > 0


def test_a_learned_temperature_at_its_least_can_rise_again() -> None:
    expert = make(learn_temperature=True)
    assert expert.log_scale is not None
    with torch.no_grad():
        expert.log_scale.fill_(10.0)  # a step went too far
    loss_of(expert).backward()
    assert torch.as_tensor(expert.temperature()).item() == pytest.approx(0.01)
    assert expert.log_scale.grad is not None
    assert float(expert.log_scale.grad.abs()) > 0


def test_nothing_to_contrast_has_no_temperature_to_train() -> None:
    assert make(method="vanilla", learn_temperature=True).log_scale is None


def test_equal_views_are_refused_where_no_dropout_is_left() -> None:
    with pytest.raises(UserError, match=r"two views of audio and text, found turbo\.dropout=0 .* Set -o turbo\.dropout=0\.2"):
        make(dropout=0.0).refuse_equal_views({"audio": False, "text": False})
    with pytest.raises(UserError, match="two views of text, found"):
        make(dropout=0.0).refuse_equal_views({"audio": True, "text": False})


@pytest.mark.parametrize(
    ("options", "varies"),
    [
        ({"dropout": 0.2}, False),
        ({"dropout": 0.0}, True),
        ({"dropout": 0.0, "method": "cl_cross"}, False),
        ({"dropout": 0.0, "method": "vanilla"}, False),
    ],
)
def test_views_that_differ_and_a_single_view_are_accepted(options: dict[str, Any], varies: bool) -> None:
    make(**options).refuse_equal_views({"audio": varies, "text": varies})


@pytest.mark.parametrize("options", [{}, {"method": "cl_cross"}, {"method": "vanilla", "terms": ["cross_11"]}])
def test_crossing_unequal_dimensions_without_a_joint_space_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"Expected a joint space .* audio has 5 dimensions and text 4, found turbo\.joint=false"):
        make(joint=False, **options)


@pytest.mark.parametrize("options", [{"method": "vanilla"}, {"terms": ["in_audio", "in_text"]}])
def test_what_crosses_nothing_needs_no_joint_space(options: dict[str, Any]) -> None:
    expert = make(joint=False, **options)
    assert math.isfinite(loss_of(expert).item())
    assert expert.answers.classifier.in_features == 9


@pytest.mark.parametrize(("role", "missing"), [("audio", "--text-upstream NAME"), ("text", "-u NAME")])
def test_one_upstream_alone_is_refused(role: str, missing: str) -> None:
    with pytest.raises(UserError, match=f"one of text for turbo, found one only. Add {missing}"):
        build(TurboConfig(), VOCABULARY, {role: SPECS[role]})


def test_the_joint_spaces_geometry_is_in_the_result_of_every_split() -> None:
    audio = F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    outcome = Outcome(("u",) * 12, ("ang",) * 12, ("ang",) * 12, embeddings=torch.cat([audio, 3 * audio], dim=1))
    found = question_of(TurboConfig()).details({**VOCABULARY, "audio_dim": 8}, outcome)
    assert {*found} == {"alignment", "uniformity", "uniformity_audio", "uniformity_text"}
    assert found["alignment"] == pytest.approx(0, abs=1e-9)
    assert found["uniformity_audio"] == pytest.approx(found["uniformity_text"]) == pytest.approx(found["uniformity"])


def test_embeddings_are_audio_first() -> None:
    expert = make(dropout=0.0).eval()
    frames = frames_of()
    silent = {**frames, "text": replace(frames["text"], values=torch.zeros_like(frames["text"].values))}
    whole, without = expert(frames).embeddings, expert(silent).embeddings
    assert torch.equal(whole[:, :8], without[:, :8])
    assert not torch.equal(whole[:, 8:], without[:, 8:])
    assert expert.vocabulary["audio_dim"] == 8


def test_terms_are_between_views_of_the_same_utterances() -> None:
    expert = make(terms=["cross_12"], temperature=0.3).train()
    torch.manual_seed(1)
    output = expert(frames_of(2))
    assert output.embeddings is not None
    first, second = output.embeddings.split(4)
    torch.testing.assert_close(expert.contrast(output, batch_of()), info_nce(first[:, :8], second[:, 8:], 0.3))


def test_a_text_may_be_its_first_token_alone_while_audio_is_a_mean() -> None:
    expert = make(text_pooling="cls", method="vanilla", joint=False).eval()
    assert expert.pools == {"audio": "mean", "text": None}
    frames = frames_of()
    together = expert(frames).embeddings
    torch.testing.assert_close(together[:, expert.split_at :], frames["text"].values[:, 0])
    torch.testing.assert_close(together[0, : expert.split_at], frames["audio"].values[0].mean(dim=0))
