"""The unlabelled speech that hubert_mini learns from: real clips of free licences, synthetic ones, and altered copies of both.

One seed gives the same bytes. What the project's evaluations test on is left out wherever a set has a test split of its own;
sets that are tested in folds (EmoDB, learners' ratings, orders) are tested in part on clips that were here without labels.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from real_speech import learners, readers
from scipy.signal import butter, fftconvolve, sosfilt

from headwater.corpus.demo.acting import STYLES, Speaker, voiced

Wave = NDArray[np.float32]
RATE = 16000
SHORTEST, LONGEST = 1.0, 8.0  # seconds of a clip
COPIES = 4  # altered ones of a real clip; synthetic ones vary enough
SYNTHETIC_HOURS = 1.75
HELD_OUT = 0.03  # of the recordings, for dev: unaltered
EMODB_SPEAKERS = ("03", "08", "09", "10", "11", "12")
ENGLISH = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us-nyc")


@dataclass(frozen=True)
class Recording:
    """A recording of somebody, or a sentence that espeak-ng speaks."""

    source: str
    licence: str
    speaker: str
    path: Path | None = None
    text: str = ""  # that espeak-ng speaks
    voice: str = ""


def make_data(data: Path, work: Path, seed: int) -> Path:
    """Write the clips and their manifest under `work`, print hours by source, and return the manifest."""
    rows: list[dict[str, str]] = []
    recordings = [*real(data), *synthetic(data, seed)]
    held = set(np.random.default_rng([seed, 0]).permutation(len(recordings))[: round(HELD_OUT * len(recordings))].tolist())
    others: list[Wave] = []  # the last clips, for babble
    for number, recording in enumerate(recordings):
        split = "dev" if number in held else "train"
        for part, clip in enumerate(cut(load(recording, seed, number))):
            versions = {"": clip}
            for copy in range(COPIES if split == "train" and recording.path is not None else 0):
                versions[f"-{copy + 1}"] = altered(clip, others, np.random.default_rng([seed, 1, number, part, copy]))
            for suffix, wave in versions.items():
                name = f"{recording.source}/{number:05d}-{part}{suffix}.wav"
                (work / recording.source).mkdir(parents=True, exist_ok=True)
                soundfile.write(work / name, np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16), RATE, subtype="PCM_16")
                row = {"audio": name, "split": split, "speaker": recording.speaker, "source": recording.source}
                row |= {"licence": recording.licence, "altered": "yes" if suffix else "no"}
                rows.append({**row, "seconds": f"{len(wave) / RATE:.3f}"})
            others = [*others[-20:], clip]
    table = work / "mini.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(hours(rows))
    return table


def hours(rows: Iterable[dict[str, str]]) -> str:
    """Return a table of clips and hours by source and licence."""
    clips, seconds = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row in rows:
        for source, licence in ((row["source"], row["licence"]), ("all", "")):
            kind = "dev" if row["split"] == "dev" else "altered" if row["altered"] == "yes" else "as it is"
            clips[source, licence] += 1
            seconds[source, licence, kind] += float(row["seconds"])
    kinds = ("as it is", "altered", "dev")
    lines = [f"| source | licence | clips | {' | '.join(kinds)} |", "|---|---|---|---|---|---|"]
    for source, licence in sorted(clips, key=lambda key: key[0] == "all"):
        times = " | ".join(f"{seconds[source, licence, kind] / 3600:.2f} h" for kind in kinds)
        lines.append(f"| {source} | {licence} | {clips[source, licence]} | {times} |")
    return "\n".join(lines)


def real(data: Path) -> Iterator[Recording]:
    """Yield the recordings of people that nothing of ours is tested on by a split of its own."""
    for row in readers(data / "LibriSpeech" / "train-clean-100"):
        if row["split"] != "test":
            yield Recording("LibriSpeech", "CC BY 4.0", f"libri-{row['speaker']}", Path(row["audio"]))
    for number in range(7):
        yield Recording("AMI", "CC BY 4.0", f"ami-{number}", data / "diarization" / "ami" / f"trn{number:02d}.wav")
    for row in learners(data / "speechocean762"):
        if row["split"] != "test":
            yield Recording("speechocean762", "OpenSLR 101, free", row["speaker"], Path(row["audio"]))
    for path in sorted((data / "emodb" / "wav").glob("*.wav")):
        if path.name[:2] in EMODB_SPEAKERS:
            yield Recording("EmoDB", "CC0-1.0 (the copy of 2 s clips)", f"emodb-{path.name[:2]}", path)
    for path in sorted((data / "barista" / "speech").glob("*.wav")):
        yield Recording("barista", "Apache-2.0", "", path)


def synthetic(data: Path, seed: int) -> Iterator[Recording]:
    """Yield sentences for espeak-ng until their hours are full: half of them read, the rest words, digits and other languages."""
    texts = json.loads((Path(__file__).parent / "hubert_mini_texts.json").read_text(encoding="utf-8"))
    generator = np.random.default_rng([seed, 2])
    read = [row["text"].lower() for row in readers(data / "LibriSpeech" / "train-clean-100") if row["split"] != "test"]
    seconds = 0.0
    while seconds < SYNTHETIC_HOURS * 3600:
        language, kind = str(generator.choice(ENGLISH)), generator.random()
        if kind < 0.45:
            words = str(generator.choice(read)).split()
            start, length = int(generator.integers(max(1, len(words) - 5))), int(generator.integers(5, 18))
            text = " ".join(words[start : start + length])
        elif kind < 0.6:
            text = some(texts["commands"], generator, 4)
        elif kind < 0.75:
            text = some(texts["digits"], generator, 8)
        elif kind < 0.8:
            text = some(texts["names"], generator, 4)
        else:
            language = str(generator.choice(list(texts["sentences"])))
            numbers = str(generator.integers(1, 10 ** int(generator.integers(1, 7))))
            text = numbers if generator.random() < 0.15 else str(generator.choice(texts["sentences"][language]))
        voice = f"{language}+{generator.choice(texts['variants'])}"
        seconds += 0.4 + 0.062 * len(text)  # about what it takes to say it
        yield Recording("espeak-ng", "ours to give (texts: LibriSpeech's, CC BY 4.0, and our own)", voice, text=text, voice=voice)


def some(words: Sequence[str], generator: np.random.Generator, most: int) -> str:
    """Return one to `most` of the words, with a pause between them."""
    return ", ".join(generator.choice(words, int(generator.integers(1, most + 1))))


@cache
def styles() -> tuple[str, ...]:
    """Return the ways of speaking, plain speech three times as often."""
    return ("neutral", "neutral", *STYLES)


def load(recording: Recording, seed: int, number: int) -> Wave:
    """Return the recording at 16 kHz in -1..1."""
    if recording.path is not None:
        wave, rate = soundfile.read(recording.path, dtype="float32", always_2d=True)
        return np.asarray(soxr.resample(wave.mean(1), rate, RATE), dtype=np.float32)
    generator = np.random.default_rng([seed, 3, number])
    speaker = Speaker(recording.voice, "F", float(generator.uniform(15, 85)), float(generator.uniform(120, 250)))
    style = STYLES[str(generator.choice(styles()))]
    wave = voiced(recording.text, speaker, style, float(generator.uniform(0.2, 1.4)), generator).astype(np.float32)
    short = max(0, round((SHORTEST + 0.05) * RATE) - len(wave))  # a single word gets silence around it
    before = int(generator.integers(short + 1))
    return np.pad(wave, (before, short - before)) + generator.normal(0, 1e-4, len(wave) + short).astype(np.float32)


def cut(wave: Wave) -> list[Wave]:
    """Return clips of at most `LONGEST` seconds, cut where 50 ms are quietest; what is left over is at least `SHORTEST` long."""
    clips = []
    while len(wave) > LONGEST * RATE:
        first, last = round(4.0 * RATE), min(round(LONGEST * RATE), len(wave) - round(SHORTEST * RATE))
        window = RATE // 20
        energy = np.convolve(wave[first:last].astype(np.float64) ** 2, np.ones(window), "valid")
        place = first + int(np.argmin(energy)) + window // 2
        clips.append(wave[:place])
        wave = wave[place:]
    return [*clips, wave] if len(wave) >= SHORTEST * RATE else clips


def altered(clip: Wave, others: list[Wave], generator: np.random.Generator) -> Wave:
    """Return the clip faster or slower, in a room, over noise, through a telephone, louder or softer: each of them sometimes."""
    wave = clip
    if generator.random() < 0.8:
        lowest, highest = max(0.85, len(clip) / RATE / LONGEST), min(1.18, len(clip) / RATE / SHORTEST)
        wave = np.asarray(soxr.resample(wave, RATE * generator.uniform(lowest, highest), RATE), dtype=np.float32)
    if generator.random() < 0.3:
        wave = in_room(wave, generator)
    if generator.random() < 0.5:
        wave = over_noise(wave, others, generator)
    if generator.random() < 0.15:
        narrow = soxr.resample(soxr.resample(wave, RATE, RATE // 2), RATE // 2, RATE)[: len(wave)]
        wave = sosfilt(butter(2, 300 / (RATE / 2), "highpass", output="sos"), narrow).astype(np.float32)
    wave = wave * np.float32(10 ** (generator.uniform(-12, 6) / 20))
    return wave / max(1.0, float(np.abs(wave).max()) / 0.98)


def in_room(wave: Wave, generator: np.random.Generator) -> Wave:
    """Return the clip with an exponentially dying echo of 0.15 to 0.6 s behind it."""
    length = generator.uniform(0.15, 0.6)
    times = np.arange(round(length * RATE)) / RATE
    echo = generator.normal(size=len(times)) * np.exp(-6.9 * times / length)
    echo *= 10 ** (generator.uniform(-12, 0) / 20) / np.sqrt((echo**2).sum())
    echo[0] += 1.0
    return fftconvolve(wave, echo)[: len(wave)].astype(np.float32)


def over_noise(wave: Wave, others: list[Wave], generator: np.random.Generator) -> Wave:
    """Return the clip over white or pink noise or three to five other clips, 5 to 25 dB below it."""
    kind = int(generator.integers(3))
    if kind == 2 and len(others) > 5:
        chosen = generator.choice(len(others), int(generator.integers(3, 6)), replace=False)
        noise = np.sum([np.resize(others[index], len(wave)) for index in chosen], axis=0)
    else:
        spectrum = np.fft.rfft(generator.normal(size=len(wave)))
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1.0) if kind else spectrum, len(wave))
    level = np.sqrt(np.mean(wave**2) / max(float(np.mean(noise**2)), 1e-12)) * 10 ** (-generator.uniform(5, 25) / 20)
    return (wave + level * noise).astype(np.float32)
