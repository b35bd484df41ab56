"""Waveforms to predict on: of files, stretches of files, and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.errors import UserError
from ..corpus.arrays import SAMPLE_RATE, Samples, is_one, resampled, rows_of
from ..corpus.audio import read_complete
from ..corpus.base import Utterance

SHORTEST = 400  # samples: one frame of every upstream here, which would fill up what is shorter
WINDOW_SECONDS = 20.0  # longer files are cut into equal windows of at most this, and joined


@dataclass(frozen=True, eq=False)
class Waveform:
    """An array of samples with its rate, which must be given: nothing in an array says it."""

    samples: Samples
    sampling_rate: float | None
    name: str = "waveform"  # in messages and in the output


AudioItem = str | Path | Utterance | Waveform  # a file, a stretch of one, or an array


def items_of(what: Any, sampling_rate: float | None) -> AudioItem | list[AudioItem]:
    """Return what a user gives to predict on: one item, or a list of them of a list or of an array (batch, sample)."""
    if isinstance(what, (np.ndarray, Tensor)) and not is_one(what):
        return [Waveform(row, sampling_rate) for row in rows_of(what)]
    if not isinstance(what, (list, tuple)) or is_one(what):
        return item_of(what, sampling_rate)
    if not what:
        raise UserError("Expected at least one file or array, found an empty list.")
    return [item_of(one, sampling_rate) for one in what]


def item_of(what: Any, sampling_rate: float | None) -> AudioItem:
    """Return one file, stretch or array as an item."""
    if isinstance(what, (str, Path, Utterance, Waveform)):
        return what
    if isinstance(what, (np.ndarray, Tensor)) or is_one(what):
        return Waveform(what, sampling_rate)
    raise UserError(
        f"Expected a file, an array or a list of them, found {type(what).__name__}. "
        "Call predict('a.wav') or predict(x, sampling_rate=16000)."
    )


def windows_of(item: AudioItem) -> list[np.ndarray] | UserError:
    """Return a file's windows, or why there are none."""
    try:
        return cut(read_waveform(item))
    except UserError as problem:
        return problem


def read_waveform(item: AudioItem) -> np.ndarray:
    """Return a 16 kHz mono waveform of at least one frame, all of its samples numbers."""
    if isinstance(item, Utterance):
        waveform = read_complete(item.audio, item.start, item.duration, SAMPLE_RATE)
    elif isinstance(item, (str, Path)):
        waveform = read_complete(str(item), sample_rate=SAMPLE_RATE)
    else:
        waveform = resampled(item.samples, item.sampling_rate)
    if len(waveform) < SHORTEST:
        raise UserError(
            f"Expected at least one frame of audio ({SHORTEST} samples at 16 kHz, {1000 * SHORTEST / SAMPLE_RATE:g} ms), found "
            f"{len(waveform)} samples: {name_of(item)}. Record it again."
        )
    return waveform


def name_of(item: AudioItem) -> str:
    """Return an item's name in the output."""
    return item.audio if isinstance(item, Utterance) else str(item) if isinstance(item, (str, Path)) else item.name


def cut(waveform: np.ndarray) -> list[np.ndarray]:
    """Return a waveform in equal windows of at most WINDOW_SECONDS."""
    count = max(1, -(-len(waveform) // int(WINDOW_SECONDS * SAMPLE_RATE)))
    return np.array_split(waveform, count)
