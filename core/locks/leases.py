"""Leases: exclusive files with a heartbeat, for file systems whose locks hold on one machine only, or not at all."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..files import is_alive

BEAT_SECONDS = 20.0  # between two signs of life
EXPIRY_SECONDS = 180.0  # without one, by the clock of whoever looks: an NFS client may show a file as it was a minute ago
ENDED = 16  # claims that keep their files: a listing misses the highest only where so many came and went meanwhile
BYTES = 1024  # of a file, blanks at its end among them: what is written over it leaves nothing of what was there
LONG_AGO = 3600.0  # since a file was changed: over without a watch, where clocks differ by less than this


@dataclass(frozen=True)
class Pace:
    """How often a holder gives a sign of life, and after how long without one its lease is over."""

    beat: float = BEAT_SECONDS
    expiry: float = EXPIRY_SECONDS


@dataclass
class Lease:
    """A claim that is a file: `NAME.lease.N`. The highest number holds; a file of a lower one is a claim that has ended.

    No file is ever handed on: whoever takes over makes the next number, which the file system lets one process do. A file is
    written in place, and stays for a while when it has ended: a listing that goes on while a name is renamed over, or while one
    comes and another goes, may show neither, and the highest number with it.
    """

    path: Path  # what is claimed
    number: int
    token: str
    pace: Pace
    lost: bool = False  # another process took over: this one had given no sign of life for too long
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        """The file of the claim."""
        return file_of(self.path, self.number)

    def start(self) -> None:
        """Give signs of life from now on."""
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def is_held(self) -> bool:
        """Return whether the claim still stands."""
        self.lost = self.lost or highest(self.path) != self.number or read(self.file).get("token", self.token) != self.token
        return not self.lost

    def release(self) -> None:
        """End the claim; the file stays, since its number must not come twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(FileNotFoundError):  # another process took over, and has tidied up
            if self.is_held():
                write(self.file, {**described(self.token), "released": True})

    def _beat(self) -> None:
        beats = 0
        while not self._stop.wait(self.pace.beat):
            beats += 1
            with suppress(OSError):  # a server that is away for a while
                if not self.is_held():
                    return
                write(self.file, {**described(self.token), "beats": beats})


class Watch:
    """What this process has seen of other holders' leases: one that does not change is over after a while."""

    def __init__(self) -> None:
        self.seen: dict[Path, tuple[str, float]] = {}

    def is_over(self, file: Path, pace: Pace) -> bool:
        """Return whether a lease has been released, or its holder has died."""
        content = read(file)
        if content.get("released") or is_dead_here(content) or is_old(file):
            return True
        sign, now = json.dumps(content, sort_keys=True), time.monotonic()
        if self.seen.get(file, ("", 0.0))[0] != sign:
            self.seen[file] = (sign, now)
        return now - self.seen[file][1] > pace.expiry


WATCH = Watch()


def try_lease(path: Path, pace: Pace = Pace()) -> Lease | None:
    """Return a claim on a path; None where another process has one that may be alive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = highest(path)
    if number and not WATCH.is_over(file_of(path, number), pace):
        return None
    lease = Lease(path, number + 1, uuid.uuid4().hex, pace)
    try:
        handle = os.open(lease.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(handle, "wb") as file:
        file.write(as_bytes(described(lease.token)))
    if highest(path) != lease.number:  # made from an old view: the number had come and gone
        lease.file.unlink(missing_ok=True)
        return None
    for left in files_of(path):
        if number_of(left) < lease.number - ENDED:
            left.unlink(missing_ok=True)
    lease.start()
    return lease


def holder(path: Path) -> str:
    """Return who has a path, as a person reads it."""
    number = highest(path)
    content = read(file_of(path, number)) if number else {}
    return f"process {content['process']} on {content['host']}" if {"process", "host"} <= {*content} else "another process"


def described(token: str) -> dict[str, object]:
    """Return what a lease says of its holder."""
    return {"host": socket.gethostname(), "machine": machine(), "process": os.getpid(), "token": token}


def machine() -> str:
    """Return what tells this machine, since it was started, and this container from others; "" where nothing does."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def is_dead_here(content: dict) -> bool:
    """Return whether a holder was a process of this machine that is gone."""
    here = machine()
    return bool(here) and content.get("machine") == here and not is_alive(int(content.get("process", 0)))


def is_old(file: Path) -> bool:
    """Return whether a lease was last changed long ago."""
    try:
        return time.time() - file.stat().st_mtime > LONG_AGO
    except FileNotFoundError:
        return False


def file_of(path: Path, number: int) -> Path:
    """Return the file of a claim."""
    return path.with_name(f"{path.name}.lease.{number}")


def number_of(file: Path) -> int:
    """Return which claim a file is; 0: none."""
    found = re.fullmatch(r".*\.lease\.(\d+)", file.name)
    return int(found[1]) if found else 0


def files_of(path: Path) -> list[Path]:
    """Return the files of all claims on a path."""
    return [file for file in path.parent.glob(f"{path.name}.lease.*") if number_of(file)]


def highest(path: Path) -> int:
    """Return the number of the claim that counts; 0 where there was none."""
    return max((number_of(file) for file in files_of(path)), default=0)


def read(file: Path) -> dict:
    """Return what a lease says; {} where it is being written."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write(file: Path, content: dict) -> None:
    """Replace what a lease says; one whose file has gone is not made again."""
    handle = os.open(file, os.O_WRONLY)
    try:
        os.pwrite(handle, as_bytes(content), 0)
    finally:
        os.close(handle)


def as_bytes(content: dict) -> bytes:
    """Return what a lease says, as long as all others."""
    return json.dumps(content).encode().ljust(BYTES)


def lost_lease(lease: Lease) -> UserError:
    """Return the error of a process that another one has taken over from."""
    return UserError(
        f"Expected to hold '{lease.path}', found that {holder(lease.path)} took over: this process gave no sign of life for "
        f"{lease.pace.expiry:.0f} s. Nothing is lost: run the command again."
    )
