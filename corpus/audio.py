"""Audio files: read, cut, mixed down, resampled; and each one checked before anything is trained on it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
import soxr

from ..core.errors import UserError
from ..core.file_cache import FileKey, FileMemory, file_key
from ..core.files import cache_folder, obstacle
from .base import Utterance
from .truncation import missing_end

LONGEST_HOURS = 4.0  # of audio read at once: 0.9 GB of float32 at 16 kHz
_AT_ONCE = 1 << 26  # values decoded at once: a file below this is decoded in one piece
_BLOCK = 1 << 18  # values decoded at once while checking
_UNKNOWN = 1 << 62  # frames: libsndfile's word for a length that no header gives
_FASTEST = 10_000_000  # Hz: the filter from a higher sample rate takes minutes to build
_SYSTEM_ERROR = 2  # libsndfile's SF_ERR_SYSTEM: the disk's fault, not the file's
_ROUNDING = 0.05  # seconds by which a stretch may outlast its file: tables round
_NEXT_MOVE = "Replace the file, or leave it out."
_NO_NUMBERS = "samples that are no numbers (NaN or infinite)"
_NOTHING = np.empty(0, np.float32)


def read_audio(
    path: str | Path, start: float = 0.0, duration: float | None = None, sample_rate: int = 16000, data: bytes | None = None
) -> np.ndarray:
    """Return a stretch of a file as float32 mono at a sample rate; nothing beside the stretch is kept.

    `data` are the file's bytes, where it lies in a tar: the path is a name then.
    """
    if not math.isfinite(start) or not math.isfinite(duration or 0.0):
        raise UserError(f"Expected seconds that are finite numbers, found NaN or infinity: {path}. Mend its row of the list.")
    samples, problem = _NOTHING, _obstacle(path, data)
    if problem is None:
        try:
            samples = _read_mono(path, start, duration, sample_rate, data)
            problem = None if np.isfinite(samples).all() else _NO_NUMBERS
        except UserError:
            raise
        except (OSError, RuntimeError, ValueError, MemoryError) as error:  # LibsndfileError is a RuntimeError
            problem = _reason(path, error, data is not None)
    if problem is not None:
        raise UserError(f"Expected readable audio, found {problem}: {path}. {_NEXT_MOVE}")
    if not len(samples):
        raise UserError(f"Expected samples from {start:g} s on, found none: {path}. {_NEXT_MOVE}")
    return samples


def read_complete(
    path: str | Path, start: float = 0.0, duration: float | None = None, sample_rate: int = 16000, data: bytes | None = None
) -> np.ndarray:
    """Return a stretch as `read_audio` does, of a file that is not cut short and that holds all of the stretch."""
    refuse_cut(path, data)
    samples = read_audio(path, start, duration, sample_rate, data)
    seconds = start + len(samples) / sample_rate
    if duration is not None and start + duration > seconds + _ROUNDING:
        raise UserError(
            f"Expected a stretch of the file, found that its end, {start + duration:g} s, lies outside "
            f"({seconds:.2f} s): {path}. Mend its row of the list."
        )
    return samples


def refuse_cut(path: str | Path, data: bytes | None = None) -> None:
    """Refuse a file that is cut short."""
    cut = None if _obstacle(path, data) else missing_end(Path(path), data)
    if cut:
        raise UserError(f"Expected readable audio, found a file {cut}: {path}. {_NEXT_MOVE}")


def header_seconds(path: str | Path, file: IO[bytes] | None = None) -> float:
    """Return how long a file is by its header, or by its samples where the header does not know."""
    problem = obstacle(path) if file is None else None
    if problem is None:
        try:
            with soundfile.SoundFile(os.fsencode(path) if file is None else file) as sound:
                if sound.frames < _UNKNOWN:
                    return sound.frames / sound.samplerate
                decoded = 0
                while len(block := sound.read(max(1, _BLOCK // sound.channels), dtype="float32", always_2d=True)):
                    decoded += len(block)
                return decoded / sound.samplerate
        except (OSError, RuntimeError, ValueError) as error:
            problem = _reason(path, error, file is not None)
    raise UserError(f"Expected readable audio, found {problem}: {path}. {_NEXT_MOVE}")


def _obstacle(path: str | Path, data: bytes | None) -> str | None:
    return obstacle(path) if data is None else None if data else "an empty file (0 bytes)"


def _read_mono(path: str | Path, start: float, duration: float | None, sample_rate: int, data: bytes | None) -> np.ndarray:
    """Decode, average and resample piece by piece, so that memory is bounded by what is returned."""
    # as bytes: a name may be no UTF-8
    with soundfile.SoundFile(os.fsencode(path) if data is None else io.BytesIO(data)) as file:
        pieces = _pieces(file, path, start, duration)
        mono = (piece[:, 0] if piece.shape[1] == 1 else piece.mean(axis=1, dtype=np.float32) for piece in pieces)
        return _resampled(mono, file.samplerate, sample_rate, path)


def resample_array(samples: np.ndarray, rate: float, sample_rate: int) -> np.ndarray:
    """Return float32 samples (sample) at another rate, as a file's are."""
    try:
        return _resampled([samples], rate, sample_rate, "the array")
    except RuntimeError as problem:
        raise UserError(f"Expected a sampling rate in Hz, found {problem}. For instance: sampling_rate=16000") from None


