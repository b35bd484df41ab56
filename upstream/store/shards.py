"""Shards: rows of features appended to a safetensors file that is whole after every row, whatever happens."""

from __future__ import annotations

import json
import math
import os
import struct
import uuid
import zlib
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .eight_bits import CODE

MAX_ROWS = 512
MAX_BYTES = 512 * 2**20
_MAPPED = 256  # shards mapped at once: each takes an open file, of which a process has 1,024
_LONGEST_HEADER = 100 * 2**20  # as safetensors has it
_DTYPES: dict[str, np.dtype] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "I8": CODE}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Row:
    """Where one utterance's features lie in a shard."""

    key: str
    start: int  # first frame in the shard
    frames: int  # in the shard: in eight bits, with those of the head
    checksum: int  # crc32 of its bytes
    norms: tuple[float, ...]  # mean L2 norm of its frames, layer by layer, to six digits
    utterance_frames: int  # frames before pooling
    lost: tuple[float, ...] = ()  # in eight bits: error over spread, layer by layer

    def as_list(self) -> list[Any]:
        """Return the row as json keeps it."""
        listed = [self.key, self.start, self.frames, self.checksum, list(self.norms), self.utterance_frames]
        return [*listed, list(self.lost)] if self.lost else listed

    @classmethod
    def from_list(cls, values: list[Any]) -> Row:
        """Return the row that `as_list` wrote; ValueError where it is none."""
        try:
            key, start, frames, checksum, norms, utterance_frames, *more = values
            lost = tuple(map(float, more[0])) if more else ()
            return cls(str(key), int(start), int(frames), int(checksum), tuple(map(float, norms)), int(utterance_frames), lost)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Shard:
    """A finished shard: its rows, and where its numbers begin."""

    path: Path
    rows: tuple[Row, ...]
    dtype: np.dtype
    shape: tuple[int, int, int]  # (frame, layer, dim)
    offset: int  # bytes in front of the numbers

    @property
    def values(self) -> np.ndarray:
        """The numbers, mapped: (frame, layer, dim)."""
        return _mapped(self.path, self.dtype, self.offset, self.shape)

    def is_sound(self) -> bool:
        """Return whether every row is what was written; the file is read, not mapped."""
        with self.path.open("rb") as file:
            return all(self._is_sound(row, file) for row in self.rows)

    def is_row_sound(self, row: Row) -> bool:
        """Return whether one row is what was written."""
        with self.path.open("rb") as file:
            return self._is_sound(row, file)

    def _is_sound(self, row: Row, file: BinaryIO) -> bool:
        frame = math.prod(self.shape[1:]) * self.dtype.itemsize
        file.seek(self.offset + row.start * frame)
        return zlib.crc32(file.read(row.frames * frame)) == row.checksum


@lru_cache(maxsize=_MAPPED)
def _mapped(path: Path, dtype: np.dtype, offset: int, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, mode="r", offset=offset, shape=shape))


