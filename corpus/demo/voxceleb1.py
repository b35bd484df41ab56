"""A miniature of VoxCeleb1: people in several videos, each with a room, a microphone and a topic of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from string import ascii_lowercase

import numpy as np

from .acting import VARIANTS, Speaker, Style, in_silence, over_noise, voiced, write_wav
from .rooms import distant, sloped
from .texts.talk import TOPICS, graded_sentence

_SPEAKERS = (8, 12)  # at the least, and from scale 1 on
_VIDEOS = {1: 5, 2: 2, 3: 2}  # number of a split in the list -> videos of each speaker
_CLIPS = 3  # of each video at scale 1
_ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland")
_LONG = 0.08  # share of the utterances that outlast a crop of eight seconds


@dataclass(frozen=True)
class _Video:
    """One day of somebody's, in one room, with one microphone."""

    name: str
    speaker: Speaker
    topic: str
    slope: float  # dB for each octave
    echo: float  # seconds
    near: float  # dB of the direct sound above the room
    noise: float  # dB below the voice


def make_demo(folder: Path, *, seed: int, scale: float, list_name: str, trials_name: str) -> None:
    """Write dev/wav, test/wav, the list of the splits and the trials: 12 speakers, about 320 utterances at scale 1."""
    lines, tested = [], []
    least, most = _SPEAKERS
    for number in range(min(most, max(least, round(most * scale)))):
        name, generator = f"id{10001 + number}", np.random.default_rng([seed, number])
        # released in two parts for verification; the list of identification goes across them
        part = "test" if number % 4 == 3 else "dev"
        place = folder / part / "wav" / name
        for split, video in _videos(_speaker(number, generator), generator):
            for take in range(max(1, round(_CLIPS * scale))):
                clip = f"{video.name}/{take + 1:05d}.wav"
                write_wav(place / clip, _recorded(video, generator))
                lines.append(f"{split} {name}/{clip}")
                tested += [f"{name}/{clip}"] * (part == "test")
    (folder / list_name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / trials_name).write_text("\n".join(_trials(tested)) + "\n", encoding="utf-8")


def _trials(files: Sequence[str]) -> list[str]:
    """Return a line for each pair of files, but for those of one video."""
    pairs = [(one, other) for one, other in combinations(files, 2) if one.split("/")[:2] != other.split("/")[:2]]
    return [f"{int(one.split('/')[0] == other.split('/')[0])} {one} {other}" for one, other in pairs]


def _speaker(number: int, generator: np.random.Generator) -> Speaker:
    """Return somebody whom voice, pitch and pace tell from the others, though none of them alone."""
    sex = "FM"[number % 2]
    voice = _ACCENTS[number % len(_ACCENTS)] + VARIANTS[sex][number // 2 % len(VARIANTS[sex])]
    return Speaker(voice, sex, {"F": 58, "M": 36}[sex] + 5 * generator.normal(), 190 + 14 * generator.normal())


def _videos(speaker: Speaker, generator: np.random.Generator) -> Iterator[tuple[int, _Video]]:
    """Yield the number of a split and a video, for all of a speaker's."""
    for split, count in _VIDEOS.items():
        for _ in range(count):
            yield (
                split,
                _Video(
                    name="".join(ascii_lowercase[letter] for letter in generator.integers(26, size=11)),
                    speaker=speaker,
                    topic=[*TOPICS][generator.integers(len(TOPICS))],
                    slope=generator.normal(0, 2),
                    echo=generator.uniform(0.1, 0.4),
                    near=generator.normal(10, 4),
                    noise=generator.uniform(10, 24),
                ),
            )


def _recorded(video: _Video, generator: np.random.Generator) -> np.ndarray:
    count = 5 if generator.random() < _LONG else 1
    text = " ".join(graded_sentence(int(generator.integers(-2, 3)), video.topic, generator) for _ in range(count))
    wave = in_silence(voiced(text, video.speaker, Style(), 1.0, generator), generator)
    wave = sloped(distant(wave, video.near, video.echo, generator), video.slope)
    return over_noise(wave, (video.noise - 1, video.noise + 1), generator)
