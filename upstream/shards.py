"""Shards: rows of features appended to a safetensors file that is whole after every row, whatever happens."""

from __future__ import annotations

import json
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

MAX_ROWS = 512
MAX_BYTES = 512 * 2**20
_DTYPES: dict[str, np.dtype] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Row:
    """Where one utterance's features lie in a shard."""

    key: str
    start: int  # first frame in the shard
    frames: int
    checksum: int  # crc32 of its bytes
    norms: tuple[float, ...]  # mean L2 norm of its frames, layer by layer
    utterance_frames: int  # frames before pooling

    def as_list(self) -> list[Any]:
        """Return the row as json keeps it."""
        return [self.key, self.start, self.frames, self.checksum, list(self.norms), self.utterance_frames]

    @classmethod
    def from_list(cls, values: list[Any]) -> Row:
        """Return the row that `as_list` wrote."""
        key, start, frames, checksum, norms, utterance_frames = values
        return cls(key, start, frames, checksum, tuple(norms), utterance_frames)


@dataclass(frozen=True)
class Shard:
    """A finished shard: its rows, and where its numbers begin."""

    path: Path
    rows: tuple[Row, ...]
    dtype: np.dtype
    shape: tuple[int, int, int]  # (frame, layer, dim)
    offset: int  # bytes in front of the numbers

    @cached_property
    def values(self) -> np.ndarray:
        """The numbers, mapped: (frame, layer, dim)."""
        return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)

    def is_sound(self) -> bool:
        """Return whether every row is what was written."""
        return all(zlib.crc32(self.values[row.start : row.start + row.frames].tobytes()) == row.checksum for row in self.rows)


def open_shard(path: Path) -> Shard | None:
    """Return a shard by its header; None where the file is cut or no shard."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        described = header["values"]
        dtype, shape = _DTYPES[described["dtype"]], tuple(described["shape"])
        rows = tuple(Row.from_list(row) for row in json.loads(header["__metadata__"]["rows"]))
    except (OSError, ValueError, KeyError, struct.error, MemoryError, OverflowError):
        return None
    whole = 8 + length + int(np.prod(shape)) * dtype.itemsize == path.stat().st_size
    return Shard(path, rows, dtype, shape, 8 + length) if whole else None


class ShardWriter:
    """Appends rows to a `.part` file; a reader of a dead writer's part finds every row that was finished."""

    def __init__(self, folder: Path, prefix: str, dtype: np.dtype, layers: int, dim: int) -> None:
        self.path = folder / f"{prefix}-{uuid.uuid4().hex[:12]}.part"
        self.dtype, self.layers, self.dim = np.dtype(dtype), layers, dim
        self.rows: list[Row] = []
        self.frames = 0
        self.reserved = reserved_bytes(layers)
        folder.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("wb")
        self.file.write(b" " * self.reserved)
        self.file.flush()
        self.list = rows_path(self.path).open("w", encoding="utf-8")
        self.list.write(json.dumps({"dtype": _NAMES[self.dtype], "layers": layers, "dim": dim}) + "\n")
        self.list.flush()

    @property
    def is_full(self) -> bool:
        """True where the next row belongs into another shard."""
        return len(self.rows) >= MAX_ROWS or self.frames * self.layers * self.dim * self.dtype.itemsize >= MAX_BYTES

    def append(self, key: str, values: np.ndarray, norms: tuple[float, ...], utterance_frames: int) -> None:
        """Write one utterance's features (frame, layer, dim); after this it is safe."""
        data = np.ascontiguousarray(values, self.dtype).tobytes()
        row = Row(key, self.frames, len(values), zlib.crc32(data), norms, utterance_frames)
        self.file.write(data)
        self.file.flush()
        self.list.write(json.dumps(row.as_list()) + "\n")
        self.list.flush()
        self.rows.append(row)
        self.frames += len(values)

    def finish(self) -> Shard | None:
        """Turn the part into a shard; None where it has no row."""
        self.file.close()
        self.list.close()
        return seal(self.path, self.rows, self.dtype, self.layers, self.dim)


def reserved_bytes(layers: int) -> int:
    """Return the room for a header of a full shard: safetensors allows blanks behind it."""
    return 4096 + MAX_ROWS * (128 + 16 * layers)


def rows_path(part: Path) -> Path:
    """Return where a part's rows are listed."""
    return part.with_suffix(".rows")


def seal(part: Path, rows: list[Row], dtype: np.dtype, layers: int, dim: int) -> Shard | None:
    """Write the header in front of a part's rows and give it its name."""
    if not rows:
        part.unlink(missing_ok=True)
        rows_path(part).unlink(missing_ok=True)
        return None
    frames = sum(row.frames for row in rows)
    size = frames * layers * dim * dtype.itemsize
    listed = json.dumps([row.as_list() for row in rows])
    values = {"dtype": _NAMES[dtype], "shape": [frames, layers, dim], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"rows": listed}, "values": values}).encode()
    room = reserved_bytes(layers) - 8
    assert len(header) <= room, f"a header of {len(header)} bytes does not fit into {room}"
    with part.open("r+b") as file:
        file.truncate(8 + room + size)
        file.write(struct.pack("<Q", room) + header.ljust(room))
        file.flush()
        os.fsync(file.fileno())
    path = part.with_suffix(".safetensors")
    os.replace(part, path)
    rows_path(part).unlink(missing_ok=True)
    return open_shard(path)


def recover(part: Path) -> Shard | None:
    """Make a shard of what a writer that died had finished."""
    try:
        lines = rows_path(part).read_text(encoding="utf-8").splitlines()
        described = json.loads(lines[0])
        dtype, layers, dim = _DTYPES[described["dtype"]], int(described["layers"]), int(described["dim"])
    except (OSError, ValueError, KeyError, IndexError):
        part.unlink(missing_ok=True)
        rows_path(part).unlink(missing_ok=True)
        return None
    rows: list[Row] = []
    with part.open("rb") as file:
        file.seek(reserved_bytes(layers))
        for line in lines[1:]:
            row = parse_row(line)
            if row is None:
                break
            data = file.read(row.frames * layers * dim * dtype.itemsize)
            if zlib.crc32(data) != row.checksum:
                break
            rows.append(row)
    return seal(part, rows, dtype, layers, dim)


def parse_row(line: str) -> Row | None:
    """Return a line of a part's list; None where the kill came in the middle of it."""
    try:
        return Row.from_list(json.loads(line))
    except ValueError:
        return None
