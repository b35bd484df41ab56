"""Batches: which utterances make a step, how it is cut into pieces, and waveforms padded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
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
    """An utterance with what training asks of it again and again."""

    utterance: Utterance
    seconds: float
    target: Any = None
    weight: float = 1.0  # how often it is drawn, relative to others


def derive_seed(*parts: int | str) -> int:
    """Return a seed for a fresh generator: the same for the same parts, on every machine."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits: torch takes no more


def draw(count: int, batch_size: int, seed: int, step: int, weights: Tensor | None = None) -> list[int]:
    """Return the rows of a step's set, a function of (seed, step) alone.

    Without weights: epochs of shuffled rows, one after the other. With weights: drawn with replacement.
    """
    if weights is not None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "draw", step))
        return torch.multinomial(weights, batch_size, replacement=True, generator=generator).tolist()
    first = step * batch_size
    return [epoch_order(count, seed, place // count)[place % count] for place in range(first, first + batch_size)]


@lru_cache(maxsize=16)
def epoch_order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the shuffled rows of an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    return tuple(torch.randperm(count, generator=generator).tolist())


def sampling_weights(examples: Sequence[Example]) -> Tensor | None:
    """Return the examples' weights, or None where all are drawn alike."""
    weights = [example.weight for example in examples]
    return torch.tensor(weights, dtype=torch.float64) if len({*weights}) > 1 else None


def cut_pieces(
    examples: Sequence[Example], *, seconds: float, size: int | None = None, sort: bool = True, overhead: float = 1.0
) -> list[list[Example]]:
    """Return the examples in pieces: at most `seconds` of padded audio and `size` utterances each.

    Sorted by length they are cut where all of it takes least: a piece costs its padded seconds, and `overhead` seconds more.
    """

    def fits(longest: float, count: int) -> bool:
        """Return whether so many utterances, padded so far, may be a piece."""
        return count == 1 or (longest * count <= seconds and (size is None or count <= size))

    if sort:
        return _cheapest_pieces(sorted(examples, key=lambda example: -example.seconds), fits, overhead)
    pieces: list[list[Example]] = []
    for example in examples:
        piece = [*pieces[-1], example] if pieces else [example]
        if pieces and fits(max(other.seconds for other in piece), len(piece)):
            pieces[-1] = piece
        else:
            pieces.append([example])
    return pieces


def _cheapest_pieces(rows: Sequence[Example], fits: Callable[[float, int], bool], overhead: float) -> list[list[Example]]:
    """Cut rows that fall in length: a shortest path over the places to cut."""
    least, starts = [0.0], [0]  # of the first so many rows: what they cost, and where their last piece starts
    for end in range(1, len(rows) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            longest, count = rows[start].seconds, end - start
            if not fits(longest, count):
                break
            options.append((least[start] + longest * count + overhead, start))
        cost, first = min(options)
        least.append(cost)
        starts.append(first)
    pieces, end = [], len(rows)
    while end:
        pieces.append(list(rows[starts[end] : end]))
        end = starts[end]
    return pieces[::-1]


def deal(examples: Sequence[Example], processes: int, process: int, *, sort: bool = True) -> list[Example]:
    """Return one process' share of a step: lengths spread evenly, counts that differ by one at most."""
    rows = sorted(examples, key=lambda example: -example.seconds) if sort else list(examples)
    return rows[process::processes]


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
    )
