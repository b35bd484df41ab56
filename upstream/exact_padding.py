"""Exact padding: an utterance's features do not depend on what it is padded with, or beside whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import valid_positions


def conv_length(num_samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the frames that a stack of convolutions makes of so many samples."""
    length = num_samples
    for kernel, stride in zip(kernels, strides, strict=True):
        length = (length - kernel) // stride + 1
    return length


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return the fewest samples that a stack of convolutions makes one frame of."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def standardize(waveforms: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return each waveform with zero mean and unit variance over its valid samples, zeros behind."""
    standard = torch.zeros_like(waveforms)
    for row, length in enumerate(lengths):
        # as fairseq trained these models (eps 1e-5 under the root); transformers' extractor has 1e-7
        standard[row, :length] = F.layer_norm(waveforms[row, :length], (length,))
    return standard


def convolve(convolutions: Iterable[Any], waveforms: Tensor, lengths: Sequence[int], *, exact: bool) -> Tensor:
    """Return the features (batch, frame, dim) of waveforms; if exact, norms over time see valid frames only."""
    hidden = waveforms.unsqueeze(1)  # (batch, 1, sample)
    for layer in convolutions:
        lengths = [conv_length(length, layer.conv.kernel_size, layer.conv.stride) for length in lengths]
        norm = getattr(layer, "layer_norm", None)
        if exact and isinstance(norm, nn.GroupNorm):
            hidden = layer.activation(group_norm_each(norm, layer.conv(hidden), lengths))
        else:
            hidden = layer(hidden)
    return hidden.transpose(1, 2)


def group_norm_each(norm: nn.GroupNorm, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the group norm of (batch, dim, frame) with the statistics of each row's valid frames."""
    if min(lengths) == hidden.shape[2]:
        return norm(hidden)
    # slices cost 1 % of a forward pass, a masked mean and variance 13 %
    rows = [norm(hidden[row : row + 1, :, :length]) for row, length in enumerate(lengths)]
    return torch.cat([F.pad(row, (0, hidden.shape[2] - row.shape[2])) for row in rows])


def positions(embedding: Any, hidden: Tensor, valid: Tensor | None) -> Tensor:
    """Return the positional convolution of frames (batch, frame, dim) that are zero where not valid."""
    batch_norm = getattr(embedding, "batch_norm", None)
    if valid is None and batch_norm is None:
        return embedding(hidden)
    keep = torch.ones((), device=hidden.device) if valid is None else valid.unsqueeze(1)
    if hasattr(embedding, "layers"):  # data2vec stacks convolutions: each would see the one before leak into the padding
        hidden = hidden.transpose(1, 2)  # (batch, dim, frame)
        for layer in embedding.layers:
            hidden = layer(hidden) * keep
        return hidden.transpose(1, 2)
    if batch_norm is not None:  # statistics of the batch would tie an utterance to its mates
        hidden = hidden.transpose(1, 2)
        scale = batch_norm.weight * (batch_norm.running_var + batch_norm.eps).rsqrt()
        scaled = (hidden - batch_norm.running_mean[:, None]) * scale[:, None] + batch_norm.bias[:, None]
        hidden = embedding.activation(embedding.padding(embedding.conv(scaled * keep)))
        return hidden.transpose(1, 2)
    return embedding(hidden)


def padding_mask_as_fairseq(lengths: Sequence[int], num_frames: int) -> tuple[int, ...]:
    """Return the frames that fairseq's HuBERT attends to: those with a valid sample in an equal share of the batch's samples."""
    share = max(lengths) // num_frames
    return tuple(min(-(-length // share), num_frames) for length in lengths)


def zero_padding(hidden: Tensor, valid: Tensor | None) -> Tensor:
    """Return frames (batch, frame, dim) with zeros where they are not valid."""
    return hidden if valid is None else hidden * valid.unsqueeze(2)


def mask_if_padded(lengths: Sequence[int], num_frames: int, device: torch.device) -> Tensor | None:
    """Return the mask (batch, frame) of valid frames, or nothing where all are."""
    return None if min(lengths) == num_frames else valid_positions(lengths, num_frames, device)
