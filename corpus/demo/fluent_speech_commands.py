"""A miniature of Fluent Speech Commands: orders in a few wordings, in the official lists."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from .acting import Style, draw_speaker, in_silence, over_noise, voiced, write_wav
from .texts.talk import one_of

_SPEAKERS = {"train": 16, "valid": 5, "test": 8}  # at scale 1
_TAKES = 16  # of each speaker at scale 1
_COLUMNS = ("", "path", "speakerId", "transcription", "action", "object", "location")
# action, object -> wordings; {place} is a location, where there is one
_ORDERS = {
    ("activate", "lights"): ("Turn on the lights{place}", "Switch on the lights{place}", "Lights on{place}"),
    ("deactivate", "lights"): ("Turn off the lights{place}", "Switch off the lights{place}", "Lights off{place}"),
    ("increase", "heat"): ("Turn up the heat{place}", "Make it warmer{place}", "Increase the temperature{place}"),
    ("decrease", "heat"): ("Turn down the heat{place}", "Make it cooler{place}", "Decrease the temperature{place}"),
    ("increase", "volume"): ("Turn up the volume", "Louder please", "It is too quiet"),
    ("bring", "newspaper"): ("Bring me the newspaper", "Get me the newspaper", "Fetch the newspaper"),
}
_PLACES = {"none": "", "kitchen": " in the kitchen", "bedroom": " in the bedroom"}
_ACCENTS = ("en-us", "en-gb-x-rp", "en-gb-scotland")


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write the three lists and their wavs, about 450 at scale 1."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    number = 0
    for split, speakers in _SPEAKERS.items():
        rows: list[tuple[int | str, ...]] = []
        for _ in range(max(2, round(speakers * scale))):
            number += 1
            generator = np.random.default_rng([seed, number])
            speaker, name = (
                draw_speaker(_ACCENTS[number % len(_ACCENTS)], "FM"[number // 2 % 2], generator),
                f"speaker{number:02d}",
            )
            for take in range(max(len(_ORDERS), round(_TAKES * scale))):
                (action, thing), wordings = list(_ORDERS.items())[take % len(_ORDERS)]
                place = one_of(tuple(_PLACES), generator) if "{place}" in wordings[0] else "none"
                text = one_of(wordings, generator).format(place=_PLACES[place])
                path = f"wavs/speakers/{name}/{name}-{take:03d}.wav"
                wave = in_silence(voiced(text, speaker, Style(), 1.0, generator), generator)
                write_wav(folder / path, over_noise(wave, (16, 30), generator))
                rows.append((len(rows), path, name, text, action, thing, place))
        with (folder / "data" / f"{split}_data.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(_COLUMNS)
            table.writerows(rows)
