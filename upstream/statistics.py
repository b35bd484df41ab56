"""Statistics over time of each layer: what is stored of an utterance where its head needs no frames."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .base import Layers, valid_positions

# what an utterance's frames are reduced to -> how many numbers it takes for each dimension
STATISTICS: Mapping[str, int] = MappingProxyType({"mean": 1, "mean+std": 2, "mean+max": 2})


def over_time(values: Tensor, valid: Tensor, statistics: str) -> Tensor:
    """Return statistics of valid frames, (batch, 1, statistic x dim), computed in at least float32; zeros where there is none.

    The standard deviation is that of the frames themselves (divided by their number), 0 of a single frame.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    counts, outside = valid.sum(dim=1).clamp(min=1).to(values)[:, None], ~valid[:, :, None]
    mean = values.masked_fill(outside, 0).sum(dim=1) / counts  # (batch, dim)
    if statistics == "mean":
        return mean[:, None]
    if statistics == "mean+std":
        squares = (values - mean[:, None]).masked_fill(outside, 0).square().sum(dim=1) / counts
        return torch.cat([mean, squares.sqrt()], dim=1)[:, None]
    assert statistics == "mean+max", f"no statistics are called '{statistics}'"
    highest = values.masked_fill(outside, torch.finfo(values.dtype).min).amax(dim=1)
    return torch.cat([mean, highest.masked_fill(~valid.any(dim=1, keepdim=True), 0)], dim=1)[:, None]


def pooled_layers(layers: Layers, statistics: str) -> Layers:
    """Return each layer's statistics over time, in place of its frames; layers that are pooled already stay."""
    if layers.pooled:
        return layers
    first = layers.values[0]
    valid = valid_positions(layers.lengths, first.shape[1], first.device)
    return Layers([over_time(value, valid, statistics) for value in layers.values], (1,) * len(layers.lengths), pooled=True)
