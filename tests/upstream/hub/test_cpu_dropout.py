"""Dropout that a CPU draws fast: the same formulas as torch's, and as random."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from headwater.upstream.base import UpstreamConfig
from headwater.upstream.hub.cpu_dropout import _draws, _groups, _kept, attend_with_dropout, dropout
from headwater.upstream.load import load_upstream

P, SCALE = 0.3, 0.4


def parts(dtype: torch.dtype = torch.float64, heads: int = 3, frames: int = 7) -> list[Tensor]:
    """Return queries, keys and values of two utterances."""
    torch.manual_seed(1)
    return [torch.randn(2, heads, frames, 4, dtype=dtype, requires_grad=True) for _ in range(3)]


def biases(kind: str) -> Tensor | None:
    """Return what attention is given beside them."""
    torch.manual_seed(2)
    if kind == "valid":
        return torch.tensor([[True] * 7, [True] * 5 + [False] * 2])[:, None, None, :]
    sizes = {"by head": (1, 3, 7, 7), "of each": (2, 3, 7, 7), "of all": (1, 1, 1, 7)}
    return torch.randn(sizes[kind], dtype=torch.float64, requires_grad=True) if kind in sizes else None


def formula(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, seed: int) -> Tensor:
    """Return attention written down with the same draws."""
    scores = query @ key.mT * SCALE
    if bias is not None:
        scores = scores.masked_fill(~bias, float("-inf")) if bias.dtype == torch.bool else scores + bias
    kept = torch.empty(scores.shape)
    for number, heads in enumerate(_groups(query, key)):
        kept[heads] = _kept(kept[heads].shape, P, _draws(seed, number)).float()
    return (scores.softmax(-1) * kept / (1 - P)) @ value


@pytest.mark.parametrize("cached", [2**18, 1], ids=["heads together", "heads alone"])
@pytest.mark.parametrize("kind", ["none", "valid", "by head", "of each", "of all"])
def test_attention_and_all_its_gradients_are_those_of_the_formula(
    kind: str, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.upstream.hub.cpu_dropout._CACHED", cached)
    given, bias = parts(), biases(kind)
    torch.manual_seed(3)
    seed = int(torch.randint(2**62, ()))
    torch.manual_seed(3)
    found, expected = attend_with_dropout(*given, bias, SCALE, P), formula(*given, bias, seed)
    assert torch.allclose(found, expected)
    weights = torch.randn_like(expected)
    trained = [*given, *([bias] if bias is not None and bias.requires_grad else [])]
    ours = torch.autograd.grad((found * weights).sum(), trained)
    theirs = torch.autograd.grad((expected * weights).sum(), trained)
    assert all(torch.allclose(one, other) for one, other in zip(ours, theirs, strict=True))


def test_attention_in_bf16_is_as_near_to_float32_as_torchs_own() -> None:
    given = parts(torch.float32, frames=40)
    exact = (torch.softmax(given[0] @ given[1].mT * SCALE, -1)) @ given[2]
    half = [part.bfloat16() for part in given]
    found = attend_with_dropout(*half, None, SCALE, 1e-6)  # which drops nothing
    theirs = torch.nn.functional.scaled_dot_product_attention(*half, scale=SCALE)
    assert found.dtype == torch.bfloat16
    assert (found - exact).norm() < 1.5 * (theirs - exact).norm()


def test_a_share_is_dropped_and_the_rest_makes_up_for_it() -> None:
    torch.manual_seed(0)
    values = torch.ones(1000, 300, requires_grad=True)
    found = dropout(values, 0.1, training=True)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert float((found == 0).float().mean()) == pytest.approx(0.1, abs=0.003)
    rows = (found == 0).float()
    assert float(torch.corrcoef(rows[:, :2].T)[0, 1]) == pytest.approx(0, abs=0.1)
    found.sum().backward()
    assert torch.equal(values.grad, found)
    assert torch.equal(dropout(values, 0.1, training=False), values)


@pytest.mark.parametrize("name", ["test_hubert", "test_wavlm"])
def test_a_seed_decides_a_step_and_recomputed_blocks_draw_the_same(name: str, speechlike: Any) -> None:
    def gradient(seed: int, recomputes: bool) -> Tensor:
        upstream = load_upstream(UpstreamConfig(name=name, dropout=0.2)).requires_grad_(True).train()
        if recomputes:
            upstream.recompute_blocks()
        torch.manual_seed(seed)
        upstream(speechlike(4000, 3000)).values[-1].square().sum().backward()
        return torch.cat([weight.grad.flatten() for weight in upstream.parameters() if weight.grad is not None])

    once = gradient(1, recomputes=False)
    assert torch.equal(gradient(1, recomputes=False), once)
    assert torch.allclose(gradient(1, recomputes=True), once, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(gradient(2, recomputes=False), once)


def test_a_model_that_is_saved_names_no_attention_of_ours(tmp_path: Any) -> None:
    model: Any = load_upstream("test_hubert").get_submodule("model")
    model.save_pretrained(tmp_path)
    assert "headwater" not in (tmp_path / "config.json").read_text(encoding="utf-8")