def open_shard(path: Path) -> Shard | None:
    """Return a shard by its header; None where the file is cut, altered or no shard."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length) if length <= _LONGEST_HEADER else b"")
            described, facts = header["values"], header["__metadata__"]
            dtype, shape = _DTYPES[described["dtype"]], tuple(map(int, described["shape"]))
            altered = zlib.crc32(facts["rows"].encode()) != int(facts["checksum"])
            rows = tuple(Row.from_list(row) for row in json.loads(facts["rows"]))
        except (ValueError, KeyError, TypeError, AttributeError, struct.error):
            return None
    if altered or len(shape) != 3 or 8 + length + math.prod(shape) * dtype.itemsize != size:
        return None
    return Shard(path, rows, dtype, shape, 8 + length)


class ShardWriter:
    """Appends rows to a `.part` file; a reader of a dead writer's part finds every row that was finished."""

    def __init__(self, folder: Path, prefix: str, dtype: np.dtype, layers: int, dim: int, max_rows: int = MAX_ROWS) -> None:
        self.path = folder / f"{prefix}-{uuid.uuid4().hex[:12]}.part"
        self.dtype, self.layers, self.dim = np.dtype(dtype), layers, dim
        self.rows: list[Row] = []
        self.frames = 0
        self.max_rows = min(max_rows, MAX_ROWS)
        folder.mkdir(parents=True, exist_ok=True)
        # unbuffered: what was written is the file's, and nothing is written again on closing
        self.file = FileIO(self.path, "w")
        self.list = FileIO(rows_path(self.path), "w")
        described = {"dtype": _NAMES[self.dtype], "layers": layers, "dim": dim, "max_rows": self.max_rows}
        _write(self.list, json.dumps(described).encode() + b"\n")
        _write(self.file, b" " * reserved_bytes(self.dtype, layers, self.max_rows))

    @property
    def is_full(self) -> bool:
        """True where the next row belongs into another shard."""
        return len(self.rows) >= self.max_rows or self.frames * self.layers * self.dim * self.dtype.itemsize >= MAX_BYTES

    def append(
        self, key: str, values: np.ndarray, norms: tuple[float, ...], utterance_frames: int, lost: tuple[float, ...] = ()
    ) -> None:
        """Write one utterance's features (frame, layer, dim); after this it is safe."""
        data = np.ascontiguousarray(values, self.dtype).tobytes()
        short = tuple(float(f"{norm:.6g}") for norm in norms)  # the header has room for so many digits
        lost = tuple(float(f"{value:.3g}") for value in lost)
        row = Row(key, self.frames, len(values), zlib.crc32(data), short, utterance_frames, lost)
        _write(self.file, data)
        _write(self.list, json.dumps(row.as_list()).encode() + b"\n")  # its line makes it a row
        self.rows.append(row)
        self.frames += len(values)

    def finish(self) -> Shard | None:
        """Turn the part into a shard; None where it has no row."""
        self.file.close()
        self.list.close()
        return seal(self.path, self.rows, self.dtype, self.layers, self.dim, self.max_rows)


def _write(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]  # a disk that fills up takes a part, then refuses


def reserved_bytes(dtype: np.dtype, layers: int, max_rows: int) -> int:
    """Return the room for a header of a full shard: safetensors allows blanks behind it."""
    return 4096 + max_rows * (160 + (32 if dtype == CODE else 20) * layers)


def rows_path(part: Path) -> Path:
    """Return where a part's rows are listed."""
    return part.with_suffix(".rows")


def seal(part: Path, rows: list[Row], dtype: np.dtype, layers: int, dim: int, max_rows: int) -> Shard | None:
    """Write the header in front of a part's rows and give it its name."""
    if not rows:
        part.unlink(missing_ok=True)
        rows_path(part).unlink(missing_ok=True)
        return None
    frames = sum(row.frames for row in rows)
    size = frames * layers * dim * dtype.itemsize
    listed = json.dumps([row.as_list() for row in rows])
    values = {"dtype": _NAMES[dtype], "shape": [frames, layers, dim], "data_offsets": [0, size]}
    facts = {"rows": listed, "checksum": str(zlib.crc32(listed.encode()))}
    header = json.dumps({"__metadata__": facts, "values": values}).encode()
    room = reserved_bytes(dtype, layers, max_rows) - 8
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


def recover_parts(folder: Path, prefix: str) -> None:
    """Make shards of what writers that died had finished; nobody may be writing under the prefix."""
    for part in sorted(folder.glob(f"{prefix}-*.part")):
        recover(part)
    for rows in folder.glob(f"{prefix}-*.rows"):  # killed between sealing a part and taking away its list
        rows.unlink(missing_ok=True)


def recover(part: Path) -> Shard | None:
    """Make a shard of what a writer that died had finished."""
    try:
        lines = rows_path(part).read_text(encoding="utf-8").splitlines()
        described = json.loads(lines[0])
        dtype, layers, dim = _DTYPES[described["dtype"]], int(described["layers"]), int(described["dim"])
        max_rows = int(described["max_rows"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError):
        part.unlink(missing_ok=True)
        rows_path(part).unlink(missing_ok=True)
        return None
    rows: list[Row] = []
    with part.open("rb") as file:
        file.seek(reserved_bytes(dtype, layers, max_rows))
        for line in lines[1:]:
            row = parse_row(line)
            if row is None:
                break
            data = file.read(row.frames * layers * dim * dtype.itemsize)
            if zlib.crc32(data) != row.checksum:
                break
            rows.append(row)
    return seal(part, rows, dtype, layers, dim, max_rows)


def parse_row(line: str) -> Row | None:
    """Return a line of a part's list; None where the kill came in the middle of it."""
    try:
        return Row.from_list(json.loads(line))
    except ValueError:
        return None
