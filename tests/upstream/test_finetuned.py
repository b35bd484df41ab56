"""Finetuning in less memory: blocks that run again in the backward pass change nothing else, bf16 next to nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from headwater.core.errors import UserError
from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.load import list_upstreams, load_upstream

TINY = [row.name for row in list_upstreams("test_*")]
FLAT = "test_parakeet"  # its blocks end in a norm, behind which a mean of squares has next to no gradient


def finetuned(name: str, dropout: float) -> Upstream:
    """Return an upstream whose blocks are trained, as -f does: its convolutions stay as they are."""
    upstream = load_upstream(UpstreamConfig(name=name, dropout=dropout)).requires_grad_(True).train()
    for part in upstream.front_end():
        part.requires_grad_(False)
    return upstream


def one_step(name: str, recompute: bool, utterances: Any) -> tuple[Upstream, int]:
    """Return a finetuned upstream after one backward pass with dropout, and the bytes that were kept for it."""
    upstream = finetuned(name, dropout=0.2)
    if recompute:
        upstream.recompute_blocks()
    own = {parameter.untyped_storage().data_ptr() for parameter in upstream.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layers = upstream(utterances, views=2)
    torch.stack([value.tanh().square().mean() for value in layers.values]).sum().backward()
    return upstream, sum(kept.values())


@pytest.mark.parametrize("name", TINY)
def test_recomputed_blocks_give_the_same_gradients_with_dropout_and_keep_less(name: str, material: Any) -> None:
    utterances = material(name)
    (plain, whole), (recomputed, less) = (one_step(name, recompute, utterances) for recompute in (False, True))
    theirs = dict(recomputed.named_parameters())
    assert any(parameter.grad is not None for parameter in plain.blocks()[0].parameters())
    for key, parameter in plain.named_parameters():
        assert (parameter.grad is None) == (theirs[key].grad is None), key
        if parameter.grad is not None:
            torch.testing.assert_close(theirs[key].grad, parameter.grad, msg=key)
    assert less < 0.5 * whole, (less, whole)


def gradient(name: str, recompute: bool, bf16: bool, utterances: Any) -> Tensor:
    """Return the gradient of all weights in one row."""
    upstream = finetuned(name, dropout=0.0)
    if recompute:
        upstream.recompute_blocks()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        layers = upstream(utterances)
    values = [value.float() for value in layers.values]
    if name == FLAT:
        values = [value.tanh() for value in values]
    torch.stack([value.square().mean() for value in values]).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in upstream.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("name", TINY)
def test_bf16_gives_nearly_the_gradients_of_float32_recomputed_or_not(name: str, material: Any, difference: Any) -> None:
    utterances = material(name)
    expected = gradient(name, False, False, utterances)
    plain, recomputed = (gradient(name, recompute, True, utterances) for recompute in (False, True))
    assert plain.dtype == torch.float32
    assert torch.equal(plain, recomputed)
    assert 0 < difference(plain, expected) < (0.06 if name == FLAT else 0.03)  # a NaN is not below


@pytest.mark.parametrize("name", ["fbank", "mfcc"])
def test_spectrograms_are_the_same_under_autocast(name: str, speechlike: Any) -> None:
    upstream, waveforms = load_upstream(name), speechlike(6000, 5000)
    expected = upstream(waveforms).values[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(upstream(waveforms).values[0], expected)


def test_an_upstream_without_blocks_says_that_it_cannot() -> None:
    with pytest.raises(UserError, match=r"run its blocks again for training\.gradient_checkpointing, found 'fbank'"):
        load_upstream("fbank").recompute_blocks()
