"""Losses that compare the utterances of a step: how they see those of the other processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def gathered(values: Tensor) -> Tensor:
    """Return the rows of every process, with a gradient that finds its way back to each; alone, the rows as they are.

    Each process then forms the same loss. The backward pass sums a row's gradients over the processes' losses, and DDP divides
    by their number: the gradient is that of one process which holds all rows.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return values
    if not values.requires_grad:
        parts = [torch.empty_like(values) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(values.contiguous()))
