"""The weighted sum: a learnt convex mixture of an upstream's layers, one layer in memory at a time."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .base import Frames, Layers


class WeightedSum(nn.Module):
    """Mixes layers by softmax weights, uniform at the start.

    With `normalize` each layer's frames go through a layer norm (no parameters) before they are summed. The mean of
    normalised frames is not the normalised mean: whoever hands over pooled layers has normalised their frames before
    pooling, and they are summed as they are.
    """

    def __init__(self, num_layers: int, normalize: bool = False) -> None:
        super().__init__()
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
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            mixed = torch.zeros_like(values[0], dtype=weights.dtype)  # (batch, frame, dim)
            for weight, value in zip(weights, values, strict=True):
                mixed = torch.addcmul(mixed, _prepared(value, normalize, weights.dtype), weight)
        else:
            mixed = _ConstantLayers.apply(weights, normalize, *values)
        return Frames(mixed, layers.lengths, layers.pooled)

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

    @staticmethod
    def forward(ctx: Any, weights: Tensor, normalize: bool, *values: Tensor) -> Tensor:
        """Return the running sum, and keep the layers as they came."""
        ctx.save_for_backward(*values)
        ctx.normalize = normalize
        mixed = torch.zeros_like(values[0], dtype=weights.dtype)  # (batch, frame, dim)
        for weight, value in zip(weights, values, strict=True):
            mixed.addcmul_(_prepared(value, normalize, weights.dtype), weight)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the weights, formed from one layer at a time."""
        values = ctx.saved_tensors
        product = torch.empty_like(gradient)  # (batch, frame, dim), used again for every layer
        of_weights = [torch.mul(gradient, _prepared(value, ctx.normalize, gradient.dtype), out=product).sum() for value in values]
        return torch.stack(of_weights), None, *(None for _ in values)


def _prepared(value: Tensor, normalize: bool, dtype: torch.dtype) -> Tensor:
    return F.layer_norm(value.to(dtype), value.shape[-1:]) if normalize else value
