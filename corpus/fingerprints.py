"""Fingerprints of utterances: the bytes of the file, and the stretch of it that is used."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..core.errors import UserError
from ..core.file_cache import FileKey, FileMemory, file_key
from ..core.files import _unreadable, cache_folder, hash_file
from .base import Utterance


def hashes(root: Path) -> FileMemory:
    """Return the memory of files' hashes."""
    return FileMemory(root / "hashes-1.sqlite", "Audio files are hashed again in every run")


def hashes_folder() -> Path:
    """Return where hashes are remembered without a run: the store remembers those of the same files there."""
    return cache_folder() / "store"


def row_keys(utterances: Iterable[Utterance], root: Path, sample_rate: int) -> dict[str, str]:
    """Return the row key of each utterance by id.

    Hashes of files are remembered, so that a second run opens none.
    """
    utterances = list(utterances)
    by_path = file_hashes({utterance.audio for utterance in utterances}, root)
    return {utterance.id: row_key(by_path[utterance.audio], utterance, sample_rate) for utterance in utterances}


def file_hashes(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Return the hash of each file by its path; what is remembered below `root` is not read."""
    try:
        files: dict[str, FileKey] = {path: file_key(path) for path in paths}
    except OSError as error:
        raise _unreadable(str(error.filename), error) from error
    with hashes(root) as memory:
        known: dict[FileKey, str] = memory.recall(files.values())
        fresh = [path for path, key in files.items() if key not in known]
        for path, digest in zip(fresh, hashed(fresh), strict=True):
            known[files[path]] = digest
            memory.keep(files[path], digest)
    return {path: known[key] for path, key in files.items()}


def text_keys(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Return the row key of each utterance's text by id: the same words have one row."""
    return {row.id: hashlib.sha256(f"text {row.text}".encode()).hexdigest()[:32] for row in utterances}


def row_key(file_hash: str, utterance: Utterance, sample_rate: int) -> str:
    """Return the key of a stretch of a file, exact to the nanosecond: a file may have any sample rate."""
    if not math.isfinite(utterance.start) or not math.isfinite(utterance.duration or 0.0):
        raise UserError(f"Expected seconds that are finite numbers, found NaN or infinity: {utterance.audio}. Mend its row.")
    first = round(utterance.start * 1e9)
    length = -1 if utterance.duration is None else round(utterance.duration * 1e9)
    return hashlib.sha256(f"{file_hash} {first} {length} {sample_rate}".encode()).hexdigest()[:32]


def hashed(paths: Sequence[str]) -> Iterable[str]:
    """Yield the hash of each file, in order, several read at once."""
    if not paths:
        return
    from tqdm import tqdm

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from tqdm(pool.map(hash_file, paths), total=len(paths), desc="hashing audio", unit="file", disable=None)
