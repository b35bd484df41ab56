"""The store: a frozen upstream is run once for each utterance, and never again by any run that uses the same one."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...core.errors import UserError
from ...core.file_cache import FileKey, FileMemory, file_key
from ...core.locks import Held, SharedLease, exclusive, has_shared_lease, kind_of_locks, take
from .eight_bits import CODE, HEAD, decode
from .merged import find_merged, has_jobs
from .shards import Row, Shard, open_shard, recover_parts
from .space import Space
from .writing import Computed, RowWriter

BUCKETS = 16  # rows are claimed by bucket: so many processes can fill at once
USED, LOCKS, HELD = "used", "locks", "held"
TRIAL = ".trial-"  # what a folder is called in which the disk is measured
_HALF = np.dtype("<f2")


@dataclass(frozen=True)
class Place:
    """A row and the shard that holds it."""

    row: Row
    shard: Shard

    @property
    def frames(self) -> int:
        """How many frames the row has."""
        return self.row.frames - (HEAD if self.shard.dtype == CODE else 0)

    @property
    def dtype(self) -> np.dtype:
        """The type of the row's numbers, as they are read."""
        return _HALF if self.shard.dtype == CODE else self.shard.dtype

    def values(self) -> np.ndarray:
        """Return the row's numbers: (frame, layer, dim)."""
        if self.shard.dtype != CODE:
            return self._stored()
        decoded = np.empty((self.frames, *self.shard.shape[1:]), _HALF)
        decode(self._stored(), decoded)
        return decoded

    def read(self, into: np.ndarray, columns: slice | list[int]) -> None:
        """Write the numbers of some layers into an array (frame, layer, dim)."""
        if self.shard.dtype == CODE and into.dtype == _HALF:
            decode(self._stored(), into, columns)
        else:
            into[:] = self.values()[:, columns]

    def _stored(self) -> np.ndarray:
        return self.shard.values[self.row.start : self.row.start + self.row.frames]


Compute = Callable[[Sequence[Any]], Iterator[tuple[int, Computed]]]  # items -> (position, features), in any order


