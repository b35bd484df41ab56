"""Miniatures of the acted corpora (RAVDESS, CREMA-D, EmoDB): fixed sentences, each emotion by each actor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .acting import VARIANTS, Speaker, perform, write_wav

_RAVDESS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised")  # 01 to 08
_CREMAD = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_EMODB = {"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}


def make_ravdess(folder: Path, *, seed: int, scale: float, texts: Mapping[str, str]) -> None:
    """Write Actor_01 to Actor_24, about 380 files at scale 1."""
    for actor in range(1, 25):
        speaker, generator = _actor("en-us", "M" if actor % 2 else "F", seed, actor)
        takes = [
            (f"03-01-{number:02d}-01-{statement}-01-{actor:02d}", emotion, text)
            for number, emotion in enumerate(_RAVDESS, start=1)
            for statement, text in texts.items()
        ]
        _record(folder / f"Actor_{actor:02d}", _part(takes, scale, generator), speaker, generator)


def make_cremad(folder: Path, *, seed: int, scale: float, texts: Mapping[str, str]) -> None:
    """Write AudioWAV and the table of actors: 20 of the 91 actors, about 480 clips at scale 1."""
    rows = ["ActorID,Age,Sex,Race,Ethnicity"]
    for actor in range(1001, 1021):
        sex = "FM"[actor % 2]
        speaker, generator = _actor("en-us", sex, seed, actor)
        codes = generator.permutation(list(texts))[: max(1, min(12, round(4 * scale)))]
        takes = [(f"{actor}_{code}_{name}_XX", emotion, texts[code]) for code in codes for name, emotion in _CREMAD.items()]
        _record(folder / "AudioWAV", _part(takes, scale * 4, generator), speaker, generator)
        rows.append(f"{actor},{int(generator.integers(20, 75))},{'Male' if sex == 'M' else 'Female'},Unknown,Unknown")
    (folder / "VideoDemographics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def make_emodb(
    folder: Path, *, seed: int, scale: float, texts: Mapping[str, str], speakers: Mapping[str, tuple[str, int]]
) -> None:
    """Write wav: ten German speakers (sex and age by name), about 420 files at scale 1."""
    for number, (name, (sex, _)) in enumerate(speakers.items()):
        speaker, generator = _actor("de", sex, seed, number)
        codes = generator.permutation(list(texts))[: max(1, min(10, round(6 * scale)))]
        takes = [(f"{name}{code}{letter}a", emotion, texts[code]) for code in codes for letter, emotion in _EMODB.items()]
        _record(folder / "wav", _part(takes, scale * 6, generator), speaker, generator)


Take = tuple[str, str, str]  # file name, emotion, text


def _actor(language: str, sex: str, seed: int, number: int) -> tuple[Speaker, np.random.Generator]:
    generator = np.random.default_rng([seed, number])
    variant, centre = VARIANTS[sex][number // 2 % len(VARIANTS[sex])], {"F": 60, "M": 36}[sex]
    return Speaker(f"{language}{variant}", sex, centre + 5 * generator.normal(), 190 + 10 * generator.normal()), generator


def _part(takes: list[Take], scale: float, generator: np.random.Generator) -> list[Take]:
    """Return all takes, or below scale 1 a part of them in their order, at least one."""
    count = max(1, round(len(takes) * min(1.0, scale)))
    return [takes[index] for index in sorted(generator.choice(len(takes), count, replace=False))]


def _record(folder: Path, takes: Iterable[Take], speaker: Speaker, generator: np.random.Generator) -> None:
    for name, emotion, text in takes:
        strength = float(np.clip(generator.normal(1.1, 0.3), 0.2, 1.8))
        write_wav(folder / f"{name}.wav", perform(text, speaker, emotion, strength, generator))
