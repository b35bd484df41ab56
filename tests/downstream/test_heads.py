"""Heads: padded frames never leak, and a mean is enough where the head says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from headwater.core.errors import UserError
from headwater.downstream import heads
from headwater.downstream.classification import ClassifierConfig, build_classifier
from headwater.upstream.base import Frames, UpstreamSpec

LENGTHS = (7, 3, 1)


def random_frames(seed: int = 0, dim: int = 6) -> Frames:
    values = torch.randn(len(LENGTHS), max(LENGTHS), dim, generator=torch.Generator().manual_seed(seed))
    return Frames(values, LENGTHS)


def with_padding(frames: Frames, filling: float) -> Frames:
    return Frames(frames.values.masked_fill(~frames.valid.unsqueeze(2), filling), frames.lengths)


def means(frames: Frames) -> Frames:
    pooled = torch.stack(
        [row[:length].mean(dim=0, keepdim=True) for row, length in zip(frames.values, frames.lengths, strict=True)]
    )
    return Frames(pooled, (1,) * len(frames.lengths), pooled=True)


def build(**options: object) -> heads.Pooled:
    torch.manual_seed(0)
    return heads.Pooled(6, projector_dim=5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", heads.POOLINGS)
@pytest.mark.parametrize("activation", heads.ACTIVATIONS)
@pytest.mark.parametrize("filling", [1e20, -1e20])
def test_what_stands_in_padded_frames_changes_neither_predictions_nor_gradients(
    pooling: str, activation: str, filling: float
) -> None:
    head, frames = build(pooling=pooling, activation=activation), random_frames()
    predictions, expected = head(with_padding(frames, filling)), head(with_padding(frames, 0.0))
    torch.testing.assert_close(predictions, expected)
    parameters = list(head.parameters())
    ours = torch.autograd.grad(predictions.square().sum(), parameters)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.square().sum(), parameters))


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_an_utterance_alone_predicts_as_in_a_batch(pooling: str) -> None:
    head, frames = build(pooling=pooling), random_frames()
    together = head(frames)
    for row, length in enumerate(LENGTHS):
        alone = head(Frames(frames.values[row : row + 1, :length], (length,)))
        torch.testing.assert_close(alone, together[row : row + 1])


def test_the_default_head_equals_superbs_formula() -> None:
    vocabulary = {"classes": ["a", "b", "c", "d"], "merge": {}, "key": "emotion"}
    spec = UpstreamSpec("audio", 1, 768, 16_000, lambda samples: samples // 320)
    expert, frames = build_classifier(ClassifierConfig(activation="none"), vocabulary, {"audio": spec}), random_frames(dim=768)
    projector, rows = expert.fusion.branches["audio"].projector, []  # type: ignore[union-attr, index]
    for row, length in zip(frames.values, LENGTHS, strict=True):
        projected = row[:length] @ projector.weight.T + projector.bias  # type: ignore[union-attr]
        rows.append(projected.mean(dim=0) @ expert.classifier.weight.T + expert.classifier.bias)
    torch.testing.assert_close(expert({"audio": frames}).values, torch.stack(rows))
    assert sum(parameter.numel() for parameter in expert.parameters()) == 768 * 256 + 256 + 256 * 4 + 4


def test_the_mean_alone_gives_the_same_predictions_and_gradients() -> None:
    head, frames = build(), random_frames()
    assert head.pools == "mean"
    whole, pooled = head(frames), head(means(frames))
    torch.testing.assert_close(pooled, whole)
    parameters = list(head.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(pooled.square().sum(), parameters), torch.autograd.grad(whole.square().sum(), parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "relu"},
        {"dropout": 0.1},
        {"pooling": "avgmax"},
        {"pooling": "attentive"},
        {"pooling": "cls"},
        {"pooling": "last"},
    ],
    ids=str,
)
def test_a_head_that_needs_every_frame_refuses_the_mean(options: dict[str, object]) -> None:
    head = build(**options).eval()
    assert head.pools is None
    with pytest.raises(ValueError, match=r"Expected all frames, found their mean alone.*Store frames"):
        head(means(random_frames()))


@pytest.mark.parametrize("pooling", heads.POOLINGS)
def test_an_utterance_without_frames_gets_a_finite_prediction(pooling: str) -> None:
    frames = Frames(torch.randn(2, 3, 6), (3, 0))
    assert torch.isfinite(build(pooling=pooling)(frames)).all()


def test_the_mean_is_summed_in_float32() -> None:
    values = torch.full((1, 5000, 1), 0.1, dtype=torch.float16)
    mean = heads.masked_mean(values, torch.ones(1, 5000, dtype=torch.bool))
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, torch.full((1, 1), float(values[0, 0, 0])))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_maximum_looks_at_valid_frames_only(dtype: torch.dtype) -> None:
    values = torch.tensor([[[-3.0], [-2.0], [5.0]]], dtype=dtype)
    valid = torch.tensor([[True, True, False]])
    assert heads.masked_max(values, valid).item() == -2.0


def test_attention_can_prefer_a_frame() -> None:
    pool = heads.AttentivePool(2)
    learned = {
        "0.weight": 10 * torch.eye(2),
        "0.bias": torch.zeros(2),
        "2.weight": torch.tensor([[40.0, 0.0]]),
        "2.bias": torch.zeros(1),
    }
    pool.relevance.load_state_dict(learned)
    values = torch.tensor([[[1.0, 7.0], [-1.0, 9.0], [3.0, 0.0]]])

    def pooled(valid: list[bool]) -> Tensor:
        return pool(values, torch.tensor([valid]))

    torch.testing.assert_close(pooled([True, True, False]), torch.tensor([[1.0, 7.0]]))
    torch.testing.assert_close(pooled([False, True, False]), torch.tensor([[-1.0, 9.0]]))


def test_dropout_acts_in_training_only() -> None:
    head, frames = build(dropout=0.5), random_frames()
    assert not torch.equal(head.train()(frames), head(frames))
    assert torch.equal(head.eval()(frames), head(frames))


@pytest.mark.parametrize(("pooling", "place"), [("cls", 0), ("last", -1)])
def test_a_head_may_take_the_first_or_the_last_valid_position(pooling: str, place: int) -> None:
    head, frames = build(pooling=pooling), random_frames()
    found = head(frames)
    for row, length in enumerate(frames.lengths):
        torch.testing.assert_close(found[row], head.projector(frames.values[row, :length][place]))


def test_bfloat16_autocast_stays_close() -> None:
    head, frames = build(pooling="attentive"), random_frames()
    with torch.autocast("cpu", torch.bfloat16):
        predictions = head(frames)
    torch.testing.assert_close(predictions.float(), head(frames), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pooling": "maen"},
            "Expected pooling to be one of mean, avgmax, avgmax_mean, avgmax_sum, attentive, cls, last, found 'maen'. "
            "Did you mean 'mean'?",
        ),
        ({"activation": "rellu"}, "Expected activation to be one of none, relu, tanh, gelu, found 'rellu'. Did you mean 'relu'?"),
    ],
)
def test_an_unknown_option_names_its_neighbour(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(**options)
    assert str(caught.value) == message
