"""Dropout on a CPU: torch draws it one number after another, which takes a third of a finetuning step in bf16.

The draws are those of another generator, seeded from torch's own: a step is still a function of its seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION = "headwater"  # what transformers' table of attentions calls ours
_LEVELS = 2**16  # that a probability is rounded to
_CACHED = 2**18  # weights of attention that are computed at once


def speed_up(encoder: nn.Module, config: Any) -> None:
    """Let the dropouts of an encoder's modules, and that of its attention, be drawn fast wherever a CPU trains it."""
    for module in encoder.modules():
        if type(module) is nn.Dropout:
            module.forward = partial(_forward, module)  # type: ignore[method-assign]
    if config._attn_implementation == "sdpa":
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, attend)
        config._attn_implementation = ATTENTION


def _forward(module: nn.Dropout, values: Tensor) -> Tensor:
    return dropout(values, module.p, module.training)


def dropout(values: Tensor, p: float, training: bool) -> Tensor:
    """Return values with a share `p` of them zero, the others scaled up: `F.dropout`, on a CPU at a fraction of its time."""
    if values.device.type != "cpu" or not training or not 0 < p < 1 or torch.onnx.is_in_onnx_export():
        return F.dropout(values, p, training)
    return (values * _kept(values.shape, p, _draws(_seed()))).mul_(1 / (1 - p))


def _seed() -> int:
    return int(torch.randint(2**62, ()))


def _draws(*seed: int) -> np.random.SFC64:
    return np.random.SFC64(seed)


def _kept(shape: Sequence[int], p: float, draws: np.random.SFC64) -> Tensor:
    """Return 1 where nothing is dropped (*shape): four draws of 16 bits from each number."""
    count = prod(shape)
    numbers = draws.random_raw(-(-count // 4)).view(np.uint16)[:count]
    # torch multiplies by int8 five times as fast as by bool
    return torch.from_numpy((numbers >= round(p * _LEVELS)).view(np.int8)).view(*shape)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' `sdpa` does; where a CPU trains with dropout, head by head, keeping no weights of attention."""
    if query.device.type != "cpu" or not 0 < dropout < 1 or not torch.is_grad_enabled():
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    return attend_with_dropout(query, key, value, attention_mask, scale, dropout).transpose(1, 2), None


def attend_with_dropout(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, p: float) -> Tensor:
    """Return what heads attend to (batch, head, frame, dim); `bias` is added, or where bool says what is attended to."""
    return _Attention.apply(query, key, value, bias, scale, p, _seed())


class _Attention(torch.autograd.Function):
    """Attention whose weights are computed again in the backward pass, a few heads at once: they never leave the cache."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, p: float, seed: int
    ) -> Tensor:
        """Return what heads attend to (batch, head, frame, dim)."""
        attended = torch.empty_like(query)
        with torch.autocast("cpu", enabled=False):
            for number, heads in enumerate(_groups(query, key)):
                weights = _weights(query[heads], key[heads], _of(bias, heads), scale)  # (head, query, key)
                weights.mul_(_kept(weights.shape, p, _draws(seed, number)))
                attended[heads] = (weights.to(value.dtype) @ value[heads]).div_(1 - p)
        ctx.save_for_backward(query, key, value, bias, attended)
        ctx.constants = scale, p, seed
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys, values and bias."""
        query, key, value, bias, attended = ctx.saved_tensors
        scale, p, seed = ctx.constants
        of_query, of_key, of_value = (torch.empty_like(part) for part in (query, key, value))
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        with torch.autocast("cpu", enabled=False):
            scaled, means = gradient / (1 - p), (_wide(gradient) * attended).sum(3, keepdim=True)
            for number, heads in enumerate(_groups(query, key)):
                weights = _weights(query[heads], key[heads], _of(bias, heads), scale)
                kept = _kept(weights.shape, p, _draws(seed, number))
                of_value[heads] = (weights * kept).to(value.dtype).mT @ scaled[heads]
                slopes = _wide(scaled[heads] @ value[heads].mT).mul_(kept).sub_(means[heads]).mul_(weights)
                if of_bias is not None:
                    part = _of(of_bias, heads)
                    part += slopes.sum_to_size(part.shape)
                slopes = slopes.mul_(scale).to(key.dtype)
                of_query[heads], of_key[heads] = slopes @ key[heads], slopes.mT @ query[heads]
        return of_query, of_key, of_value, of_bias, None, None, None


def _groups(query: Tensor, key: Tensor) -> Iterator[tuple[int, slice]]:
    """Yield heads of an utterance, as many as have weights that a processor's cache holds."""
    size = max(_CACHED // (query.shape[2] * key.shape[2]), 1)
    for row in range(len(query)):
        for start in range(0, query.shape[1], size):
            yield row, slice(start, start + size)


def _weights(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Return the weights of some heads' attention (head, query, key)."""
    scores = _wide((query * scale) @ key.mT)
    if bias is not None:
        scores = scores.masked_fill_(~bias, float("-inf")) if bias.dtype == torch.bool else scores.add_(bias)
    return scores.softmax(dim=2)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _of(bias: Tensor | None, heads: tuple[int, slice]) -> Any:
    """Return what a bias (batch or 1, head or 1, query or 1, key) says of some heads."""
    if bias is None:
        return None
    return bias[heads[0] % len(bias), heads[1] if bias.shape[1] > 1 else slice(None)]
