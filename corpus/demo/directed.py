"""A miniature of device-directed speech: commands close to a device against chatter, distance and television."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .acting import Speaker, Style, draw_speaker, in_silence, over_noise, voiced, write_wav
from .rooms import at_level, banded, distant, music, sloped
from .texts.chatter import chatter, command

_SPEAKERS = {"train": 20, "dev": 9, "test": 12}
_CLIPS = 12  # of each speaker at scale 1
# what is overheard: only words tell near chatter from a command, only sound tells a far or a broadcast command from one
_OVERHEARD = {"near_chatter": 5, "far_command": 2, "tv_command": 2, "far_chatter": 4, "tv_chatter": 4}  # of 17
_DEVICES = {"phone": (0.15, 18.0, 26.0), "speaker": (0.35, 16.0, 26.0), "car": (0.1, 10.0, 18.0)}  # seconds of echo, noise in dB
_ACCENTS = {"en-us": "en-us", "en-gb": "en-gb-x-rp"}
_COLUMNS = ("audio", "text", "label", "speaker", "session", "device", "lang", "split")


@dataclass(frozen=True)
class _Clip:
    name: str
    kind: str
    split: str
    speaker_id: str
    speaker: Speaker
    device: str
    lang: str


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write clips.csv and its clips; about 490 at scale 1."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for number, clip in enumerate(_script(seed, scale)):
            generator = np.random.default_rng([seed, 2, number])
            text = (command if clip.kind.endswith(("command", "directed")) else chatter)(generator)
            write_wav(folder / "clips" / f"{clip.name}.wav", _recorded(text, clip, generator))
            label = int(clip.kind == "directed")
            session = f"{clip.speaker_id}-{clip.device}"
            table.writerow([f"clips/{clip.name}.wav", text, label, clip.speaker_id, session, clip.device, clip.lang, clip.split])


def _script(seed: int, scale: float) -> Iterator[_Clip]:
    """Yield the clips, half of each speaker's to the device; everybody has all devices, and one accent."""
    number, overheard = 0, _overheard(np.random.default_rng([seed, 0]))
    for split, speakers in _SPEAKERS.items():
        for _ in range(speakers):
            number += 1
            generator = np.random.default_rng([seed, 1, number])
            lang, sex = ("en-us", "en-gb")[number // 2 % 2], "FM"[number % 2]
            speaker = draw_speaker(_ACCENTS[lang], sex, generator)
            for take in range(max(2, round(_CLIPS * scale))):
                kind, device = "directed" if take % 2 else next(overheard), [*_DEVICES][generator.integers(3)]
                yield _Clip(f"spk{number:02d}_{take:03d}", kind, split, f"spk{number:02d}", speaker, device, lang)


def _overheard(generator: np.random.Generator) -> Iterator[str]:
    """Yield what is overheard for ever, in even shares."""
    kinds = [kind for kind, count in _OVERHEARD.items() for _ in range(count)]
    while True:
        yield from (kinds[index] for index in generator.permutation(len(kinds)))


def _recorded(text: str, clip: _Clip, generator: np.random.Generator) -> np.ndarray:
    """Return what the device hears: who speaks to it is close, and loud enough; who does not may be as well."""
    echo, quiet, loud = _DEVICES[clip.device]
    # to a device people speak a little louder and more evenly
    style = Style(range=-4, loudness=0.5) if clip.kind == "directed" else Style()
    wave = in_silence(voiced(text, clip.speaker, style, 1.0, generator), generator)
    if clip.kind.startswith("far"):
        wave = distant(sloped(wave, -2.0), generator.normal(-6, 2), echo + generator.uniform(0.3, 0.6), generator)
        wave = at_level(wave, generator.normal(-9, 2.5))
    elif clip.kind.startswith("tv"):
        wave = banded(at_level(wave, 0) + music(len(wave), generator) * 10 ** (-generator.uniform(2, 10) / 20), 250, 4500)
        wave = at_level(distant(wave, generator.normal(3, 3), echo + 0.2, generator), generator.normal(-5, 3))
    else:
        wave = distant(wave, generator.normal(12, 2.5), echo, generator)
        wave = at_level(wave, generator.normal(-1, 2.5))
    return over_noise(wave, (quiet, loud), generator)
