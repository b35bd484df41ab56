"""Audio files: read, cut, mixed down, resampled; and each one checked before anything is trained on it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ..core.errors import UserError
from ..core.file_cache import FileKey, FileMemory, file_key
from ..core.files import cache_folder
from .base import Utterance

_BLOCK = 1 << 18  # samples decoded at once while checking
_STREAMED = 0x7FFFF000  # a WAV written to a pipe promises this much or more (or 0) because its length was not known
_SYSTEM_ERROR = 2  # libsndfile's SF_ERR_SYSTEM: the disk's fault, not the file's
_ROUNDING = 0.05  # seconds by which a stretch may outlast its file: tables round


def read_audio(path: str | Path, start: float = 0.0, duration: float | None = None, sample_rate: int = 16000) -> np.ndarray:
    """Return a stretch of a file as float32 mono at a sample rate; nothing beside the stretch is decoded."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:  # as bytes: a name may be no UTF-8
            file.seek(min(round(start * file.samplerate), file.frames))
            count = -1 if duration is None else round(duration * file.samplerate)
            samples, rate = file.read(count, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise UserError(f"Expected readable audio, found {_reason(Path(path), error)}: {path}. {_NEXT_MOVE}") from error
    if not len(samples):
        raise UserError(f"Expected samples from {start:g} s on, found none: {path}. {_NEXT_MOVE}")
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate).astype(np.float32, copy=False)


_NEXT_MOVE = "Replace the file, or leave it out."


@dataclass(frozen=True)
class Broken:
    """An utterance that cannot be heard, and why."""

    id: str
    audio: str
    reason: str

    def __str__(self) -> str:
        return f"{self.audio}: {self.reason}"


@dataclass(frozen=True)
class _Verdict:
    seconds: float
    reason: str | None  # None: sound


def check_files(utterances: Sequence[Utterance], cache: Path | None = None) -> tuple[dict[str, float], list[Broken]]:
    """Return seconds by utterance id, and the utterances whose audio is missing, unreadable, empty or cut short.

    Each distinct file is decoded once, and its verdict remembered by (path, size, mtime in ns).
    """
    verdicts = _verdicts(sorted({utterance.audio for utterance in utterances}), cache or cache_folder())
    seconds: dict[str, float] = {}
    broken: list[Broken] = []
    for utterance in utterances:
        verdict = verdicts[utterance.audio]
        reason = verdict.reason or _outside(utterance, verdict.seconds)
        if reason is not None:
            broken.append(Broken(utterance.id, utterance.audio, reason))
        else:
            left = verdict.seconds - utterance.start
            seconds[utterance.id] = left if utterance.duration is None else min(utterance.duration, left)
    return seconds, broken


def _outside(utterance: Utterance, seconds: float) -> str | None:
    if utterance.start < 0 or utterance.start >= seconds:
        return f"start {utterance.start:g} s lies outside the file ({seconds:.2f} s)"
    if utterance.duration is not None and utterance.duration <= 0:
        return f"the stretch from {utterance.start:g} s has no length"
    if utterance.duration is not None and utterance.start + utterance.duration > seconds + _ROUNDING:
        return f"end {utterance.start + utterance.duration:g} s lies outside the file ({seconds:.2f} s)"
    return None


def _verdicts(paths: Sequence[str], cache: Path) -> dict[str, _Verdict]:
    found: dict[str, _Verdict] = {}
    keys: dict[str, FileKey] = {}
    for path in paths:
        try:
            keys[path] = file_key(path)
        except OSError as error:
            found[path] = _Verdict(0.0, _reason(Path(path), error))
    with checked_audio(cache) as memory:
        remembered = memory.recall(keys.values())
        found.update({path: _Verdict(*remembered[key]) for path, key in keys.items() if key in remembered})
        fresh = [path for path in keys if path not in found]
        # what is checked is kept as it comes: a run that is killed here does not start over
        for path, verdict, lasting in _decode_all(fresh):
            found[path] = verdict
            if lasting:
                memory.keep(keys[path], [verdict.seconds, verdict.reason])
    return found


def checked_audio(cache: Path) -> FileMemory:
    """Return the memory of files that were checked: path, size and time of change -> [seconds, what is wrong]."""
    # raise the number when a check is added
    return FileMemory(cache / "checked-audio-2.sqlite", "Checked audio is not remembered, so the next run checks it again")


def _decode_all(paths: Sequence[str]) -> Iterator[tuple[str, _Verdict, bool]]:
    if not paths:
        return
    from tqdm import tqdm

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        results = zip(paths, pool.map(_decode, paths), strict=True)
        for path, (verdict, lasting) in tqdm(results, total=len(paths), desc="checking audio", unit="file", disable=None):
            yield path, verdict, lasting


def _decode(name: str) -> tuple[_Verdict, bool]:
    """Return the verdict on a file, and whether it will be the same tomorrow."""
    path = Path(name)
    try:
        if not path.stat().st_size:
            return _Verdict(0.0, "an empty file (0 bytes)"), True
        cut = _missing_wav_bytes(path)
        with soundfile.SoundFile(os.fsencode(path)) as file:
            rate, decoded, finite = file.samplerate, 0, True
            for block in file.blocks(_BLOCK, dtype="float32", always_2d=True):
                decoded += len(block)
                finite = finite and bool(np.isfinite(block).all())
    except soundfile.LibsndfileError as error:
        return _Verdict(0.0, _reason(path, error)), error.code != _SYSTEM_ERROR
    except (OSError, RuntimeError) as error:
        return _Verdict(0.0, _reason(path, error)), False
    if cut:
        return _Verdict(decoded / rate, f"cut short: the header promises {cut} bytes more than the file holds"), True
    if not decoded:
        return _Verdict(0.0, "no samples in it"), True
    return _Verdict(decoded / rate, None if finite else "samples that are no numbers (NaN or infinite)"), True


def _missing_wav_bytes(path: Path) -> int:
    """Return how many bytes a RIFF file's data chunk promises beyond the file's end (libsndfile passes over that)."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        size = path.stat().st_size
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return 0 if length == 0 or length >= _STREAMED else max(0, file.tell() + length - size)
            file.seek(length + length % 2, os.SEEK_CUR)  # chunks begin at even positions
    return 0


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder"
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return "no permission to read it"
    if not path.stat().st_size:
        return "an empty file (0 bytes)"
    words = getattr(error, "error_string", None) or str(error)
    return f"audio that cannot be decoded ({words.strip().rstrip('.')})"