def _resampled(pieces: Iterable[np.ndarray], rate: float, sample_rate: int, path: str | Path) -> np.ndarray:
    """Return the pieces of one channel as one waveform at a sample rate."""
    parts: list[np.ndarray] = []
    decoded = 0
    if rate > _FASTEST:
        raise RuntimeError(f"a sample rate of {rate:.0f} Hz")
    stream = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
    for piece in pieces:
        decoded += len(piece)
        _refuse_long(path, decoded / rate)
        parts.append(piece if stream is None else stream.resample_chunk(piece))
    return _joined(parts if stream is None or not parts else [*parts, stream.resample_chunk(_NOTHING, last=True)])


def _pieces(file: soundfile.SoundFile, path: str | Path, start: float, duration: float | None) -> Iterator[np.ndarray]:
    """Yield a stretch's samples (sample, channel), at most so many at once."""
    rate, frames, most = file.samplerate, file.frames, max(1, _AT_ONCE // file.channels)
    first = round(min(start * rate, frames))
    left = frames - first if duration is None else round(min(duration * rate, frames - first))
    if left < _UNKNOWN:
        _refuse_long(path, left / rate)
    if file.seekable():
        file.seek(first)
    else:  # GSM 6.10
        while first > 0 and (passed := len(file.read(min(first, most), dtype="float32", always_2d=True))):
            first -= passed
    while left > 0 and len(piece := file.read(min(left, most), dtype="float32", always_2d=True)):
        left -= len(piece)
        yield piece


def _refuse_long(path: str | Path, seconds: float) -> None:
    if seconds > LONGEST_HOURS * 3600:
        raise UserError(
            f"Expected at most {LONGEST_HOURS:g} h of audio to be read at once, found {seconds / 3600:.1f} h: {path}. "
            "Cut the file, or name stretches of it in a list (columns start and end)."
        )


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return the parts as one; each is freed once it is copied."""
    if len(parts) == 1:
        return parts[0]
    samples, place = np.empty(sum(map(len, parts)), np.float32), 0
    for index, part in enumerate(parts):
        samples[place : place + len(part)] = part
        place += len(part)
        parts[index] = _NOTHING
    return samples


@dataclass(frozen=True)
class Broken:
    """An utterance that cannot be read, and why."""

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
    if not 0 <= utterance.start < seconds:  # nor NaN
        return f"start {utterance.start:g} s lies outside the file ({seconds:.2f} s)"
    if utterance.duration is not None and not utterance.duration > 0:
        return f"the stretch from {utterance.start:g} s has no length"
    if utterance.duration is not None and utterance.start + utterance.duration > seconds + _ROUNDING:
        return f"end {utterance.start + utterance.duration:g} s lies outside the file ({seconds:.2f} s)"
    length = seconds - utterance.start if utterance.duration is None else utterance.duration
    if length > LONGEST_HOURS * 3600:
        return f"{length / 3600:.1f} h of audio, more than the {LONGEST_HOURS:g} h that are read at once"
    return None


def _verdicts(paths: Sequence[str], cache: Path) -> dict[str, _Verdict]:
    found: dict[str, _Verdict] = {}
    keys: dict[str, FileKey] = {}
    for path in paths:
        try:
            keys[path] = file_key(path)
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            found[path] = _Verdict(0.0, _reason(path, error))
    with checked_audio(cache) as memory:
        cached = memory.recall(keys.values())
        found.update({path: _Verdict(*cached[key]) for path, key in keys.items() if key in cached})
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
    return FileMemory(cache / "checked-audio-3.sqlite", "Checked audio is not remembered, so the next run checks it again")


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
    found = obstacle(name)
    if found is not None:
        return _Verdict(0.0, found), False
    try:
        cut = missing_end(Path(name))
        with soundfile.SoundFile(os.fsencode(name)) as file:
            rate, decoded, finite = file.samplerate, 0, True
            most = max(1, _BLOCK // file.channels)
            while len(block := file.read(most, dtype="float32", always_2d=True)):
                decoded += len(block)
                finite = finite and bool(np.isfinite(block).all())
    except soundfile.LibsndfileError as error:
        return _Verdict(0.0, _reason(name, error)), error.code != _SYSTEM_ERROR
    except Exception as error:  # whatever a decoder raises is reported for this file: the others' verdicts are not lost
        return _Verdict(0.0, _reason(name, error)), False
    if cut:
        return _Verdict(decoded / rate, cut), True
    if not decoded:
        return _Verdict(0.0, "no samples in it"), True
    return _Verdict(decoded / rate, None if finite else _NO_NUMBERS), True


def _reason(path: str | Path, error: Exception, in_tar: bool = False) -> str:
    if isinstance(error, MemoryError):
        return "audio that takes more memory than there is"
    message = getattr(error, "error_string", None) or str(error)
    return (None if in_tar else obstacle(path)) or f"audio that cannot be decoded ({message.strip().rstrip('.')})"
