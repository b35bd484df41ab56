"""The x-vector (Snyder et al., 2018): layers over dilated stretches of frames, statistics over time, and two linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...upstream.base import Frames, valid_positions

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # (frames, steps between them) that a layer puts side by side
SHRINK = sum((size - 1) * step for size, step in CONTEXTS)  # frames fewer behind the layers
_LEAST_VARIANCE = 1e-12  # below it the root has no slope that one could follow


class TimeDelay(nn.Module):
    """A linear layer and ReLU over frames of a stretch, put side by side: (batch, frame, dim) -> fewer frames."""

    def __init__(self, input_dim: int, output_dim: int, size: int, step: int) -> None:
        super().__init__()
        self.size, self.step = size, step
        self.linear = nn.Linear(size * input_dim, output_dim)

    def forward(self, values: Tensor) -> Tensor:
        """Return one frame for each stretch that lies inside."""
        left = values.shape[1] - (self.size - 1) * self.step
        parts = [values[:, place * self.step : place * self.step + left] for place in range(self.size)]
        return torch.relu(self.linear(torch.cat(parts, dim=2)))


class XVector(nn.Module):
    """Linear -> five time-delay layers -> mean and deviation over time -> linear, ReLU: the embedding (batch, dim)."""

    def __init__(self, input_dim: int, dim: int, pooled_dim: int) -> None:
        super().__init__()
        self.projector = nn.Linear(input_dim, dim)
        widths = [dim] * len(CONTEXTS) + [pooled_dim]
        self.layers = nn.Sequential(
            *(TimeDelay(widths[place], widths[place + 1], *context) for place, context in enumerate(CONTEXTS))
        )
        self.embedding = nn.Linear(2 * pooled_dim, dim)

    def forward(self, frames: Frames) -> Tensor:
        """Return one embedding for each utterance; where it is too short for a stretch, its last frame is repeated."""
        size = frames.values.shape[1]
        ends = torch.tensor(frames.lengths, device=frames.values.device).unsqueeze(1)
        places = torch.arange(size + SHRINK, device=frames.values.device).unsqueeze(0)
        places = torch.minimum(places, ends - 1).unsqueeze(2).expand(-1, -1, frames.values.shape[2])
        hidden = self.layers(self.projector(frames.values.gather(1, places)))  # (batch, frame, pooled_dim)
        valid = valid_positions([1], size, hidden.device) | (torch.arange(size, device=hidden.device) < ends - SHRINK)
        return torch.relu(self.embedding(mean_and_deviation(hidden, valid)))


def mean_and_deviation(values: Tensor, valid: Tensor) -> Tensor:
    """Return mean and sample deviation over valid frames, side by side (batch, 2 dim); of a single frame the latter is 0."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    valid = valid.unsqueeze(2)
    count = valid.sum(dim=1)  # (batch, 1)
    mean = values.masked_fill(~valid, 0).sum(dim=1) / count
    squares = (values - mean.unsqueeze(1)).square().masked_fill(~valid, 0).sum(dim=1)
    variance = squares / (count - 1).clamp(min=1)
    deviation = variance.clamp(min=_LEAST_VARIANCE).sqrt().masked_fill(variance < _LEAST_VARIANCE, 0)
    return torch.cat([mean, deviation], dim=1)


def am_softmax(embeddings: Tensor, weights: Tensor, targets: Tensor, scale: float, margin: float) -> Tensor:
    """Return the loss of each utterance: cross entropy of scaled cosines, the own speaker's lowered by a margin.

    Additive margin softmax (Wang et al., 2018), in float32: -log softmax of scale x (cos - margin at the target).
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        cosines = F.normalize(embeddings.float(), dim=1) @ F.normalize(weights.float(), dim=1).T  # (batch, speaker)
        lowered = cosines - margin * F.one_hot(targets, len(weights))
        return F.cross_entropy(scale * lowered, targets, reduction="none")
