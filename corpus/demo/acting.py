"""How the demo corpora act an emotion: prosody, voice quality and noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from .synthesiser import SAMPLE_RATE, Voice, speak

FILE_RATE = 16000  # of the files written
LEVEL = 0.05  # root mean square of a neutral voice close to the microphone


@dataclass(frozen=True)
class Speaker:
    """One actor: a voice of espeak-ng with habits of its own."""

    voice: str
    sex: str  # F or M
    pitch: float  # 0 to 99
    rate: float  # words per minute


@dataclass(frozen=True)
class Style:
    """What a fully acted emotion adds to neutral speech."""

    pitch: float = 0.0
    range: float = 0.0
    rate: float = 0.0  # words per minute
    loudness: float = 0.0  # dB
    word_gap: float = 0.0  # units of 10 ms
    tremor: float = 0.0  # depth of a slow modulation, 0 to 1
    breath: float = 0.0  # noise in the voice, relative to it
    tilt: float = 0.0  # below 0 dull, above 0 sharp


STYLES = {
    "neutral": Style(),
    "happy": Style(pitch=12, range=34, rate=18, loudness=2, word_gap=1, tilt=0.15),
    "excited": Style(pitch=16, range=40, rate=36, loudness=4, tilt=0.25),
    "sad": Style(pitch=-10, range=-24, rate=-32, loudness=-6, word_gap=5, tremor=0.25, breath=0.25, tilt=-0.5),
    "angry": Style(pitch=4, range=8, rate=30, loudness=6, word_gap=4, tremor=0.35, tilt=0.6),
    "frustrated": Style(pitch=2, range=6, rate=8, loudness=3, word_gap=3, tremor=0.2, tilt=0.3),
    "fearful": Style(pitch=18, range=-10, rate=30, loudness=-2, tremor=0.6, breath=0.2),
    "disgusted": Style(pitch=-8, range=14, rate=-30, loudness=1, word_gap=2, tremor=0.15, tilt=0.2),
    "surprised": Style(pitch=20, range=48, rate=4, loudness=2, word_gap=2, tilt=0.2),
    "bored": Style(pitch=-12, range=-34, rate=-28, loudness=-4, word_gap=1, tilt=-0.3),
    "calm": Style(pitch=-3, range=-10, rate=-16, loudness=-3, tilt=-0.2),
}


# variants of a voice of espeak-ng
VARIANTS = {"F": ("+f1", "+f2", "+f3", "+f4", "+f5", "+Annie"), "M": ("+m1", "+m3", "+m4", "+m5", "+m7", "+m8")}


def draw_speaker(accent: str, sex: str, generator: np.random.Generator) -> Speaker:
    """Return somebody of this accent and sex."""
    voice = accent + VARIANTS[sex][generator.integers(len(VARIANTS[sex]))]
    return Speaker(voice, sex, {"F": 58, "M": 36}[sex] + 4 * generator.normal(), 190 + 8 * generator.normal())


def perform(text: str, speaker: Speaker, emotion: str, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Return the sentence as this speaker acts it, in a room, at 16 kHz: `strength` 1 is fully acted, 0 is neutral."""
    clean = voiced(text, speaker, STYLES[emotion], strength, generator)
    return over_noise(in_silence(clean, generator), (12, 28), generator)


def voiced(text: str, speaker: Speaker, style: Style, strength: float, generator: np.random.Generator) -> np.ndarray:
    """Return the sentence as this speaker says it close to a perfect microphone, at 16 kHz.

    Every cue wavers from utterance to utterance by about as much as emotions differ, so that none alone decides.
    """
    waver = generator.normal(size=8)
    voice = Voice(
        name=speaker.voice,
        rate=float(np.clip(speaker.rate + strength * style.rate + 11 * waver[0], 100, 320)),
        pitch=float(np.clip(speaker.pitch + strength * style.pitch + 5 * waver[1], 2, 97)),
        range=float(np.clip(48 + strength * style.range + 10 * waver[2], 2, 97)),
        word_gap=float(max(0.0, strength * style.word_gap + 1.2 * waver[3])),
    )
    clean = soxr.resample(speak(text, voice), SAMPLE_RATE, FILE_RATE).astype(np.float64)
    clean = _coloured(clean, strength * style.tilt + 0.15 * waver[4])
    clean = _trembling(clean, max(0.0, strength * style.tremor + 0.08 * waver[5]), 5.5 + 0.6 * waver[6], generator)
    clean = _breathed(clean, max(0.0, strength * style.breath + 0.05 * waver[7]), generator)
    clean *= LEVEL * 10 ** ((strength * style.loudness + 2.5 * generator.normal()) / 20) / max(float(clean.std()), 1e-6)
    return clean


def _coloured(wave: np.ndarray, tilt: float) -> np.ndarray:
    """Sharpen (tilt > 0) or dull (tilt < 0) by a first difference or a first sum."""
    before = np.concatenate([[0.0], wave[:-1]])
    return wave - float(np.clip(tilt, -0.9, 0.9)) * before


def _trembling(wave: np.ndarray, depth: float, frequency: float, generator: np.random.Generator) -> np.ndarray:
    seconds = np.arange(len(wave)) / FILE_RATE
    return wave * (1 + min(depth, 0.9) * np.sin(2 * np.pi * (frequency * seconds + generator.random())))


def _breathed(wave: np.ndarray, amount: float, generator: np.random.Generator) -> np.ndarray:
    """Add noise that follows the voice's envelope."""
    window = np.hanning(401)
    envelope = np.sqrt(np.maximum(np.convolve(wave**2, window / window.sum(), mode="same"), 0.0))
    return wave + amount * envelope * generator.normal(size=len(wave))


def in_silence(wave: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Put silence around a wave, 50 to 300 ms on each side."""
    before, after = generator.integers(800, 4800, size=2)
    return np.concatenate([np.zeros(before), wave, np.zeros(after)])


def over_noise(wave: np.ndarray, decibels: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Put pink noise over a wave, drawn between so many decibels below a neutral voice, within the range of a file."""
    spectrum = np.fft.rfft(generator.normal(size=len(wave)))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20.0))
    noise = np.fft.irfft(spectrum, len(wave))
    level = LEVEL * 10 ** (-generator.uniform(*decibels) / 20)
    return np.clip(wave + noise * level / noise.std(), -0.99, 0.99).astype(np.float32)


def write_wav(path: Path, wave: np.ndarray) -> float:
    """Write 16 kHz mono PCM and return its seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, FILE_RATE, subtype="PCM_16")
    return len(wave) / FILE_RATE
