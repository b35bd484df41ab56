"""A miniature of Audio SNIPS: orders to play music, book a table and tell the weather, with slots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import numpy as np

from .acting import VARIANTS, Speaker, Style, in_silence, over_noise, voiced, write_wav
from .texts.talk import one_of

_PLAN = {"train": 26, "valid": 10, "test": 10}  # orders of each voice at scale 1
_VOICES = {  # name -> whether it is a woman's
    "train": dict.fromkeys(("Ivy", "Joanna", "Kendra", "Kimberly", "Salli"), True)
    | dict.fromkeys(("Joey", "Justin", "Matthew"), False),
    "valid": {"Aditi": True, "Amy": True, "Geraint": False, "Nicole": True},
    "test": {"Brian": False, "Emma": True, "Raveena": True, "Russell": False},
}
_ORDERS = (  # intent, words
    ("PlayMusic", "PLAY {artist}"),
    ("PlayMusic", "PLAY {artist} ON {service}"),
    ("BookRestaurant", "BOOK A TABLE IN {city}"),
    ("BookRestaurant", "BOOK A TABLE FOR {party_size_number} {timeRange}"),
    ("GetWeather", "WEATHER IN {city}"),
    ("GetWeather", "WEATHER {timeRange}"),
)
_VALUES = {
    "artist": ("QUEEN", "ADELE", "THE BEATLES", "MADONNA"),
    "city": ("PARIS", "ROME", "NEW YORK", "BOSTON"),
    "party_size_number": ("TWO", "FIVE", "NINE"),
    "service": ("SPOTIFY", "YOUTUBE"),
    "timeRange": ("TODAY", "TOMORROW", "AT NOON"),
}


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write train, valid and test of sixteen voices, their texts with tags, and the list of slots: 288 orders at scale 1."""
    lines = []
    for split, count in _PLAN.items():
        for place, (name, woman) in enumerate(_VOICES[split].items()):
            generator = np.random.default_rng([seed, [*_PLAN].index(split), place])
            sex = "F" if woman else "M"
            voice = f"en-us{VARIANTS[sex][place % len(VARIANTS[sex])]}"
            speaker = Speaker(voice, sex, {"F": 58, "M": 38}[sex] + 4 * generator.normal(), 165 + 8 * generator.normal())
            for take in range(max(2, round(count * scale))):
                intent, words, tags = order(generator)
                text = " ".join(words)
                wave = over_noise(
                    in_silence(voiced(text.lower(), speaker, Style(), 1.0, generator), generator), (24, 34), generator
                )
                clip = f"{name}-snips-{split}-{take}"
                write_wav(folder / split / f"{clip}.wav", wave)
                lines.append(f"{clip} BOS {text} EOS\tO {' '.join(tags)} {intent}")
    (folder / "all.iob.snips.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "slots.txt").write_text("\n".join(["O", *sorted(_VALUES)]) + "\n", encoding="utf-8")


def order(generator: np.random.Generator) -> tuple[str, list[str], list[str]]:
    """Return the intent of an order, its words and a tag for each."""
    intent, form = _ORDERS[int(generator.integers(len(_ORDERS)))]
    pairs = [*_tagged(form, generator)]
    return intent, [word for word, _ in pairs], [tag for _, tag in pairs]


def _tagged(form: str, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
    for words, slot, _, _ in Formatter().parse(form):
        yield from ((word, "O") for word in words.split())
        if slot:
            yield from ((word, slot) for word in one_of(_VALUES[slot], generator).split())
