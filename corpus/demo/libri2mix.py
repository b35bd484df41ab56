"""A miniature of Libri2Mix for diarization: two voices talk at the same time, in Kaldi's folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .acting import FILE_RATE, VARIANTS, Speaker, Style, over_noise, voiced, write_wav
from .librispeech import sentence

_PLAN = {"train": (10, 60), "dev": (4, 16), "test": (8, 16)}  # speakers, mixtures at scale 1
_SECONDS = 5.5
_FIRST = {"train": 100, "dev": 500, "test": 700}  # number of a split's first speaker


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write train, dev and test with wav.scp, segments, utt2spk, reco2dur and rttm; about 90 mixtures at scale 1."""
    for split, (speakers, mixtures) in _PLAN.items():
        voices = {
            _FIRST[split] + place: _voice(place, np.random.default_rng([seed, _FIRST[split] + place]))
            for place in range(speakers)
        }
        files: dict[str, list[str]] = {name: [] for name in ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")}
        for number in range(max(4, round(mixtures * scale))):
            generator = np.random.default_rng([seed, 1, _FIRST[split], number])
            chosen = [[*voices][(number + place * (1 + number // speakers)) % speakers] for place in range(2)]
            if chosen[0] == chosen[1]:
                chosen[1] = [*voices][(number + 1) % speakers]
            name = f"{chosen[0]}_{chosen[1]}_{number:04d}"
            wave = np.zeros(round(_SECONDS * FILE_RATE))
            for speaker in chosen:
                place = round(generator.uniform(0, 1.5) * FILE_RATE)
                while place < len(wave) - FILE_RATE:
                    speech = voiced(sentence(generator).lower(), voices[speaker], Style(), 1.0, generator)[: len(wave) - place]
                    wave[place : place + len(speech)] += speech
                    start, seconds = place / FILE_RATE, len(speech) / FILE_RATE
                    part = f"{speaker}_{name}_{round(100 * start):05d}"
                    files["segments"].append(f"{part} {name} {start:.3f} {start + seconds:.3f}")
                    files["utt2spk"].append(f"{part} {speaker}")
                    files["rttm"].append(f"SPEAKER {name} 1 {start:.3f} {seconds:.3f} <NA> <NA> {speaker} <NA> <NA>")
                    place += len(speech) + round(generator.uniform(0.4, 2.5) * FILE_RATE)
            write_wav(folder / split / "wav" / f"{name}.wav", over_noise(wave, (24, 34), generator))
            files["wav.scp"].append(f"{name} wav/{name}.wav")
            files["reco2dur"].append(f"{name} {_SECONDS:.2f}")
        for kind, lines in files.items():
            (folder / split / kind).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _voice(place: int, generator: np.random.Generator) -> Speaker:
    """Return a voice that is not the one before it: high and low in turns."""
    sex = "FM"[place % 2]
    voice = f"en-us{VARIANTS[sex][place // 2 % len(VARIANTS[sex])]}"
    return Speaker(voice, sex, {"F": 60, "M": 34}[sex] + 6 * generator.normal(), 165 + 12 * generator.normal())
