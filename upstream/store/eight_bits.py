"""Frames in eight bits: for each utterance, layer and channel a middle and a step, and a code for each number.

Few channels of a layer may be many times larger than the others, and some vary little around a large middle: a step that is
shared between channels, or one that counts from zero, spends most of its codes on nothing. See docs/decisions.md.
"""

from __future__ import annotations

import numpy as np
import torch

CODE = np.dtype("i1")
HEAD = 4  # frames whose place middles and steps take, in front of an utterance's codes: two float16 a channel
_HALF = np.dtype("<f2")
_CODES = 127  # on either side of the middle
_CACHED = 2**17  # numbers that are decoded at once


def encode(values: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return frames (frame, layer, dim) as int8 (HEAD + frame, layer, dim), and what was lost by layer.

    Lost is the error of what `decode` returns over the standard deviation of the channel, as root mean square of all channels.
    """
    frames = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    lowest, highest = frames.amin(dim=0), frames.amax(dim=0)  # (layer, dim)
    middle = ((lowest + highest) / 2).half().float()
    step = _rounded_up(torch.maximum(highest - middle, middle - lowest) / _CODES)
    codes = ((frames - middle) / step.where(step > 0, 1.0)).round_().to(torch.int8)
    head = torch.stack([middle.half(), step.half()]).numpy().astype(_HALF, copy=False)
    stored = np.concatenate([head.reshape(-1).view(CODE).reshape(HEAD, *values.shape[1:]), codes.numpy()])
    decoded = np.empty(values.shape, _HALF)
    decode(stored, decoded)
    error = (torch.from_numpy(decoded).float() - frames).square_().mean(dim=0)  # (layer, dim)
    spread = frames.var(dim=0, correction=0)
    lost = torch.where(spread > 0, error / spread.where(spread > 0, 1.0), 0.0).mean(dim=1).sqrt()
    return stored, tuple(lost.tolist())


def decode(stored: np.ndarray, into: np.ndarray, columns: slice | list[int] = slice(None)) -> None:
    """Write the frames (frame, layer, dim) of some layers, of what `encode` returned, into an array of float16."""
    head = np.ascontiguousarray(stored[:HEAD]).reshape(-1).view(_HALF).reshape(2, *stored.shape[1:])
    middle, step = head[:, columns].astype(np.float32)  # each (layer, dim)
    rows = max(1, _CACHED // middle.size)  # a few at a time, which stay in the processor's cache
    buffer = np.empty((rows, *middle.shape), np.float32)
    for start in range(0, len(into), rows):
        part = into[start : start + rows]
        numbers = buffer[: len(part)]
        np.multiply(stored[HEAD + start : HEAD + start + len(part), columns], step, out=numbers)
        numbers += middle
        torch.from_numpy(part).copy_(torch.from_numpy(numbers))  # several times as fast as numpy's conversion


def _rounded_up(step: torch.Tensor) -> torch.Tensor:
    """Return what float16 keeps of a step, never less of it, so that its codes reach the ends."""
    short = step.half()
    return torch.where(short.float() < step, torch.nextafter(short, short.new_tensor(torch.inf)), short).float()
