"""Where a voice of the demo corpora is heard: channels, distance, a television's music."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .acting import FILE_RATE, LEVEL


def sloped(wave: np.ndarray, slope: float) -> np.ndarray:
    """Return the wave as a microphone hears it whose response rises by so many dB with each octave above 1 kHz."""
    return _filtered(wave, lambda hertz: (np.maximum(hertz, 60.0) / 1000.0) ** (slope / 6.02))


def banded(wave: np.ndarray, low: float, high: float) -> np.ndarray:
    """Keep what lies between two frequencies, with soft edges."""
    return _filtered(wave, lambda hertz: 1 / np.sqrt(1 + (low / np.maximum(hertz, 1.0)) ** 6) / np.sqrt(1 + (hertz / high) ** 6))


def distant(wave: np.ndarray, decibels: float, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Return the wave in a room: its reverberation dies away in so many seconds, the direct sound lies `decibels` above it."""
    count = int(FILE_RATE * seconds)
    tail = generator.normal(size=count) * 10 ** (-3 * np.arange(count) / count)  # 60 dB down at its end
    tail[: FILE_RATE // 200] = 0.0  # the first reflection takes 5 ms
    tail *= 10 ** (-decibels / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    total = len(wave) + count
    echoed = np.fft.irfft(np.fft.rfft(wave, total) * np.fft.rfft(tail, total), total)
    return echoed[: len(wave) + count // 2]


def music(count: int, generator: np.random.Generator) -> np.ndarray:
    """Return a few chords, as loud as a neutral voice."""
    seconds = np.arange(count) / FILE_RATE
    root = generator.uniform(180, 330)
    chord = np.floor(seconds / generator.uniform(0.3, 0.7)).astype(int)
    steps = generator.choice([0, 5, 7, -3], size=int(chord.max()) + 1)[chord]  # semitones
    voices = [root * 2 ** ((steps + interval) / 12) for interval in (0, 4, 7, 12)]
    return at_level(np.sum([np.sin(2 * np.pi * np.cumsum(hertz) / FILE_RATE) for hertz in voices], axis=0), 0.0)


def at_level(wave: np.ndarray, decibels: float) -> np.ndarray:
    """Return the wave so many dB louder than a neutral voice close to the microphone."""
    return wave * (LEVEL * 10 ** (decibels / 20) / max(float(wave.std()), 1e-6))


def _filtered(wave: np.ndarray, response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    hertz = np.fft.rfftfreq(len(wave), 1 / FILE_RATE)
    return np.fft.irfft(np.fft.rfft(wave) * response(hertz), len(wave))
