"""The store: a frozen upstream is run once for each utterance, and never again by any run that uses the same one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..corpus.base import Utterance
from ..corpus.memory import FileKey, FileMemory, file_key
from ..errors import UserError
from .base import Upstream, UpstreamConfig
from .shards import Row, Shard, ShardWriter, open_shard, recover

FORMAT = 1  # of the files; raised when their layout changes
FEATURES = 1  # raised by hand when any upstream's output changes
BUCKETS = 16  # rows are claimed by bucket: so many processes can fill at once
_HALF, _FULL = np.dtype("<f2"), np.dtype("<f4")


@dataclass(frozen=True)
class Space:
    """What all rows of one folder share; whatever differs here lies elsewhere."""

    upstream: str  # hash of weights, architecture and class
    layers: tuple[int, ...]
    dim: int
    pooled: bool  # rows are means over time
    normalized: bool  # each layer of each frame was normed before the mean
    padding: str
    normalize_waveform: str
    attend: str
    precision: str  # of the computation
    format: int = FORMAT
    features: int = FEATURES

    @property
    def key(self) -> str:
        """The name of the space's folder."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]

    @property
    def bytes_per_frame(self) -> int:
        """What one row of frames takes: means in float32, frames in float16."""
        return len(self.layers) * self.dim * (4 if self.pooled else 2)


def space_of(upstream: Upstream, config: UpstreamConfig, *, layers: Sequence[int], pooled: bool, precision: str) -> Space:
    """Return the space of an upstream as a run uses it."""
    return Space(
        upstream=fingerprint(upstream),
        layers=tuple(layers),
        dim=upstream.spec.dim,
        pooled=pooled,
        normalized=pooled and config.normalize_layers,
        padding=config.padding,
        normalize_waveform=config.normalize_waveform,
        attend=config.attend,
        precision=precision,
    )


def fingerprint(upstream: Upstream) -> str:
    """Return a hash of all that decides an upstream's output: weights, architecture, class and promises.

    Where its name or folder lies does not matter, except for an upstream that only its name describes.
    """
    spec, architecture = upstream.spec, upstream.architecture()
    promises = [spec.num_layers, spec.dim, spec.sample_rate, spec.normalize, spec.centred]
    named = "" if architecture is not None else upstream.name
    described = [type(upstream).__module__, type(upstream).__qualname__, named, promises, _stable(architecture or {})]
    return hashlib.sha256((json.dumps(described, sort_keys=True) + upstream.weights_hash()).encode()).hexdigest()


def _stable(architecture: Any) -> Any:
    """Leave out what transformers writes about files and versions."""
    if isinstance(architecture, Mapping):
        passing = {"transformers_version", "architectures", "dtype", "torch_dtype"}
        named = {str(key): value for key, value in architecture.items()}
        return {key: _stable(value) for key, value in named.items() if key not in passing and not key.startswith("_")}
    return architecture


@dataclass(frozen=True)
class Place:
    """A row and the shard that holds it."""

    row: Row
    shard: Shard

    def values(self) -> np.ndarray:
        """Return the row's numbers: (frame, layer, dim)."""
        return self.shard.values[self.row.start : self.row.start + self.row.frames]


@dataclass(frozen=True)
class Computed:
    """What an upstream made of one utterance."""

    values: np.ndarray  # (frame, layer, dim), float32
    norms: tuple[float, ...]  # mean L2 norm of its frames, layer by layer
    frames: int  # before pooling


