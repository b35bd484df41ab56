"""A pass through an encoder of masked prediction: frames that are replaced, blocks that are skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base import run_block
from ..spans import random_spans


def run_blocks(
    blocks: Sequence[nn.Module],
    hidden: Tensor,
    inputs: Mapping[str, Any],
    *,
    views: int = 1,
    layerdrop: float = 0.0,  # share of blocks that each view skips
    recomputes: bool = False,
) -> list[Tensor]:
    """Return the input of the first block, and the output of each one (batch, frame, dim), also where no view runs it.

    `inputs` is what each block is given beside its input; what it returns beside its output, the next one is given too.
    """
    values, bias = [hidden], dict[str, Tensor]()  # WavLM: the first block makes it for all
    for index, block in enumerate(blocks):
        # the first block is never skipped: WavLM's makes the position bias of all
        kept = _kept(views, layerdrop) if index else [True] * views
        if not any(kept):
            values.append(hidden)
            continue
        output = run_block(block, hidden, recomputes, **inputs, **bias)
        if isinstance(output, tuple):
            output, bias = output[0], {"position_bias": output[1]}
        rows = zip(output.chunk(views), hidden.chunk(views), kept, strict=True)
        hidden = output if all(kept) else torch.cat([after if keep else before for after, before, keep in rows])
        values.append(hidden)
    return values


def _kept(views: int, layerdrop: float) -> list[bool]:
    """Return which views go through a block: each draws for itself, as it would in a pass of its own."""
    return [not layerdrop or torch.rand(()).item() >= layerdrop for _ in range(views)]


def replace_frames(model: Any, hidden: Tensor, masked: Tensor) -> Tensor:
    """Return the frames (batch, frame, dim) with a model's mask embedding where masked (batch, frame)."""
    if masked.shape != hidden.shape[:2]:
        raise ValueError(f"Expected `masked` of shape {tuple(hidden.shape[:2])}, found {tuple(masked.shape)}.")
    return torch.where(masked.bool().unsqueeze(2), model.masked_spec_embed.to(hidden.dtype), hidden)


def is_maskable(model: Any) -> bool:
    """Tell whether a model has a mask embedding."""
    return hasattr(model, "masked_spec_embed")


def augmented(model: Any, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the frames with spans of time replaced and spans of dims zeroed, as the model's config says."""
    batch, _, dim = hidden.shape
    config = model.config
    if config.mask_time_prob > 0 and is_maskable(model):
        spans = [random_spans(n, config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks) for n in lengths]
        masked = nn.utils.rnn.pad_sequence(spans, batch_first=True).to(hidden.device)
        hidden = torch.where(masked.unsqueeze(2), model.masked_spec_embed.to(hidden.dtype), hidden)
    if config.mask_feature_prob > 0:
        prob, length, least = config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks
        zeroed = torch.stack([random_spans(dim, prob, length, least) for _ in range(batch)]).to(hidden.device)
        hidden = hidden.masked_fill(zeroed.unsqueeze(1), 0.0)
    return hidden


def join_windows(values: Tensor, valid: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Return the valid frames of each utterance's windows (window, frame, dim) as (batch, frame, dim)."""
    windows = [value[:length] for value, length in zip(values, valid, strict=True)]
    starts = np.cumsum([0, *counts[:-1]])
    rows = [torch.cat(windows[start : start + count]) for start, count in zip(starts, counts, strict=True)]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
