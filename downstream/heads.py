"""Heads: plain modules Frames -> Tensor, shared by the experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..upstream.base import Frames

Built = TypeVar("Built")


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean over valid frames, (batch, dim), summed in float32; zero where no frame is valid."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    total = values.masked_fill(~valid.unsqueeze(2), 0).sum(dim=1, dtype=dtype)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)


def masked_max(values: Tensor, valid: Tensor) -> Tensor:
    """Return the maximum over valid frames, (batch, dim); zero where no frame is valid."""
    lowest = torch.finfo(values.dtype).min
    highest = values.masked_fill(~valid.unsqueeze(2), lowest).amax(dim=1)
    return highest.masked_fill(~valid.any(dim=1, keepdim=True), 0)


class MeanPool(nn.Module):
    """The mean over time: (batch, frame, dim) -> (batch, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output_dim = dim

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """Return the mean over valid frames."""
        return masked_mean(values, valid)


class MeanMaxPool(nn.Module):
    """The mean and the maximum over time, side by side: (batch, frame, dim) -> (batch, 2 dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output_dim = 2 * dim

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """Return mean and maximum over valid frames."""
        return torch.cat([masked_mean(values, valid), masked_max(values, valid)], dim=1)


class AttentivePool(nn.Module):
    """A mean over time whose weights are learnt from each frame: (batch, frame, dim) -> (batch, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output_dim = dim
        self.relevance = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, 1))

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """Return the weighted mean over valid frames; weights and sum are formed in float32."""
        values = values.masked_fill(~valid.unsqueeze(2), 0)  # a weight of zero does not silence an infinite frame
        scores = self.relevance(values).squeeze(2).to(torch.promote_types(values.dtype, torch.float32))  # (batch, frame)
        weights = scores.masked_fill(~valid, torch.finfo(scores.dtype).min).softmax(dim=1)
        return (weights.unsqueeze(2) * values).sum(dim=1)


Pool = MeanPool | MeanMaxPool | AttentivePool
POOLINGS: dict[str, Callable[[int], Pool]] = {"mean": MeanPool, "avgmax": MeanMaxPool, "attentive": AttentivePool}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class MeanPoolLinear(nn.Module):
    """Linear -> [activation -> dropout] -> pooling over time -> linear: SUPERB's head for ER, IC, KS and SID.

    The frames are masked after the projection: its bias would leak into padded frames otherwise.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        projector_dim: int = 256,
        activation: str = "none",
        dropout: float = 0.0,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.projector = nn.Linear(input_dim, projector_dim)
        self.activation = _named("activation", activation, ACTIVATIONS)()
        self.dropout = nn.Dropout(dropout)
        self.pooling = _named("pooling", pooling, POOLINGS)(projector_dim)
        self.classifier = nn.Linear(self.pooling.output_dim, output_dim)

    @property
    def pools(self) -> Literal["mean"] | None:
        """Say 'mean' where the mean of its frames is all that this head needs of an utterance, else None."""
        linear = isinstance(self.activation, nn.Identity) and self.dropout.p == 0
        return "mean" if linear and isinstance(self.pooling, MeanPool) else None

    def forward(self, frames: Frames) -> Tensor:
        """Return one answer for each utterance: (batch, output_dim)."""
        if frames.pooled and self.pools != "mean":
            raise ValueError(
                "Expected all frames, found their mean alone: this head has an activation, dropout or another pooling "
                "in front of the mean. Store frames, or build it with activation='none', dropout=0, pooling='mean'."
            )
        projected = self.dropout(self.activation(self.projector(frames.values)))  # (batch, frame, projector)
        return self.classifier(self.pooling(projected, frames.valid))


def _named(kind: str, name: str, known: dict[str, Built]) -> Built:
    if name not in known:
        raise UserError(f"Expected {kind} to be one of {', '.join(known)}, found '{name}'.{nearest(name, known)}")
    return known[name]
