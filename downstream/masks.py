"""SpecAugment (Park et al., 2019) on an upstream's frames: stretches of time and of dimensions become one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.options import MASKS, MILLIONS
from ..upstream.base import Frames

Fill = Literal["mean", "zero"]  # what masked frames become: the utterance's mean, as in the paper, or zero, as in s3prl


@dataclass(frozen=True)
class MasksConfig:
    """The `masks:` section: SpecAugment between the weighted sum and the expert, in training; with no mask there is none."""

    time_warp: Annotated[int, MILLIONS] = 0  # frames that a point in time is moved by, at most
    time_masks: Annotated[int, MASKS] = 0  # spans of frames, each drawn by itself
    time_width: Annotated[int, MILLIONS] = 40  # frames, at most
    dim_masks: Annotated[int, MASKS] = 0  # spans of dimensions
    dim_width: Annotated[int, MILLIONS] = 50  # dimensions, at most
    fill: Fill = "mean"  # what stands in a mask

    @property
    def is_on(self) -> bool:
        """Whether anything changes."""
        return bool(self.time_warp or self.time_masks or self.dim_masks)


def mask(frames: Frames, config: MasksConfig) -> Frames:
    """Return frames with time warped, then stretches of time and of dimensions masked."""
    if config.is_on and frames.pooled:
        raise ValueError("Expected frames to mask, found their mean. Store frames, or leave the masks out.")
    frames = warp_time(frames, config.time_warp) if config.time_warp else frames
    frames = mask_time(frames, config.time_masks, config.time_width, config.fill) if config.time_masks else frames
    return mask_dimensions(frames, config.dim_masks, config.dim_width, config.fill) if config.dim_masks else frames


def warp_time(frames: Frames, most: int) -> Frames:
    """Return frames in which a point of each utterance moves by up to `most` frames, what lies on both sides with it.

    As in ESPnet and s3prl: an utterance of no more than twice as many frames stays as it is, and the others are interpolated
    by cubic splines.
    """
    rows = [
        torch.cat([_warped(row[:length], most), row[length:]]) for row, length in zip(frames.values, frames.lengths, strict=True)
    ]
    return Frames(torch.stack(rows), frames.lengths)


def _warped(values: Tensor, most: int) -> Tensor:
    length, dim = values.shape
    if length <= 2 * most:
        return values
    centre = int(torch.randint(most, length - most, ()))
    moved = int(torch.randint(centre - most, centre + most, ())) + 1
    parts = ((values[:centre], moved), (values[centre:], length - moved))
    stretched = [F.interpolate(part[None, None], (size, dim), mode="bicubic", align_corners=False)[0, 0] for part, size in parts]
    return torch.cat(stretched)


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
