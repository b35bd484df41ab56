"""SpecAugment (Park et al., 2019) on an upstream's frames: stretches of time and of dimensions become one value."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...upstream.base import Frames

Fill = Literal["mean", "zero"]  # what masked frames become: the utterance's mean, as in the paper, or zero, as in s3prl


def mask_time(frames: Frames, count: int, width: int, fill: Fill = "mean") -> Frames:
    """Return frames with `count` stretches of up to `width` frames masked in each utterance, drawn within its length."""
    hidden = stretches(torch.tensor(frames.lengths), frames.values.shape[1], count, width)  # (batch, frame)
    return _filled(frames, hidden.unsqueeze(2), fill)


def mask_dimensions(frames: Frames, count: int, width: int, fill: Fill = "mean") -> Frames:
    """Return frames with `count` stretches of up to `width` neighbouring dimensions masked in each utterance."""
    batch, _, dim = frames.values.shape
    hidden = stretches(torch.full((batch,), dim), dim, count, width)  # (batch, dim)
    return _filled(frames, hidden.unsqueeze(1), fill)


def stretches(lengths: Tensor, size: int, count: int, width: int) -> Tensor:
    """Return a mask (row, size) that is True in `count` stretches of each row, drawn as dropout is: a step seeds it."""
    ends = lengths.unsqueeze(1)
    widths = (torch.rand(len(lengths), count) * (ends.clamp(max=width) + 1)).long()  # 0 to width, the row's length at most
    starts = (torch.rand(len(lengths), count) * (ends - widths + 1)).long()
    places = torch.arange(size)
    inside = (places >= starts.unsqueeze(2)) & (places < (starts + widths).unsqueeze(2))  # (row, stretch, size)
    return inside.any(dim=1)


def _filled(frames: Frames, hidden: Tensor, fill: Fill) -> Frames:
    if fill == "zero":
        return Frames(frames.values.masked_fill(hidden.to(frames.values.device), 0), frames.lengths)
    valid = frames.valid.unsqueeze(2)
    total = frames.values.masked_fill(~valid, 0).sum(dim=(1, 2), keepdim=True)
    mean = total / (valid.sum(dim=(1, 2), keepdim=True).clamp(min=1) * frames.values.shape[2])
    return Frames(torch.where(hidden.to(valid.device), mean, frames.values), frames.lengths)
