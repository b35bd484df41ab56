"""Locks between processes: `flock` where the file system keeps it on every machine, leases where it may not."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from ..errors import UserError
from .leases import WATCH, Lease, Pace, file_of, files_of, highest, holder, lost_lease, try_lease

Kind = Literal["flock", "lease"]
CHOICE = "HEADWATER_LOCKS"  # flock or lease, in place of what the file system suggests
# on these, flock holds for all who see the files: disks of one machine, and file systems of clusters that pass it on
_DISKS = (
    "bcachefs",
    "btrfs",
    "ecryptfs",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "jfs",
    "nilfs2",
    "overlay",
    "ramfs",
    "tmpfs",
    "xfs",
    "zfs",
)
_TRUSTED = frozenset((*_DISKS, "ceph", "gfs2", "ocfs2"))
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
USUAL = Pace()
LOOKS, SECONDS_OF_A_LOOK = 3, 0.02  # at a lock, before it counts as another's
_LOOK_SECONDS = 0.2  # between two looks at a lease that is waited for


class Held(Protocol):
    """What keeps a lock until it is closed, however the process ends."""

    def close(self) -> None:
        """Give it back."""
        ...


@dataclass(frozen=True)
class Claim:
    """An exclusive lock that this process has."""

    lease: Lease | None = None  # of a flock: none

    def check(self) -> None:
        """Raise where another process took over, since this one stood still for too long."""
        if self.lease is not None and not self.lease.is_held():
            raise lost_lease(self.lease)


@dataclass(frozen=True)
class Mount:
    """The file system that a path lies on."""

    kind: str  # ext4, nfs4, fuse.sshfs …
    options: frozenset[str] = frozenset()

    @property
    def doubt(self) -> str:
        """Why flock is not to be trusted there; "" where it is."""
        if self.kind in ("nfs", "nfs4"):  # Linux passes flock on to the server, unless it is mounted otherwise
            local = sorted(self.options & {"local_lock=flock", "local_lock=all", "nolock"})
            return f"{self.kind} mounted with {local[0]} keeps locks on one machine" if local else ""
        if self.kind == "lustre":
            return "" if "flock" in self.options else "lustre mounted without the option flock keeps no locks between machines"
        return "" if self.kind in _TRUSTED else f"a file system of type {self.kind} may keep locks on one machine only"


def mount_of(path: Path, table: str = "/proc/self/mountinfo") -> Mount | None:
    """Return the file system of a path, which need not be there yet; None where the system does not list them."""
    existing = os.path.realpath(next(place for place in (path, *path.parents) if place.exists()))
    try:
        lines = Path(table).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found, longest = None, -1
    for line in lines:
        before, _, behind = line.partition(" - ")
        point = before.split()[4].encode().decode("unicode_escape")  # a blank is \040
        if (existing == point or existing.startswith(point.rstrip("/") + "/")) and len(point) >= longest:
            kind, _, *options = behind.split()
            words = {*before.split()[5].split(","), *(options[0].split(",") if options else ())}
            found, longest = Mount(kind, frozenset(words)), len(point)
    return found


def doubt_of(folder: Path) -> str:
    """Return why flock is not to be trusted in a folder; "" where it is, or nothing is known."""
    mount = mount_of(folder)
    return "" if mount is None else mount.doubt


def kind_of_locks(folder: Path) -> Kind:
    """Return which locks are used in a folder: the user's choice, else what its file system suggests."""
    chosen = os.environ.get(CHOICE, "")
    if chosen == "flock":
        return "flock"
    if chosen == "lease":
        return "lease"
    if chosen:
        raise UserError(f"Expected {CHOICE}=flock or {CHOICE}=lease, found '{chosen}'. Unset it to have the file system decide.")
    return "lease" if doubt_of(folder) else "flock"


@contextmanager
def exclusive(
    path: Path,
    kind: Kind | None = None,
    wait: bool = True,
    waiting: Callable[[str], None] = lambda _: None,
    pace: Pace = USUAL,
) -> Iterator[Claim | None]:
    """Give a claim on a path that no other process has; None where one has it and this one does not wait.

    `waiting` is called with the holder before it is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if (kind or kind_of_locks(path.parent)) == "flock":
        with path.open("a+", encoding="utf-8") as file:
            if not take(file):
                if not wait:
                    yield None
                    return
                waiting(holder_in(file))
                take(file, wait=True)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield Claim()
        return
    lease = try_lease(path, pace)
    if lease is None and wait:
        waiting(holder(path))
    while lease is None and wait:
        time.sleep(min(_LOOK_SECONDS, pace.beat))
        lease = try_lease(path, pace)
    try:
        yield None if lease is None else Claim(lease)
    finally:
        if lease is not None:
            lease.release()


def holder_of(path: Path, kind: Kind) -> str:
    """Return who has a path, as a person reads it."""
    if kind == "lease":
        return holder(path)
    with path.open("r", encoding="utf-8") as file:
        return holder_in(file)


def holder_in(file: IO[str]) -> str:
    """Return what the holder of a flock wrote into its file."""
    file.seek(0)
    return file.read().strip() or "another process"


def take(file: IO, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file with flock until it is closed; False where another process has it and this one does not wait."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise
        raise UserError(
            f"Expected a file system that locks files at '{file.name}', found: {problem.strerror}. Choose another folder, or set "
            f"{CHOICE}=lease, for the store."
        ) from None
    return True


def taken(file: IO[str]) -> bool:
    """Take a file's lock and return whether it was free; one who only looks whether it is holds it for a moment."""
    for left in reversed(range(LOOKS)):
        if take(file):
            return True
        if left:
            time.sleep(SECONDS_OF_A_LOOK)
    return False


class SharedLease:
    """One of several holders of a path: each has a lease of its own beside it."""

    def __init__(self, path: Path) -> None:
        lease = try_lease(path.with_name(f"{path.name}-{os.getpid()}-{time.monotonic_ns()}"))
        assert lease is not None, "its name is its own"
        self.lease = lease

    def close(self) -> None:
        """Give it back; nobody else ever claims its name, so that its file can go."""
        self.lease.release()
        self.lease.file.unlink(missing_ok=True)


def has_shared_lease(path: Path) -> bool:
    """Return whether a process holds a path by a lease of its own; those that died are taken away."""
    names = {file.with_name(file.name.rpartition(".lease.")[0]) for file in path.parent.glob(f"{path.name}-*.lease.*")}
    alive = False
    for name in names:
        number = highest(name)
        if number and not WATCH.is_over(file_of(name, number), USUAL):
            alive = True
        else:
            for left in files_of(name):
                left.unlink(missing_ok=True)
    return alive
