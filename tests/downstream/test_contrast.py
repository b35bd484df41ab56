"""InfoNCE: the value, who counts as a negative, and what must not matter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headwater.downstream.turbo.contrast import METHODS, TERMS, alike, info_nce, views_of

ANCHORS = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
OTHERS = torch.tensor([[3.0, 0.0], [1.0, 1.0]])  # cosines with the anchors: 1 and 0.7071, 0 and 0.7071
HALF = math.sqrt(0.5)


def rows(count: int, seed: int = 0, dim: int = 6, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_hand(temperature: float) -> tuple[float, float]:
    """The two softmaxes of the diagonal, anchor by anchor."""
    first = math.exp(1 / temperature) / (math.exp(1 / temperature) + math.exp(HALF / temperature))
    second = math.exp(HALF / temperature) / (math.exp(0.0) + math.exp(HALF / temperature))
    return first, second


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.05])
def test_two_pairs_have_the_value_worked_out_by_hand(temperature: float) -> None:
    first, second = by_hand(temperature)
    expected = -(math.log(first) + math.log(second)) / 2
    assert float(info_nce(ANCHORS, OTHERS, temperature)) == pytest.approx(expected, rel=1e-5)


def test_the_printed_formula_sums_inside_the_logarithm() -> None:
    first, second = by_hand(0.5)
    assert float(info_nce(ANCHORS, OTHERS, 0.5, reduction="printed")) == pytest.approx(-math.log(first + second), rel=1e-5)


def test_the_least_value_of_the_printed_formula_is_minus_log_n() -> None:
    together = torch.eye(8)
    assert float(info_nce(together, together, 0.01, reduction="printed")) == pytest.approx(-math.log(8), abs=1e-5)


def test_symmetric_is_the_mean_of_both_directions() -> None:
    there, back = info_nce(ANCHORS, OTHERS, 0.5), info_nce(OTHERS, ANCHORS, 0.5)
    assert float(there) != pytest.approx(float(back), abs=1e-3)
    torch.testing.assert_close(info_nce(ANCHORS, OTHERS, 0.5, symmetric=True), (there + back) / 2)


def test_it_is_cross_entropy_over_cosines() -> None:
    anchors, others = rows(16), rows(16, seed=1)
    logits = F.cosine_similarity(anchors.unsqueeze(1), others.unsqueeze(0), dim=2) / 0.1
    torch.testing.assert_close(info_nce(anchors, others, 0.1), F.cross_entropy(logits, torch.arange(16)))


def test_vectors_without_a_direction_in_common_cost_log_n() -> None:
    assert float(info_nce(torch.ones(8, 3), torch.ones(8, 3), 0.05)) == pytest.approx(math.log(8), rel=1e-5)


def test_equal_views_cost_next_to_nothing_at_a_small_temperature() -> None:
    values = rows(16, dim=64)
    assert float(info_nce(values, values, 0.05)) < 1e-3
    assert float(info_nce(values, rows(16, seed=1, dim=64), 0.05)) > 1


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "printed"])
def test_the_order_of_the_batch_and_the_lengths_of_vectors_change_nothing(symmetric: bool, reduction: str) -> None:
    anchors, others, order = rows(9), rows(9, seed=1), torch.randperm(9, generator=torch.Generator().manual_seed(2))
    excluded = alike(torch.arange(9) // 2)
    options = {"symmetric": symmetric, "reduction": reduction}
    expected = info_nce(anchors, others, 0.2, excluded=excluded, **options)
    shuffled = info_nce(anchors[order], 7 * others[order], 0.2, excluded=excluded[order][:, order], **options)
    torch.testing.assert_close(shuffled, expected)


def test_an_excluded_pair_is_no_negative_but_never_loses_its_own_positive() -> None:
    anchors, others = rows(4), rows(4, seed=1)
    kept = torch.tensor([0, 2, 3])  # without utterance 1, which says what utterance 0 says
    excluded = alike(torch.tensor([7, 7, 8, 9]))
    logits = F.normalize(anchors, dim=1) @ F.normalize(others, dim=1).T / 0.2
    zero = F.cross_entropy(logits[:1, kept], torch.tensor([0]))
    one = F.cross_entropy(logits[1:2, 1:], torch.tensor([0]))
    rest = F.cross_entropy(logits[2:], torch.tensor([2, 3]), reduction="sum")
    torch.testing.assert_close(info_nce(anchors, others, 0.2, excluded=excluded), (zero + one + rest) / 4)


def test_where_nobody_is_a_negative_the_loss_and_its_gradient_are_zero() -> None:
    anchors = rows(4).requires_grad_()
    loss = info_nce(anchors, rows(4, seed=1), 0.1, excluded=torch.ones(4, 4, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert anchors.grad is not None
    assert float(anchors.grad.abs().max()) == 0


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "printed"])
def test_gradients_are_those_of_finite_differences(symmetric: bool, reduction: str) -> None:
    anchors = rows(5, dtype=torch.float64).requires_grad_()
    others = rows(5, seed=1, dtype=torch.float64).requires_grad_()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    excluded = alike(torch.tensor([0, 1, 1, 2, 3]))

    def loss(*values: Tensor) -> Tensor:
        return info_nce(*values, excluded=excluded, symmetric=symmetric, reduction=reduction)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(loss, (anchors, others, temperature))


def test_autocast_to_bf16_does_not_touch_the_loss() -> None:
    anchors, others = rows(32, dim=64), rows(32, dim=64) + 3 * rows(32, seed=1, dim=64)
    expected = info_nce(anchors, others, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        found = info_nce(anchors, others, 0.05)
        lower = F.cross_entropy(F.normalize(anchors) @ F.normalize(others).T / 0.05, torch.arange(32))
    assert found.dtype == torch.float32
    assert float((found - expected).abs()) <= 1e-6
    assert float((lower - expected).abs()) > 1e-5  # what it would be if nobody switched autocast off


def test_turbo_has_six_terms_of_two_views_and_cl_cross_one_of_one() -> None:
    assert [len(METHODS[name]) for name in ("vanilla", "cl_cross", "turbo")] == [0, 1, 6]
    assert [views_of(METHODS[name]) for name in ("vanilla", "cl_cross", "turbo")] == [1, 1, 2]
    assert [term for term, (a, b) in TERMS.items() if a[0] == b[0]] == ["in_audio", "in_text"]
    assert {(a[1], b[1]) for a, b in TERMS.values() if a[0] != b[0]} == {(0, 0), (0, 1), (1, 0), (1, 1)}
