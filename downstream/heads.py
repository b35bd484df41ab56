"""Heads: plain modules Frames -> Tensor, shared by the experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from ..core.errors import UserError, nearest
from ..upstream.base import Frames
from ..upstream.statistics import STATISTICS

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
    """The mean and the maximum over time, side by side (batch, 2 dim), or their mean or sum (batch, dim)."""

    def __init__(self, dim: int, combine: Literal["concat", "mean", "sum"] = "concat") -> None:
        super().__init__()
        self.combine = combine
        self.output_dim = 2 * dim if combine == "concat" else dim

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """Return mean and maximum over valid frames, combined."""
        mean, highest = masked_mean(values, valid), masked_max(values, valid)
        if self.combine == "concat":
            return torch.cat([mean, highest], dim=1)
        return (mean + highest) / (2 if self.combine == "mean" else 1)


class AttentivePool(nn.Module):
    """A mean over time whose weights are computed from each frame: (batch, frame, dim) -> (batch, dim)."""

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


class FirstPool(nn.Module):
    """The first position alone, which is [CLS] of a text: (batch, frame, dim) -> (batch, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output_dim = dim

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """Return the first frame, which every utterance has."""
        return values[:, 0].masked_fill(~valid[:, :1], 0)


class LastPool(nn.Module):
    """The last valid position alone, which of a model that reads in one direction knows all others: -> (batch, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.output_dim = dim

    def forward(self, values: Tensor, valid: Tensor) -> Tensor:
        """Return the last valid frame, zeros where there is none."""
        last = (valid.sum(dim=1) - 1).clamp(min=0)
        return values[torch.arange(len(values), device=values.device), last].masked_fill(~valid[:, :1], 0)


Pool = MeanPool | MeanMaxPool | AttentivePool | FirstPool | LastPool
POOLINGS: dict[str, Callable[[int], Pool]] = {
    "mean": MeanPool,
    "avgmax": MeanMaxPool,
    "avgmax_mean": partial(MeanMaxPool, combine="mean"),
    "avgmax_sum": partial(MeanMaxPool, combine="sum"),
    "attentive": AttentivePool,
    "cls": FirstPool,
    "last": LastPool,
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class Pooled(nn.Module):
    """[Linear -> activation -> dropout ->] pooling over time: one modality of an utterance as a vector.

    The frames are masked after the projection: its bias would leak into padded frames otherwise.
    """

    def __init__(
        self,
        input_dim: int,
        projector_dim: int | None = None,
        activation: str = "none",
        dropout: float = 0.0,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.statistics = pooling if pooling in STATISTICS and pooling != "mean" else None  # of each layer, before their sum
        if self.statistics is not None:
            input_dim, pooling = input_dim * STATISTICS[self.statistics], "mean"
        self.projector = nn.Identity() if projector_dim is None else nn.Linear(input_dim, projector_dim)
        self.activation = _named("activation", activation, ACTIVATIONS)()
        self.dropout = nn.Dropout(dropout)
        self.pooling = _named("pooling", pooling, POOLINGS)(input_dim if projector_dim is None else projector_dim)
        self.output_dim = self.pooling.output_dim

    @property
    def pools(self) -> str | None:
        """Say which statistics of its frames are all that this head needs of an utterance; None where it needs them all."""
        if self.statistics is not None:
            return self.statistics
        linear = isinstance(self.activation, nn.Identity) and self.dropout.p == 0
        return "mean" if linear and isinstance(self.pooling, MeanPool) else None

    def forward(self, frames: Frames) -> Tensor:
        """Return one vector for each utterance: (batch, output_dim)."""
        if frames.pooled and self.pools is None:
            raise ValueError(
                "Expected all frames, found their mean alone: this head has an activation, dropout or another pooling "
                "in front of the mean. Store frames, or build it with activation='none', dropout=0, pooling='mean'."
            )
        assert frames.pooled or self.statistics is None, f"expected {self.statistics} of each layer, found frames"
        projected = self.dropout(self.activation(self.projector(frames.values)))  # (batch, frame, dim)
        return self.pooling(projected, frames.valid)


class Fusion(nn.Module):
    """The vectors of all modalities of an utterance, side by side; zeros stand for a missing text.

    `text_dropout`: the share of utterances whose text a training step leaves out.
    """

    def __init__(self, branches: Mapping[str, Pooled], text_dropout: float = 0.0) -> None:
        super().__init__()
        if text_dropout > 0 and {*branches} != {"audio", "text"}:
            raise UserError(
                f"Expected upstreams of audio and text for a modality_dropout above 0, found {', '.join(branches)} alone. "
                "Leave it out, or add the other one."
            )
        self.branches = nn.ModuleDict(branches)
        self.dims = {role: branch.output_dim for role, branch in branches.items()}
        self.output_dim = sum(self.dims.values())
        self.text_dropout = text_dropout
        self.optional = ("text",) if text_dropout > 0 else ()

    @property
    def is_bare(self) -> bool:
        """Whether it puts statistics of layers side by side, and does no more."""
        bare = all(
            isinstance(branch.projector, nn.Identity) and branch.pools is not None
            for branch in (cast(Pooled, branch) for branch in self.branches.values())
        )
        return bare and self.text_dropout == 0

    @property
    def pools(self) -> dict[str, str | None]:
        """Say for each role what its branch needs of an utterance."""
        return {role: cast(Pooled, branch).pools for role, branch in self.branches.items()}

    def parts(self, frames: Mapping[str, Frames]) -> dict[str, Tensor]:
        """Return one vector of each role for each utterance: (batch, dim)."""
        found = {role: branch(frames[role]) for role, branch in self.branches.items() if role in frames}
        there = next(iter(found.values()))
        for role in self.dims.keys() - found.keys():
            assert role in self.optional, f"no frames of '{role}', which this head cannot do without"
            found[role] = there.new_zeros(len(there), self.dims[role])
        if self.training and self.optional:
            kept = torch.rand(len(there), 1, device=there.device) >= self.text_dropout
            found["text"] = found["text"] * kept
        return {role: found[role] for role in self.dims}

    def forward(self, frames: Mapping[str, Frames]) -> Tensor:
        """Return all roles' vectors in one: (batch, output_dim)."""
        return torch.cat([*self.parts(frames).values()], dim=1)


def _named(kind: str, name: str, known: dict[str, Built]) -> Built:
    if name not in known:
        raise UserError(f"Expected {kind} to be one of {', '.join(known)}, found '{name}'.{nearest(name, known)}")
    return known[name]
