"""The index of indices: which folders of `headwater extract` belong to a space, and where the row of a key lies in them.

A part is what one shard of an extraction computed: files of rows, and a sorted index of their keys. `merged.json` of the space
lists the parts, so that a run that needs a thousand rows of a hundred million opens the shards of these rows alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...core.files import write_json, written_aside
from .shards import Shard

MERGED, JOBS = "merged.json", "extract"  # of a space: its index of indices, and the folder of what `extract` began
DONE, KEYS, PLACES = "done.json", "keys.npy", "places.npy"  # of a part
KEY = np.dtype("S16")  # a row key's bytes


@dataclass(frozen=True)
class Part:
    """One shard of an extraction that has come to its end."""

    folder: Path
    files: tuple[str, ...]  # names of its shards
    sizes: tuple[int, ...]  # bytes of each
    rows: int
    checksum: int  # crc32 of keys and places

    @classmethod
    def read(cls, folder: Path) -> Part | None:
        """Return the part in a folder; None where none has come to its end."""
        try:
            content = json.loads((folder / DONE).read_text(encoding="utf-8"))
            names, sizes = ([entry[place] for entry in content["files"]] for place in (0, 1))
            return cls(folder, tuple(map(str, names)), tuple(map(int, sizes)), int(content["rows"]), int(content["checksum"]))
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    def missing(self) -> list[str]:
        """Return the shards that are gone, or of another size than they were."""
        return [name for name, size in zip(self.files, self.sizes, strict=True) if size_of(self.folder / name) != size]

    def index(self) -> tuple[np.ndarray, np.ndarray]:
        """Return its keys in order, and (shard, row) of each: both mapped."""
        return _index(self.folder, *(path.stat().st_mtime_ns for path in (self.folder / KEYS, self.folder / PLACES)))

    def is_sound(self) -> bool:
        """Return whether its index is what was written."""
        try:
            keys, places = self.index()
        except (OSError, ValueError):
            return False
        return len(keys) == len(places) == self.rows and checksum_of(keys, places) == self.checksum

    def find(self, wanted: np.ndarray) -> Iterator[tuple[Path, int]]:
        """Yield (shard, row) of those keys that it has."""
        keys, places = self.index()
        if not len(keys):
            return
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        for shard, row in places[found[keys[found] == wanted]].tolist():
            yield self.folder / self.files[shard], row


@lru_cache(maxsize=1024)
def _index(folder: Path, *_: int) -> tuple[np.ndarray, np.ndarray]:  # by the times of its files: another index, another entry
    return np.load(folder / KEYS, mmap_mode="r"), np.load(folder / PLACES, mmap_mode="r")


def write_part(folder: Path, shards: Sequence[Shard], facts: dict[str, Any]) -> Part:
    """Write the index of a part's shards, and last that it is done."""
    names = [bytes.fromhex(row.key) for shard in shards for row in shard.rows]
    keys = np.array(names, KEY)
    places = np.array([(number, row) for number, shard in enumerate(shards) for row in range(len(shard.rows))], np.int32)
    keys, first = np.unique(keys, return_index=True)  # sorted; a row that two processes computed is there once
    places = places.reshape(-1, 2)[first]
    for name, array in ((KEYS, keys), (PLACES, places)):
        with written_aside(folder / name) as aside, aside.open("wb") as file:
            np.save(file, array)
    files = [[shard.path.name, shard.path.stat().st_size] for shard in shards]
    content = {"rows": len(keys), "checksum": checksum_of(keys, places), "files": files, **facts}
    write_json(folder / DONE, content)
    part = Part.read(folder)
    assert part is not None, "it was written just now"
    return part


def checksum_of(keys: np.ndarray, places: np.ndarray) -> int:
    """Return the checksum of an index."""
    return zlib.crc32(np.ascontiguousarray(places).tobytes(), zlib.crc32(np.ascontiguousarray(keys).tobytes()))


def write_merged(space: Path, parts: Sequence[Part]) -> None:
    """Write the index of indices, whole or not at all."""
    listed = [{"folder": part.folder.relative_to(space).as_posix(), "rows": part.rows} for part in parts]
    write_json(space / MERGED, {"format": 1, "parts": listed})


def merged_parts(space: Path) -> list[Part]:
    """Return the parts of a space; those whose folder somebody took away are none."""
    try:
        listed = json.loads((space / MERGED).read_text(encoding="utf-8"))["parts"]
        folders = [space / str(entry["folder"]) for entry in listed]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):  # it can be made again, and rows that are not found are computed
        return []
    return [part for folder in folders if (part := Part.read(folder)) is not None]


def find_merged(space: Path, keys: Sequence[str]) -> dict[Path, list[int]]:
    """Return the rows of these keys in the space's parts, by shard."""
    found: dict[Path, list[int]] = {}
    parts = merged_parts(space)
    wanted = np.sort(np.array([bytes.fromhex(key) for key in keys], KEY)) if parts else np.empty(0, KEY)
    for part in parts:
        for path, row in part.find(wanted):
            found.setdefault(path, []).append(row)
    return found


def has_jobs(space: Path) -> bool:
    """Return whether `headwater extract` has begun something in a space."""
    return (space / JOBS).is_dir()


def merged_shards(space: Path) -> list[Path]:
    """Return the shards of all parts of a space, merged or not."""
    return sorted(path for path in (space / JOBS).glob("*/*/*.safetensors") if path.is_file())


def size_of(path: Path) -> int:
    """Return the bytes of a file; -1 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
