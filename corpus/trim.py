"""SUPERB's effects for speaker verification, without sox: 3 dB less, and silence cut out, for a copy of a corpus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.files import written_aside
from .audio import read_complete

RATE = 16_000
GAIN = -3.0  # dB
THRESHOLD = 1e-3  # of full scale: a sample is loud where the last 20 ms have a higher root mean square
WINDOW, HOLD = RATE // 50, RATE // 10  # samples: these 20 ms; the 0.1 s after which sound, or silence, has begun
_SUFFIXES = {".wav": "WAV", ".flac": "FLAC"}
_AT_ONCE = 4


def without_silence(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the loud stretches of a waveform, one behind the other: sox's `silence 1 0.1 0.1% -1 0.1 0.1%`.

    A stretch begins where 0.1 s are loud, and ends where 0.1 s are not, behind which the window is empty again.
    """
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    last = np.arange(1, len(samples) + 1)
    loud = energy[last] - energy[np.maximum(last - WINDOW, 0)] > WINDOW * THRESHOLD**2
    kept, start = [], 0
    while True:
        begins = _first_run(loud, start)
        if begins is None:
            break
        quiet = _first_run(~loud, begins + HOLD)
        kept.append(samples[begins:quiet])
        if quiet is None:
            break
        start = quiet + HOLD
        first = np.arange(start, min(start + WINDOW, len(samples)))
        loud[first] = energy[first + 1] - energy[start] > WINDOW * THRESHOLD**2
    return np.concatenate(kept) if kept else samples[:0]


def _first_run(marks: NDArray[np.bool_], start: int) -> int | None:
    """Return where the first 0.1 s begin, from a place on, that are all marked."""
    others = np.concatenate([[start - 1], start + np.flatnonzero(~marks[start:]), [len(marks)]])
    long = np.flatnonzero(np.diff(others) > HOLD)
    return int(others[long[0]]) + 1 if len(long) else None


@dataclass(frozen=True)
class Trimmed:
    """What became of a file."""

    path: Path
    seconds: float = 0.0  # before
    left: float = 0.0  # after; of a file that is all silence, what it was
    error: str = ""


def trim_corpus(source: Path, copy: Path) -> Iterator[Trimmed]:
    """Copy a corpus' folder, its audio trimmed to mono of 16 kHz and 16 bits; yield each new file. What is there stays.

    A file that is all silence is copied whole, 3 dB lower.
    """
    source, copy = source.expanduser().resolve(), copy.expanduser().resolve()
    if not source.is_dir():
        raise UserError(f"Expected the folder of a corpus at {source}, found none. Check --data.")
    if copy == source or source in copy.parents or copy in source.parents:
        raise UserError(f"Expected a folder beside {source} for the trimmed copy, found {copy}. Name another one with --out.")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    audio = [path for path in files if path.suffix.lower() in _SUFFIXES]
    if not audio:
        raise UserError(f"Expected audio ({', '.join(_SUFFIXES)}) below {source}, found none. Check --data.")
    for path in (path for path in files if path.suffix.lower() not in _SUFFIXES):
        _copied(path, copy / path.relative_to(source))
    todo = [path for path in audio if not (copy / path.relative_to(source)).is_file()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda path: _trim(path, copy / path.relative_to(source)), todo)


def _copied(path: Path, place: Path) -> None:
    if not place.is_file():
        with written_aside(place) as aside:
            shutil.copyfile(path, aside)


def _trim(path: Path, place: Path) -> Trimmed:
    try:
        samples = read_complete(path, sample_rate=RATE)
    except UserError as problem:
        return Trimmed(path, error=str(problem))
    lower = samples * np.float32(10 ** (GAIN / 20))
    left = without_silence(lower)
    with written_aside(place) as aside:
        written = left if len(left) else lower
        soundfile.write(aside, written, RATE, subtype="PCM_16", format=_SUFFIXES[path.suffix.lower()])
    return Trimmed(path, len(samples) / RATE, len(written) / RATE)
