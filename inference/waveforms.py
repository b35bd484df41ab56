"""Waveforms to predict on: of files, stretches of files, and arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..core.errors import UserError
from ..corpus.audio import read_complete
from ..corpus.base import Utterance

SAMPLE_RATE = 16_000
WINDOW_SECONDS = 20.0  # longer files are cut into equal windows of at most this, and joined
# a file, a stretch of one, or a 16 kHz mono waveform
AudioItem = str | Path | Utterance | np.ndarray | Tensor


def windows_of(item: AudioItem) -> list[np.ndarray] | UserError:
    """Return a file's windows, or why there are none."""
    try:
        return cut(read_waveform(item))
    except UserError as problem:
        return problem


def read_waveform(item: AudioItem) -> np.ndarray:
    """Return a 16 kHz mono waveform that has at least one sample, all of them numbers."""
    if isinstance(item, Utterance):
        waveform = read_complete(item.audio, item.start, item.duration, SAMPLE_RATE)
    elif isinstance(item, (str, Path)):
        waveform = read_complete(str(item), sample_rate=SAMPLE_RATE)
    else:
        waveform = as_float(np.asarray(item))
    if waveform.ndim != 1:
        raise UserError(f"Expected a 1-d waveform, found shape {waveform.shape}. Average the channels.")
    if not len(waveform):
        raise UserError("Expected sound, found a waveform of 0 samples. Record it again.")
    if not np.isfinite(waveform).all():
        raise UserError(f"Expected samples that are numbers, found NaN or infinite ones: {name_of(item)}. Record it again.")
    return waveform


def as_float(samples: np.ndarray) -> np.ndarray:
    """Return samples as float32; integers are scaled to -1 … 1, as files of them are."""
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / (np.iinfo(samples.dtype).max + 1.0)).astype(np.float32)
    return samples.astype(np.float32)


def name_of(item: AudioItem) -> str:
    """Return an item's name in the output."""
    return item.audio if isinstance(item, Utterance) else str(item) if isinstance(item, (str, Path)) else "waveform"


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Return a waveform in equal windows of at most WINDOW_SECONDS."""
    count = max(1, -(-len(waveform) // int(WINDOW_SECONDS * SAMPLE_RATE)))
    return np.array_split(waveform, count)
