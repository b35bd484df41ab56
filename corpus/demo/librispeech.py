"""A miniature of LibriSpeech: short orders and numbers in place of books."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from .acting import FILE_RATE, VARIANTS, Speaker, Style, in_silence, over_noise, voiced
from .texts.talk import one_of

_PLAN = {"train-clean-100": (12, 18), "dev-clean": (4, 10), "test-clean": (8, 8)}  # speakers, utterances of each at scale 1
_DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
_ORDERS = (
    "CALL {digit}",
    "PLAY {digit} {digit}",
    "TURN {way}",
    "GO {way}",
    "STOP NOW",
    "{digit} {digit}",
    "{digit} {digit} {digit}",
)
_WAYS = ("LEFT", "RIGHT", "UP", "DOWN")
_LEXICON = "librispeech-lexicon-200k-g2p.txt"
_PRONUNCIATIONS = """\
CALL\tK AO1 L
DOWN\tD AW1 N
EIGHT\tEY1 T
FIVE\tF AY1 V
FOUR\tF AO1 R
GO\tG OW1
LEFT\tL EH1 F T
NINE\tN AY1 N
NOW\tN AW1
ONE\tW AH1 N
PLAY\tP L EY1
RIGHT\tR AY1 T
SEVEN\tS EH1 V AH0 N
SIX\tS IH1 K S
STOP\tS T AA1 P
THREE\tTH R IY1
TURN\tT ER1 N
TWO\tT UW1
UP\tAH1 P
ZERO\tZ IH1 R OW0
ZERO\tZ IY1 R OW0
"""
_FIRST = {"train-clean-100": 100, "dev-clean": 500, "test-clean": 700}  # number of a split's first speaker


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write three splits of 24 speakers, SPEAKERS.TXT and a lexicon; about 320 utterances at scale 1."""
    table = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for split, (speakers, takes) in _PLAN.items():
        for place in range(speakers):
            number = _FIRST[split] + place
            generator, sex = np.random.default_rng([seed, number]), "FM"[place % 2]
            voice = f"en-us{VARIANTS[sex][place // 2 % len(VARIANTS[sex])]}"
            speaker = Speaker(voice, sex, {"F": 58, "M": 38}[sex] + 4 * generator.normal(), 165 + 8 * generator.normal())
            minutes = _read_aloud(folder / split, number, speaker, max(2, round(takes * scale)), generator) / 60
            table.append(f"{number:<5}| {sex} | {split:<17}| {minutes:<6.2f}| {voice}")
    (folder / _LEXICON).write_text(_PRONUNCIATIONS, encoding="utf-8")
    (folder / "SPEAKERS.TXT").write_text("\n".join(table) + "\n", encoding="utf-8")


def _read_aloud(folder: Path, number: int, speaker: Speaker, takes: int, generator: np.random.Generator) -> float:
    """Write one chapter of a speaker, and return its seconds."""
    chapter = folder / str(number) / str(100_000 + number)
    chapter.mkdir(parents=True)
    lines, seconds = [], 0.0
    for take in range(takes):
        name, text = f"{number}-{chapter.name}-{take:04d}", sentence(generator)
        wave = over_noise(in_silence(voiced(text.lower(), speaker, Style(), 1.0, generator), generator), (24, 34), generator)
        soundfile.write(chapter / f"{name}.flac", wave, FILE_RATE, subtype="PCM_16")
        lines.append(f"{name} {text}")
        seconds += len(wave) / FILE_RATE
    (chapter / f"{number}-{chapter.name}.trans.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return seconds


def sentence(generator: np.random.Generator) -> str:
    """Return an order or a number of two or three words."""
    pattern = one_of(_ORDERS, generator)
    words = [word.format(digit=one_of(_DIGITS, generator), way=one_of(_WAYS, generator)) for word in pattern.split()]
    return " ".join(words)