class Store:
    """One space on disk."""

    def __init__(self, root: Path, space: Space, name: str) -> None:
        self.root, self.space = root, space
        self.folder = root / space.key
        self.index: dict[str, Place] = {}
        self._seen: set[str] = set()
        self._verified = FileMemory(root / "verified-1.sqlite", "Shards are checked again in every run")
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        described = self.folder / "space.json"
        if not described.is_file():
            aside = described.with_name(f".space.{os.getpid()}.tmp")
            aside.write_text(json.dumps({"name": name, **asdict(space)}, indent=2) + "\n", encoding="utf-8")
            os.replace(aside, described)
        self.refresh()

    def refresh(self) -> None:
        """Take in what was written since; a shard that is cut or altered is removed, and its rows are missing again."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._seen:
                continue
            shard = open_shard(path)
            if shard is None or not self._is_sound(shard):
                print(f"note      {path} is damaged: removed, its rows are computed again", file=sys.stderr)
                path.unlink(missing_ok=True)
                continue
            self._seen.add(path.name)
            self.index.update({row.key: Place(row, shard) for row in shard.rows})

    def _is_sound(self, shard: Shard) -> bool:
        key = file_key(shard.path)
        if self._verified.recall([key]):
            return True
        sound = shard.is_sound()
        if sound:
            self._verified.keep(key, True)
        return sound

    def fill(
        self,
        wanted: Mapping[str, Any],
        compute: Callable[[Sequence[Any]], Iterator[tuple[int, Computed]]],
        advance: Callable[[Any], None],
        first_bucket: int = 0,
    ) -> int:
        """Compute what is missing of `wanted` (row key -> item) and return how many rows this process computed.

        Rows are claimed by bucket under a lock: what another process computes is waited for, never done twice.
        """
        buckets: dict[int, list[str]] = {}
        for key in wanted:
            buckets.setdefault(int(key[:4], 16) % BUCKETS, []).append(key)
        pending = sorted(buckets, key=lambda bucket: (bucket - first_bucket) % BUCKETS)
        count, wait = 0, False
        while pending:
            left = []
            for bucket in pending:
                with self._claimed(bucket, wait) as claimed:
                    if not claimed:
                        left.append(bucket)
                        continue
                    count += self._fill_bucket(bucket, {key: wanted[key] for key in buckets[bucket]}, compute, advance)
                wait = False
            wait = len(left) == len(pending)  # all are held by others: wait for one of them
            pending = left
        self._verified.close()
        return count

    @contextmanager
    def _claimed(self, bucket: int, wait: bool) -> Iterator[bool]:
        path = self.folder / "locks" / f"{bucket:02d}"
        with path.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    yield False
                    return
                print(f"waiting for {_holder(file)}, which computes the same features", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield True

    def _fill_bucket(
        self,
        bucket: int,
        wanted: Mapping[str, Any],
        compute: Callable[[Sequence[Any]], Iterator[tuple[int, Computed]]],
        advance: Callable[[Any], None],
    ) -> int:
        for part in sorted(self.folder.glob(f"{bucket:02d}-*.part")):
            recover(part)  # the lock is ours: whoever wrote it is gone
        self.refresh()
        missing = [key for key in wanted if key not in self.index]
        for key in wanted:
            if key in self.index:
                advance(wanted[key])
        writers: dict[np.dtype, ShardWriter] = {}
        try:
            for position, computed in compute([wanted[key] for key in missing]):
                self._append(writers, bucket, missing[position], computed)
                advance(wanted[missing[position]])
        finally:
            for writer in writers.values():
                self._seal(writer)
        return len(missing)

    def _append(self, writers: dict[np.dtype, ShardWriter], bucket: int, key: str, computed: Computed) -> None:
        dtype = _FULL if self.space.pooled or not fits_half(computed.values) else _HALF
        if dtype in writers and writers[dtype].is_full:
            self._seal(writers.pop(dtype))
        if dtype not in writers:
            writers[dtype] = ShardWriter(self.folder, f"{bucket:02d}", dtype, len(self.space.layers), self.space.dim)
        writers[dtype].append(key, computed.values, computed.norms, computed.frames)

    def _seal(self, writer: ShardWriter) -> None:
        shard = writer.finish()
        if shard is not None:
            self._verified.keep(file_key(shard.path), True)
            self._seen.add(shard.path.name)
            self.index.update({row.key: Place(row, shard) for row in shard.rows})

    def touch(self) -> None:
        """Remember that the space was used: `prune` takes the longest unused first."""
        (self.folder / "used").touch()


def fits_half(values: np.ndarray) -> bool:
    """Return whether float16 holds the values: those beyond its range are kept in float32."""
    return bool(np.abs(values).max(initial=0.0) <= np.finfo(np.float16).max)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "another process"


def row_keys(utterances: Iterable[Utterance], root: Path, sample_rate: int) -> dict[str, str]:
    """Return the row key of each utterance by id: a hash of the file's bytes, the first sample, and how many.

    Hashes of files are remembered, so that a second run opens none.
    """
    memory = FileMemory(root / "hashes-1.sqlite", "Audio files are hashed again in every run")
    utterances = list(utterances)
    files: dict[str, FileKey] = {path: file_key(path) for path in {utterance.audio for utterance in utterances}}
    known = memory.recall(files.values())
    hashes = {}
    for path, key in files.items():
        if key not in known:
            known[key] = hash_file(path)
            memory.keep(key, known[key])
        hashes[path] = known[key]
    memory.close()
    return {utterance.id: row_key(hashes[utterance.audio], utterance, sample_rate) for utterance in utterances}


def row_key(file_hash: str, utterance: Utterance, sample_rate: int) -> str:
    """Return the key of a stretch of a file."""
    first = round(utterance.start * sample_rate)
    count = -1 if utterance.duration is None else round(utterance.duration * sample_rate)
    return hashlib.sha256(f"{file_hash} {first} {count} {sample_rate}".encode()).hexdigest()[:32]


def hash_file(path: str | Path) -> str:
    """Return the hash of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def default_limit(root: Path) -> int:
    """Return how much a run may store unasked: the smaller of 50 GB and a quarter of the free disk."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return min(50 * 10**9, shutil.disk_usage(existing).free // 4)


def parse_size(text: str) -> int:
    """Return `20GB`, `500MB` or `1.5TB` in bytes.

    >>> parse_size("1.5GB")
    1500000000
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "B": 1}
    word = text.strip().upper()
    unit = next((unit for unit in units if word.endswith(unit)), None)
    try:
        return int(float(word.removesuffix(unit)) * units[unit]) if unit else int(float(word) * 10**9)
    except ValueError:
        raise UserError(f"Expected a size such as 20GB, found '{text}'.") from None


def in_words(size: float) -> str:
    """Return bytes as a person reads them.

    >>> in_words(3_590_000_000)
    '3.6 GB'
    """
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{int(size)} B"
