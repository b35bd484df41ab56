"""The weighted sum: a learned convex mixture of an upstream's layers, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .base import Frames, Layers

CACHED = 2**18  # numbers that are worked on at once


class WeightedSum(nn.Module):
    """Mixes layers by softmax weights, uniform at the start.

    With `normalize` each layer's frames go through a layer norm (no parameters) before they are summed. The mean of
    normalised frames is not the normalised mean: whoever hands over pooled layers has normalised their frames before
    pooling, and they are summed as they are.

    With `standard_dim` each dimension of each layer is standardised before the sum, by a mean and a scale that belong to the
    weights: those of the training split. This commutes with a mean over time.
    """

    mean: Tensor  # (layer, dim)
    scale: Tensor  # (layer, dim)

    def __init__(self, num_layers: int, normalize: bool = False, standard_dim: int | None = None) -> None:
        super().__init__()
        self.standardized = standard_dim is not None
        if standard_dim is not None:
            self.register_buffer("mean", torch.zeros(num_layers, standard_dim))
            self.register_buffer("scale", torch.ones(num_layers, standard_dim))
        self.num_layers, self.normalize = num_layers, normalize
        self.logits = nn.Parameter(torch.zeros(num_layers))  # (layer,)

    @property
    def weights(self) -> Tensor:
        """The mixture as it stands, detached and on the host: (layer,), sums to one."""
        return self.logits.detach().cpu().softmax(dim=0)

    def forward(self, layers: Layers) -> Frames:
        """Return the mixture, at least in float32, whatever the layers are stored in."""
        values = tuple(layers.values)
        self._check(values)
        dtype = reduce(torch.promote_types, [self.logits.dtype, *(value.dtype for value in values)], torch.float32)
        weights = self.logits.to(dtype).softmax(dim=0)
        normalize = self.normalize and not layers.pooled
        if self.standardized:
            return Frames(self.standard(values, weights, normalize), layers.lengths, layers.pooled)
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            mixed = torch.zeros_like(values[0], dtype=weights.dtype)  # (batch, frame, dim)
            for weight, value in zip(weights, values, strict=True):
                normed = F.layer_norm(value.to(weights.dtype), value.shape[-1:]) if normalize else value
                mixed = torch.addcmul(mixed, normed, weight)
        else:
            mixed = _ConstantLayers.apply(weights, normalize, *values)
        return Frames(mixed, layers.lengths, layers.pooled)

    def standard(self, values: Sequence[Tensor], weights: Tensor, normalize: bool) -> Tensor:
        """Return the mixture of standardised layers: (batch, frame, dim)."""
        gains = weights[:, None] / self.scale.to(weights)
        mixed = torch.zeros_like(values[0], dtype=weights.dtype)
        for value, mean, gain in zip(values, self.mean.to(weights), gains, strict=True):
            value = value.to(weights.dtype)
            value = F.layer_norm(value, value.shape[-1:]) if normalize else value
            mixed = torch.addcmul(mixed, value - mean, gain)  # the mean first: it can be a thousand times the scale
        return mixed

    def _check(self, values: tuple[Tensor, ...]) -> None:
        if len(values) != self.num_layers:
            raise ValueError(
                f"Expected {self.num_layers} layers, found {len(values)}. "
                "Is LayerDrop on? Set `layerdrop=0`, or build the sum for this upstream."
            )
        shapes = sorted({tuple(value.shape) for value in values})
        if len(shapes) > 1:
            raise ValueError(f"Expected layers of one shape, found {shapes}. Take them from one pass of one upstream.")


class _ConstantLayers(torch.autograd.Function):
    # Plain autograd would save what each product was made of: a float32 or normalised copy of every layer. Layers that
    # need no gradient are kept as they came (float16 from a store), and d(weights) is formed from one of them at a time.

    # A product of two types would make a copy of its own for every layer, and glibc's heap, asked for aligned memory, leaves
    # a hole behind each: layers are converted in one buffer, on a CPU by a few rows, which also stay in its cache.

    @staticmethod
    def forward(ctx: Any, weights: Tensor, normalize: bool, *values: Tensor) -> Tensor:
        """Return the running sum, and keep the layers as they came."""
        ctx.save_for_backward(*values)
        ctx.normalize = normalize
        mixed = torch.zeros(values[0].shape, dtype=weights.dtype, device=values[0].device)  # (batch, frame, dim)
        for part, rows in _by_rows(mixed, values, normalize):
            buffer = torch.empty_like(part)
            for weight, row in zip(weights, rows, strict=True):
                part.addcmul_(_prepared(row, normalize, buffer), weight)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the weights, formed from one layer at a time."""
        values = ctx.saved_tensors
        of_weights = gradient.new_zeros(len(values))  # (layer)
        for part, rows in _by_rows(gradient, values, ctx.normalize):
            buffer = torch.empty(part.shape, dtype=part.dtype, device=part.device)
            of_weights += torch.stack([torch.mul(_prepared(row, ctx.normalize, buffer), part, out=buffer).sum() for row in rows])
        return of_weights, None, *(None for _ in values)


def _by_rows(whole: Tensor, values: Sequence[Tensor], normalize: bool) -> Iterator[tuple[Tensor, Sequence[Tensor]]]:
    """Yield parts (row, frame, dim) of a sum with those of its layers; all at once where no layer is converted."""
    if whole.device.type != "cpu" or not (normalize or any(value.dtype != whole.dtype for value in values)):
        yield whole, values
        return
    count = max(CACHED // max(whole[0].numel(), 1), 1)
    for start in range(0, len(whole), count):
        yield whole[start : start + count], [value[start : start + count] for value in values]


def _prepared(value: Tensor, normalize: bool, buffer: Tensor) -> Tensor:
    """Return a layer in the buffer's type, in the buffer itself where it must be converted."""
    value = value if value.dtype == buffer.dtype else buffer.copy_(value)
    return F.layer_norm(value, value.shape[-1:]) if normalize else value
