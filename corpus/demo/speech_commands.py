"""A miniature of Speech Commands: single words of one second, noises, lists, and the separate test set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .acting import FILE_RATE, Speaker, Style, draw_speaker, over_noise, voiced, write_wav
from .rooms import at_level, banded, distant, sloped

_SPEAKERS = {"train": 24, "dev": 6, "test": 6}  # at scale 1
_OTHER_WORDS = ("zero", "one", "three", "five", "nine", "bed", "dog", "happy", "house", "wow")
_OTHERS = 5  # words of each speaker that are no keywords
_NOISES = {"running_tap": (1500.0, 7000.0), "doing_the_dishes": (700.0, 4000.0), "pink_noise": (60.0, 1500.0)}  # Hz
_NOISE_SECONDS = 30.0
_ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland")


@dataclass(frozen=True)
class Layout:
    """What the corpus calls its words, folders and lists, and whom it puts where."""

    keywords: Sequence[str]
    unknown: str  # folders of the test set
    silence: str
    noise: str  # folder
    test_set: str  # folder
    lists: Mapping[str, str]  # split -> file
    split_of: Callable[[str], str]  # of a speaker


def make_demo(folder: Path, *, seed: int, scale: float, layout: Layout) -> None:
    """Write speech_commands_v0.01 and its test set, about 650 clips at scale 1."""
    root = folder / "speech_commands_v0.01"
    lists: dict[str, list[str]] = {split: [] for split in layout.lists}
    for number, (split, name) in enumerate(_people(seed, scale, layout.split_of)):
        generator = np.random.default_rng([seed, 1, number])
        speaker = draw_speaker(_ACCENTS[number % len(_ACCENTS)], "FM"[number // 2 % 2], generator)
        others = [_OTHER_WORDS[index] for index in generator.permutation(len(_OTHER_WORDS))[:_OTHERS]]
        for word in (*layout.keywords, *others):
            clip = _clip(word, speaker, generator)
            write_wav(root / word / f"{name}_nohash_0.wav", clip)
            if split in lists:
                lists[split].append(f"{word}/{name}_nohash_0.wav")
            if split == "test" and word not in others[1:]:
                place = word if word in layout.keywords else layout.unknown
                write_wav(folder / layout.test_set / place / f"{name}_nohash_0.wav", clip)
    for split, names in lists.items():
        (root / layout.lists[split]).write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")
    for number, (kind, band) in enumerate(_NOISES.items()):
        generator = np.random.default_rng([seed, 2, number])
        write_wav(root / layout.noise / f"{kind}.wav", _noise(_NOISE_SECONDS, band, generator))
        for take in range(max(1, round(2 * scale))):
            write_wav(folder / layout.test_set / layout.silence / f"{number}_{take}.wav", _noise(1.0, band, generator))


def _people(seed: int, scale: float, split_of: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Yield splits and names whose hash puts them there, as the corpus' README has it."""
    generator = np.random.default_rng([seed, 0])
    for split, count in _SPEAKERS.items():
        names: list[str] = []
        while len(names) < max(1, round(count * scale)):
            name = f"{generator.integers(2**32):08x}"
            if split_of(name) == split:
                names.append(name)
        yield from ((split, name) for name in names)


def _clip(word: str, speaker: Speaker, generator: np.random.Generator) -> np.ndarray:
    """Return a word within a second, as a phone or a laptop somewhere hears it."""
    wave = voiced(word, speaker, Style(), 1.0, generator)
    wave = sloped(distant(wave, generator.normal(10, 4), 0.2, generator), generator.normal(0, 1.5))
    wave = _loudest(wave, FILE_RATE)
    before = int(generator.integers(FILE_RATE - len(wave) + 1))
    placed = np.concatenate([np.zeros(before), wave, np.zeros(FILE_RATE - len(wave) - before)])
    return over_noise(placed, (12, 28), generator)


def _loudest(wave: np.ndarray, count: int) -> np.ndarray:
    """Return the stretch of at most so many samples that holds most of the wave's energy."""
    if len(wave) <= count:
        return wave
    energy = np.concatenate([[0.0], np.cumsum(wave**2)])
    start = int(np.argmax(energy[count:] - energy[:-count]))
    return wave[start : start + count]


def _noise(seconds: float, band: Sequence[float], generator: np.random.Generator) -> np.ndarray:
    """Return noise in a band of frequencies that swells and fades."""
    count = int(seconds * FILE_RATE)
    wave = banded(generator.normal(size=count), *band)
    moments = np.linspace(0, seconds, count)
    knots = np.arange(0, seconds + 0.5, 0.5)
    swell = 10 ** (np.interp(moments, knots, 5 * generator.normal(size=len(knots))) / 20)
    return np.clip(at_level(wave * swell, generator.uniform(-14, -4)), -0.99, 0.99).astype(np.float32)
