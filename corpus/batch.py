"""Batches: waveforms padded once, with what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One piece of a step; `stored` layers by role stand in place of waveforms where a store has them."""

    waveforms: Tensor | None  # (batch, sample), zeros behind each utterance's end
    lengths: tuple[int, ...]  # valid samples of each utterance; they stay on the host
    ids: tuple[str, ...]
    texts: tuple[str | None, ...] = ()
    targets: tuple[Any, ...] = ()
    stored: Mapping[str, Any] = field(default_factory=dict)  # role -> Layers

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its waveforms on a device."""
        moved = self.waveforms if self.waveforms is None else self.waveforms.to(device)
        return Batch(moved, self.lengths, self.ids, self.texts, self.targets, self.stored)


def as_batch(waveforms: Batch | Sequence[Tensor | np.ndarray]) -> Batch:
    """Return a batch of 1-d waveforms, padded once with zeros; a batch passes through."""
    if isinstance(waveforms, Batch):
        return waveforms
    tensors = [torch.as_tensor(waveform, dtype=torch.float32) for waveform in waveforms]
    for index, tensor in enumerate(tensors):
        if tensor.ndim != 1:
            raise ValueError(f"Expected 1-d waveforms, found shape {tuple(tensor.shape)} at position {index}. Average the channels.")
    if not tensors:
        raise ValueError("Expected at least one waveform, found an empty list.")
    lengths = tuple(len(tensor) for tensor in tensors)
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return Batch(padded, lengths, ids=tuple(str(index) for index in range(len(tensors))))
