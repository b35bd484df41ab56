"""Device-directed speech at size: from a stranger's csv of 50,000 rows to a result, timed.

    python benchmarks/dsd_size.py WORK [--rows 50000]

The csv has foreign headers, ten other clips to one directed, and 20 files that cannot be read; nothing in it is edited.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
BROKEN = 20
COMMANDS = ("turn on the lights", "play some music", "set a timer", "what is the weather", "stop", "call my mother")
CHATTER = ("did you see the game", "I told her so", "we are late again", "pass me the salt", "that was on the news", "he laughed")
HEADERS = ("clip_no", "wav_path", "is_directed", "hyp", "spk_id", "partition", "locale", "handset")


def clip(directed: bool, generator: np.random.Generator) -> np.ndarray:
    """Return a buzz of one to two seconds: nearer (louder above its noise) where it is directed, mostly."""
    samples = int(RATE * generator.uniform(1.0, 2.0))
    seconds = np.arange(samples) / RATE
    voice = np.sign(np.sin(2 * np.pi * generator.uniform(90, 240) * seconds)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * seconds))
    level = 10 ** ((generator.normal(-22 if directed else -32, 5)) / 20)
    return (level * voice + 0.01 * generator.normal(size=samples)).clip(-1, 1).astype(np.float32)


def make(folder: Path, rows: int) -> Path:
    """Write clips and their csv, once."""
    table = folder / "clips.csv"
    if table.is_file():
        return table
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    lines = []
    for number in range(rows):
        directed = number % 11 == 0
        path = f"wavs/{number // 1000:03d}/{number:06d}.wav"
        place = folder / path
        place.parent.mkdir(exist_ok=True)
        if number % (rows // BROKEN) == 7:
            place.write_bytes(b"RIFF, and nothing more")
        else:
            soundfile.write(place, clip(directed, generator), RATE, subtype="PCM_16")
        words = COMMANDS if directed == (generator.random() < 0.85) else CHATTER
        speaker = int(generator.integers(500))
        split = "train" if speaker < 400 else "validation" if speaker < 450 else "test"
        text = words[generator.integers(len(words))]
        lines.append((number, path, "TRUE" if directed else "FALSE", text, f"s{speaker}", split, "en-GB", f"h{number % 3}"))
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADERS, *lines])
    return table


def main() -> None:
    """Make the clips, run the command, say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    flags = parser.parse_args()
    table = make(flags.work / f"clips-{flags.rows}", flags.rows)
    cache = flags.work / "cache"
    columns = "{audio: wav_path, label: is_directed, text: hyp, speaker: spk_id, split: partition}"
    command = [sys.executable, "-m", "headwater", "downstream", "-u", "fbank_no_cmvn", "--text-upstream", "hashed_words"]
    command += [
        "-d",
        "dsd",
        "--data",
        str(table),
        "-o",
        f"corpus.options.columns={columns}",
        "corpus.skip_broken=true",
        "--by",
        "handset",
    ]
    command += ["-p", str(flags.work / "run"), "-o", "dsd.class_weights=true", "training.steps=3000"]
    print(" ".join(command))
    began = time.monotonic()
    subprocess.run(command, env={**os.environ, "HEADWATER_CACHE": str(cache)}, check=True)
    print(f"{time.monotonic() - began:.0f} s from the csv to the result")
    for name, folder in {"cache": cache, "run": flags.work / "run"}.items():
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{size / 1e6:.0f} MB in the {name}")


if __name__ == "__main__":
    main()
