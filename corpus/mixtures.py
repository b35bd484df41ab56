"""Conversations made of single utterances: who speaks when is known then, since it was drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..core.errors import UserError
from ..core.files import folder_aside, plain_disk_errors, write_json, write_text
from .audio import read_audio
from .base import Corpus, Utterance
from .rttm import Turn, rttm_lines

RATE = 16_000
OTHERS = 0.2  # of the hours of training, for dev and test each
_FRAME = 160  # samples by which speech is found in an utterance
_QUIET = -35.0  # dB below an utterance's loudest frame: silence at its ends
_LOUDNESS = (-33.0, -25.0)  # dB of full scale, as LibriMix draws for each speaker


@dataclass(frozen=True)
class Mixing:
    """How conversations are made."""

    hours: float = 1.0  # of the training split; dev and test have OTHERS of it each
    seconds: float = 20.0  # of a conversation
    speakers: int = 2
    pause: float = 1.0  # mean seconds between what one speaker says, exponential
    seed: int = 0


def mix(corpus: Corpus, to: Path, mixing: Mixing) -> dict[str, int]:
    """Write a folder of conversations for each split of a corpus with speakers, and return how many there are in each."""
    refuse_settings(mixing)
    by_split = {split: speakers_of(rows) for split, rows in corpus.splits.items()}
    for split, found in by_split.items():
        if len(found) < mixing.speakers:
            raise UserError(
                f"Expected at least {mixing.speakers} speakers in split '{split}' of {corpus.name}, found {len(found)}. "
                "Name the column of speakers (-o corpus.options.columns.speaker=HEADER), or choose fewer with --speakers."
            )
    facts: dict[str, Any] = {"corpus": corpus.name, "protocol": corpus.protocol, "fold": corpus.fold, **asdict(mixing)}
    with folder_aside(to, fills_empty=True) as aside, plain_disk_errors(to):
        counts = {
            split: write_split(aside / split, split, place, voices, mixing)
            for place, (split, voices) in enumerate(by_split.items())
        }
        write_json(aside / "mixing.json", facts)
    return counts


def write_split(folder: Path, split: str, place: int, voices: Mapping[str, Sequence[Utterance]], mixing: Mixing) -> int:
    """Write the conversations of a split with their RTTM file, and return how many there are."""
    folder.mkdir(parents=True)
    count = max(1, round(mixing.hours * (1.0 if split == "train" else OTHERS) * 3600 / mixing.seconds))
    lines: list[str] = []
    for number in range(count):
        generator = np.random.default_rng([mixing.seed, place, number])
        chosen = [sorted(voices)[index] for index in generator.permutation(len(voices))[: mixing.speakers]]
        wave, turns = converse({name: voices[name] for name in chosen}, mixing, generator)
        name = f"{split}{number:05d}"
        soundfile.write(folder / f"{name}.wav", wave, RATE, subtype="PCM_16")
        lines += rttm_lines(name, turns)
    write_text(folder / "turns.rttm", "\n".join(lines) + "\n")
    return count


def refuse_settings(mixing: Mixing) -> None:
    """Refuse settings of which nothing can be made."""
    for name, value, least in (
        ("hours", mixing.hours, 0.001),
        ("seconds", mixing.seconds, 2.0),
        ("speakers", mixing.speakers, 1),
    ):
        if not least <= value < math.inf:
            raise UserError(f"Expected at least {least:g} after --{name}, found {value:g}. Choose more.")
    if not 0 <= mixing.pause < math.inf:
        raise UserError(f"Expected seconds after --pause, found {mixing.pause:g}. Choose 0 or more.")
    if mixing.seed < 0:
        raise UserError(f"Expected a seed of 0 or more after --seed, found {mixing.seed}. Choose another.")


def speakers_of(rows: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    """Return the utterances of each speaker."""
    found: dict[str, list[Utterance]] = {}
    for row in rows:
        if row.speaker:
            found.setdefault(row.speaker, []).append(row)
    return found


def converse(
    voices: Mapping[str, Sequence[Utterance]], mixing: Mixing, generator: np.random.Generator
) -> tuple[np.ndarray, list[Turn]]:
    """Return a conversation and its turns: everybody talks with pauses of his own, so that turns overlap."""
    size = round(mixing.seconds * RATE)
    total, turns = np.zeros(size), list[Turn]()
    for name, rows in voices.items():
        level = 10 ** (generator.uniform(*_LOUDNESS) / 20)
        place = round(generator.exponential(mixing.pause) * RATE)
        while place < size - RATE // 4:
            row = rows[int(generator.integers(len(rows)))]
            speech = trimmed(read_audio(row.audio, row.start, row.duration, RATE).astype(np.float64))
            if not len(speech):
                break
            speech = speech[: size - place] * level / max(float(np.sqrt(np.mean(speech**2))), 1e-9)
            total[place : place + len(speech)] += speech
            turns.append((name, place / RATE, (place + len(speech)) / RATE))
            place += len(speech) + round(generator.exponential(mixing.pause) * RATE)
    loudest = float(np.abs(total).max())
    return (total * min(1.0, 0.95 / max(loudest, 1e-9))).astype(np.float32), sorted(turns, key=lambda turn: turn[1:])


def trimmed(wave: np.ndarray) -> np.ndarray:
    """Return an utterance without the silence at its ends; nothing where it is all silence."""
    count = len(wave) // _FRAME
    if not count:
        return wave[:0]
    power = np.square(wave[: count * _FRAME]).reshape(count, _FRAME).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (_QUIET / 10)) if power.max() > 0 else np.zeros(0, int)
    return wave[loud[0] * _FRAME : (loud[-1] + 1) * _FRAME] if len(loud) else wave[:0]
