"""Batches: which utterances make a step, how it is cut into pieces, and waveforms padded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .audio import read_audio
from .base import Utterance


@dataclass(frozen=True)
class Batch:
    """One piece of a step; `stored` layers by role stand in place of waveforms where a store has them."""

    waveforms: Tensor | None  # (batch, sample), zeros behind each utterance's end
    lengths: tuple[int, ...]  # valid samples of each utterance; they stay on the host
    ids: tuple[str, ...]
    texts: tuple[str | None, ...] = ()
    targets: tuple[Any, ...] = ()
    stored: Mapping[str, Any] = field(default_factory=dict)  # role -> Layers
    draws: tuple[int, ...] = ()  # the seed of what is drawn for each utterance, whichever piece or process it is in

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its waveforms and stored layers on a device."""
        moved = None if self.waveforms is None else self.waveforms.to(device)
        stored = {
            role: replace(layers, values=[value.to(device) for value in layers.values]) for role, layers in self.stored.items()
        }
        return replace(self, waveforms=moved, stored=stored)


def as_batch(waveforms: Batch | Sequence[Tensor | np.ndarray]) -> Batch:
    """Return a batch of 1-d waveforms, padded once with zeros; a batch passes through."""
    if isinstance(waveforms, Batch):
        return waveforms
    tensors = [torch.as_tensor(waveform, dtype=torch.float32) for waveform in waveforms]
    for index, tensor in enumerate(tensors):
        if tensor.ndim != 1:
            raise ValueError(
                f"Expected 1-d waveforms, found shape {tuple(tensor.shape)} at position {index}. Average the channels."
            )
    if not tensors:
        raise ValueError("Expected at least one waveform, found an empty list.")
    lengths = tuple(len(tensor) for tensor in tensors)
    padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return Batch(padded, lengths, ids=tuple(str(index) for index in range(len(tensors))))


@dataclass(frozen=True)
class Example:
    """An utterance with what training needs of it in every step."""

    utterance: Utterance
    seconds: float
    target: Any = None
    weight: float = 1.0  # how often it is drawn, relative to others
    draw: int = 0  # the seed of what is drawn for it: of a step in training, its own elsewhere


def make_batch(examples: Sequence[Example], sample_rate: int = 16_000) -> Batch:
    """Read the examples' audio and pad it once."""
    utterances = [example.utterance for example in examples]
    waveforms = [read_audio(row.audio, row.start, row.duration, sample_rate) for row in utterances]
    padded = as_batch(waveforms)
    return Batch(
        padded.waveforms,
        padded.lengths,
        ids=tuple(row.id for row in utterances),
        texts=tuple(row.text for row in utterances),
        targets=tuple(example.target for example in examples),
        draws=tuple(example.draw for example in examples),
    )


def silent_batch(examples: Sequence[Example]) -> Batch:
    """Return a batch for which no audio is read."""
    return Batch(
        waveforms=None,
        lengths=(),
        ids=tuple(example.utterance.id for example in examples),
        texts=tuple(example.utterance.text for example in examples),
        targets=tuple(example.target for example in examples),
        draws=tuple(example.draw for example in examples),
    )
