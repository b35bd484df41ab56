"""Arrays of samples in place of files: checked, scaled and resampled as files are."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from .audio import resample_array

SAMPLE_RATE = 16_000
LOWEST_RATE = 1000  # Hz: less is a slip, such as 16 for 16 kHz
# one waveform, mono: numbers from -1 to 1, or 8-, 16- or 32-bit integers, which are divided by their range as those of files
Samples = np.ndarray | Tensor | Sequence[float]
Waveform16kHz = Samples  # one that has 16,000 samples in a second

_INTEGERS = (np.int8, np.int16, np.int32)
_MAKE = "For instance: x.astype('float32') / 32768"


def is_one(what: Any) -> bool:
    """Return whether something is one waveform, rather than several: an array of one dimension, or a list of numbers."""
    if isinstance(what, (np.ndarray, Tensor)):
        return what.ndim != 2
    return isinstance(what, (list, tuple)) and len(what) > 0 and isinstance(what[0], numbers.Real)


def rows_of(what: np.ndarray | Tensor) -> list[Any]:
    """Return the waveforms of an array (batch, sample); one with its channels last is refused."""
    if what.shape[0] > what.shape[1]:
        raise UserError(
            f"Expected an array (batch, sample), found shape {tuple(what.shape)}, more waveforms than samples. "
            "Average the channels: x.mean(1)"
        )
    return [*what]


def floats_of(samples: Samples) -> np.ndarray:
    """Return one waveform as float32, all of it finite; 16-bit integers are divided by 32,768."""
    if isinstance(samples, Tensor):
        tensor = samples.detach().cpu()
        samples = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    try:
        array = np.asarray(samples)
    except ValueError as problem:  # lists of other lengths
        raise UserError(f"Expected the samples of a waveform, found: {problem}. {_MAKE}") from None
    if array.ndim != 1:
        raise UserError(f"Expected a 1-d waveform, found shape {array.shape}. Average the channels.")
    if not np.issubdtype(array.dtype, np.floating) and array.dtype not in _INTEGERS:
        raise UserError(f"Expected samples of float, int16 or int32, found {array.dtype}. {_MAKE}")
    scale = 1.0 if np.issubdtype(array.dtype, np.floating) else np.iinfo(array.dtype).max + 1.0
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32) if scale == 1.0 else (array / scale).astype(np.float32)
    _refuse_no_numbers(bool(np.isfinite(floats).all()))
    return floats


def resampled(samples: Samples, sampling_rate: float | None, wanted: int = SAMPLE_RATE) -> np.ndarray:
    """Return one waveform as float32 at the wanted rate, by the function that files go through."""
    rate = checked_rate(sampling_rate)
    return resample_array(floats_of(samples), rate, wanted)


def checked_rate(rate: float | None) -> float:
    """Return a sampling rate, which must be given and be one."""
    if rate is None:
        raise UserError("Expected the sampling rate of an array, found none. Call predict(x, sampling_rate=16000).")
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not (math.isfinite(rate) and rate > 0):
        raise UserError(f"Expected a sampling rate in Hz, found {rate!r}. For instance: sampling_rate=16000")
    if rate < LOWEST_RATE:
        raise UserError(f"Expected a sampling rate in Hz, found {rate:g}. 16 kHz is sampling_rate=16000.")
    return float(rate)


def waveforms_at(what: Any, sampling_rate: float, wanted: int) -> list[Tensor]:
    """Return the waveforms of a list, of an array (batch, sample), or one alone, at the wanted rate.

    A float tensor at that rate is taken as it is.
    """
    return [*_waveforms_at(what, checked_rate(sampling_rate), wanted)]


def _waveforms_at(what: Any, rate: float, wanted: int) -> Iterator[Tensor]:
    if is_one(what):
        what = [what]
    elif isinstance(what, (np.ndarray, Tensor)):
        what = rows_of(what)
    elif not isinstance(what, (list, tuple)):
        raise UserError(f"Expected a list of waveforms, found {type(what).__name__}. Call it with [waveform, waveform].")
    for position, samples in enumerate(what):
        if not (isinstance(samples, (np.ndarray, Tensor)) or is_one(samples)):
            raise UserError(f"Expected an array at position {position}, found {type(samples).__name__}. Read the file first.")
        if isinstance(samples, Tensor) and samples.is_floating_point() and samples.ndim == 1 and rate == wanted:
            _refuse_no_numbers(bool(samples.detach().isfinite().all()))
            yield samples.float()
        else:
            yield torch.from_numpy(resampled(samples, rate, wanted))


def _refuse_no_numbers(finite: bool) -> None:
    if not finite:
        raise UserError("Expected samples that are numbers, found NaN or infinite ones in the array. Look for damaged samples.")
