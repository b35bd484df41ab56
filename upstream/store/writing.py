"""What an upstream computed, appended to shards as a space keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .eight_bits import CODE, encode
from .shards import MAX_ROWS, Shard, ShardWriter
from .space import Space

_HALF, _FULL = np.dtype("<f2"), np.dtype("<f4")
_DTYPES: dict[str, np.dtype] = {"float16": _HALF, "int8": CODE}


@dataclass(frozen=True)
class Computed:
    """What an upstream made of one utterance."""

    values: np.ndarray  # (frame, layer, dim), float32
    norms: tuple[float, ...]  # mean L2 norm of its frames, layer by layer
    frames: int  # before pooling

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers."""
        return bool(np.isfinite(self.values).all())


class RowWriter:
    """Appends rows to shards below a folder, to a new one where the last is full; `sealed` gets each that is finished."""

    def __init__(self, folder: Path, prefix: str, space: Space, sealed: Callable[[Shard], None], count: int = MAX_ROWS) -> None:
        self.folder, self.prefix, self.space, self.sealed, self.count = folder, prefix, space, sealed, count
        self.writers: dict[np.dtype, ShardWriter] = {}

    def append(self, key: str, computed: Computed) -> None:
        """Write one utterance's features; after this they are safe."""
        dtype = _FULL if self.space.pooled or not fits_half(computed.values) else _DTYPES[self.space.numbers]
        values, lost = encode(computed.values) if dtype == CODE else (computed.values, ())
        if dtype in self.writers and self.writers[dtype].is_full:
            self._seal(self.writers.pop(dtype))
        if dtype not in self.writers:
            layers = len(self.space.layers)
            self.writers[dtype] = ShardWriter(self.folder, self.prefix, dtype, layers, self.space.dim, self.count)
        self.writers[dtype].append(key, values, computed.norms, computed.frames, lost)

    def close(self) -> None:
        """Seal what is open."""
        for writer in self.writers.values():
            self._seal(writer)
        self.writers = {}

    def _seal(self, writer: ShardWriter) -> None:
        shard = writer.finish()
        if shard is not None:
            self.sealed(shard)


def fits_half(values: np.ndarray) -> bool:
    """Return whether float16 holds the values: others are kept in float32."""
    return bool(np.abs(values).max(initial=0.0) <= np.finfo(np.float16).max)
