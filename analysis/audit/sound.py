"""Duration, loudness and a coarse fingerprint of an utterance, and whether two waveforms are one recording."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

RATE = 8000  # Hz: what a resampled copy still has
SEGMENTS, BANDS = 32, 16  # of a fingerprint
LOWEST, HIGHEST = 100.0, 3400.0  # Hz: a telephone's band
FLOOR = 1e-4  # of the largest energy: below it is noise
QUIET = 1e-3  # of full scale: a clip whose rms is below it holds next to no speech (-60 dB)
NOTHING = 1e-4  # of full scale: the peak of a clip that has no samples to compare


@dataclass(frozen=True)
class Sound:
    """What is known of an utterance's sound without knowing what is said."""

    seconds: float
    rms: float  # of full scale
    peak: float
    fingerprint: NDArray[np.float32]  # (segment x band): energy in dB about the mean of its band

    @property
    def size(self) -> tuple[float, float, float]:
        """Logarithms of duration, loudness and peak."""
        least = 1e-6
        return float(np.log(self.seconds)), float(np.log(max(self.rms, least))), float(np.log(max(self.peak, least)))


def sound_of(waveform: NDArray[np.float32]) -> Sound:
    """Return the facts of a waveform at 8 kHz."""
    values = np.asarray(waveform, np.float64)
    rms, peak = float(np.sqrt(np.mean(values**2))), float(np.abs(values).max())
    return Sound(len(values) / RATE, rms, peak, fingerprint(values))


def fingerprint(waveform: NDArray) -> NDArray[np.float32]:
    """Return the course of the energy in each band; a gain, a few milliseconds and a lower sample rate hardly change it."""
    size = max(2 * len(waveform) // SEGMENTS, 64)
    padded = np.pad(waveform - waveform.mean(), (size // 4, size))
    starts = (np.arange(SEGMENTS) * len(waveform) / SEGMENTS).astype(int)
    frames = np.stack([padded[start : start + size] for start in starts]) * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, n=max(size, 512), axis=1)) ** 2  # (segment, frequency)
    edges = np.geomspace(LOWEST, HIGHEST, BANDS + 1) / (RATE / 2) * (power.shape[1] - 1)
    places = np.round(edges).astype(int)
    bands = np.stack([power[:, a : max(b, a + 1)].sum(axis=1) for a, b in pairwise(places)], axis=1)
    if not bands.max() > 0:
        return np.zeros(SEGMENTS * BANDS, np.float32)
    levels = 10 * np.log10(bands + FLOOR * bands.max())
    return (levels - levels.mean(axis=0)).ravel().astype(np.float32)


def agreement(first: NDArray, second: NDArray) -> float:
    """Return the largest correlation of two waveforms over all shifts: 1 for one recording, whatever its gain and start."""
    sharp = [np.diff(np.asarray(values, np.float64)) for values in (first, second)]  # hum would agree with any other hum
    norms = [float(np.linalg.norm(values)) for values in sharp]
    if not all(norms):
        return 0.0
    size = 1 << int(np.ceil(np.log2(len(sharp[0]) + len(sharp[1]))))
    product = np.fft.rfft(sharp[0], size) * np.conj(np.fft.rfft(sharp[1], size))
    return float(np.abs(np.fft.irfft(product, size)).max() / (norms[0] * norms[1]))