class Store:
    """One space on disk, held as long as the object lives: nothing that is held is pruned."""

    def __init__(self, root: Path, space: Space, name: str) -> None:
        self.root, self.space = root, space
        self.folder = root / space.key
        self.index: dict[str, Place] = {}
        self._seen: set[str] = set()
        self.held = hold(self.folder)
        described = self.folder / "space.json"
        if not described.is_file():
            aside = described.with_name(f".space.{os.getpid()}.tmp")
            aside.write_text(json.dumps({"name": name, **space.described()}, indent=2) + "\n", encoding="utf-8")
            os.replace(aside, described)
        self.refresh()

    def refresh(self) -> None:
        """Take in what was written since; a shard that is cut or altered is removed, and its rows are missing again."""
        shards = (path for path in sorted(self.folder.glob("*.safetensors")) if path.is_file())
        fresh = [path for path in shards if path.name not in self._seen]
        if not fresh:
            return
        for path, shard in sound_shards(self.root, fresh):
            if shard is None or shard.shape[1:] != (len(self.space.layers), self.space.dim):
                self._remove(path)
            else:
                self._take(shard)

    def look_up(self, keys: Iterable[str]) -> None:
        """Take in the rows of these keys that `headwater extract` has computed: only their shards are opened."""
        missing = [key for key in keys if key not in self.index]
        found = find_merged(self.folder, missing) if missing else {}
        for path, shard in sound_shards(self.root, [*found]):
            if shard is None or shard.shape[1:] != (len(self.space.layers), self.space.dim):
                self._remove(path)
            else:
                rows = (shard.rows[row] for row in found[path] if row < len(shard.rows))
                self.index.update({row.key: Place(row, shard) for row in rows})

    def fill(
        self,
        wanted: Mapping[str, Any],
        compute: Compute,
        advance: Callable[[Any], None],
        first_bucket: int = 0,
        show: Callable[[str], None] = print,
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
                with self._claimed(bucket, wait, show) as claimed:
                    if claimed:
                        count += self._fill_bucket(bucket, {key: wanted[key] for key in buckets[bucket]}, compute, advance)
                    else:
                        left.append(bucket)
                wait = False
            wait = len(left) == len(pending)  # all are held by others: wait for one of them
            pending = left
        return count

    @contextmanager
    def _claimed(self, bucket: int, wait: bool, show: Callable[[str], None]) -> Iterator[bool]:
        path = self.folder / LOCKS / f"{bucket:02d}"
        with exclusive(path, wait=wait, waiting=lambda holder: show(waiting_for(holder))) as claim:
            yield claim is not None

    def _fill_bucket(self, bucket: int, wanted: Mapping[str, Any], compute: Compute, advance: Callable[[Any], None]) -> int:
        recover_parts(self.folder, f"{bucket:02d}")  # the lock is ours: whoever wrote them is gone
        self.refresh()
        self.look_up(wanted)
        missing = [key for key in wanted if key not in self.index]
        for key in wanted.keys() - {*missing}:
            advance(wanted[key])
        writer = RowWriter(self.folder, f"{bucket:02d}", self.space, self._keep, len(missing))
        try:
            for position, computed in compute([wanted[key] for key in missing]):
                if not computed.is_finite:
                    raise UserError(
                        f"Expected finite features to store, found NaN or infinity: {_named(wanted[missing[position]])}. "
                        "Look for damaged samples in it, and leave it out."
                    )
                writer.append(missing[position], computed)
                advance(wanted[missing[position]])
        finally:  # interrupted or not: what was computed stays
            writer.close()
        return len(missing)

    def _keep(self, shard: Shard) -> None:
        with checked_shards(self.root) as memory:
            memory.keep(file_key(shard.path), True)
        self._take(shard)

    def _remove(self, path: Path) -> None:
        print(f"note      {path} is damaged: removed, its rows are computed again", file=sys.stderr)
        path.unlink(missing_ok=True)

    def _take(self, shard: Shard) -> None:
        self._seen.add(shard.path.name)
        self.index.update({row.key: Place(row, shard) for row in shard.rows})

    def leave(self) -> None:
        """Give up the store; an empty one leaves no folder behind."""
        self.held.close()
        if not self.index and not has_jobs(self.folder):
            remove(self.folder)

    def touch(self) -> None:
        """Remember that the space was used: `prune` takes the longest unused first."""
        (self.folder / USED).touch()


SAMPLED = 16  # shards of which one row is compared again whenever a run opens the store
_CHANCE = random.SystemRandom()  # no draw of a run's own


@contextmanager
def locked_alone(folder: Path) -> Iterator[bool]:
    """Give whether no process holds a space; while the block lasts, none can."""
    held = folder / LOCKS / HELD
    if not held.parent.is_dir():  # pruned by another process
        yield False
        return
    if kind_of_locks(folder) == "lease":  # a process may come between: it finds its lease gone, and makes another
        yield not has_shared_lease(held)
        return
    try:
        file = held.open("a+", encoding="utf-8")
    except FileNotFoundError:
        yield False
        return
    with file:
        # pruned, and perhaps made anew, since it was opened: this lock is of a file that nobody else sees
        yield take(file) and is_that_file(held, file)


def is_that_file(path: Path, file: IO[str]) -> bool:
    """Return whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def remove(folder: Path) -> bool:
    """Remove a space and return True; False where a process holds it, and where the user linked it from elsewhere."""
    if folder.is_symlink():
        return False
    with locked_alone(folder) as free:
        if free:
            gone = folder.with_name(f".gone-{folder.name}-{os.getpid()}")
            os.replace(folder, gone)  # at once: whoever opens the space now makes a new one
            shutil.rmtree(gone)
        return free


def hold(folder: Path) -> Held:
    """Return what keeps a space from being pruned until it is closed, however this process ends."""
    while True:
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        if kind_of_locks(folder) == "lease":
            with suppress(FileNotFoundError):  # pruned between two lines
                (folder / LOCKS / HELD).touch()
                lease = SharedLease(folder / LOCKS / HELD)
                if lease.lease.file.is_file():
                    return lease
            continue
        try:
            file = (folder / LOCKS / HELD).open("a+", encoding="utf-8")
        except FileNotFoundError:  # pruned between two lines
            continue
        take(file, shared=True, wait=True)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # pruned while we waited


def checked_shards(root: Path) -> FileMemory:
    """Return the memory of shards whose checksums were right."""
    return FileMemory(root / "verified-1.sqlite", "Shards are checked again in every run")


def sound_shards(root: Path, paths: Sequence[Path], anew: bool = False) -> Iterator[tuple[Path, Shard | None]]:
    """Yield shards, None where one is damaged; checksums are compared once for each file as it is now, or `anew`.

    Of files that were compared before, a few rows are: a disk may lose what it holds, size and time as before.
    """
    from tqdm import tqdm

    with checked_shards(root) as memory:
        keys: dict[Path, FileKey] = {}
        for path in paths:
            with suppress(FileNotFoundError):  # pruned or removed by another process
                keys[path] = file_key(path)
        known = {} if anew else memory.recall(keys.values())
        seen = [path for path, key in keys.items() if key in known]
        sampled = {*_CHANCE.sample(seen, min(SAMPLED, len(seen)))}
        bar = tqdm(total=len(keys) - len(known), desc="checking shards", unit="shard", leave=False, disable=None)
        for path, key in keys.items():
            try:
                shard = open_shard(path)
                if shard is not None and key not in known:
                    shard = shard if shard.is_sound() else None
                    bar.update()
                elif shard is not None and path in sampled and not shard.is_row_sound(_CHANCE.choice(shard.rows)):
                    shard = None
            except FileNotFoundError:
                continue
            if shard is not None and key not in known:
                memory.keep(key, True)
            yield path, shard
        bar.close()


def _named(item: Any) -> str:
    """Return what an item that is computed is called: an example's file, or the item itself."""
    return str(getattr(getattr(item, "utterance", None), "audio", item))


def waiting_for(holder: str) -> str:
    """Return the line of a process that waits."""
    return f"store     waiting for {holder}, which computes the same features"


def default_limit(root: Path) -> int:
    """Return how much a run may store unasked: the smaller of 50 GB and a quarter of the free disk."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    return min(50 * 10**9, shutil.disk_usage(existing).free // 4)
