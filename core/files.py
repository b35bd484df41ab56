"""Small files, written whole or not at all, and what a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import UserError


def cache_folder() -> Path:
    """Return the folder for what can be made again: $HEADWATER_CACHE, or headwater in the user's cache folder."""
    chosen = os.environ.get("HEADWATER_CACHE")
    place = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "headwater"
    try:
        return place.expanduser()
    except RuntimeError:  # a container's user may have none
        raise UserError(f"Expected a home for the cache '{place}', found none. Set HEADWATER_CACHE=FOLDER, or HOME.") from None


@contextmanager
def plain_disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into one line."""
    causes = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EFBIG: "the file may not grow that large",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "writing there is not allowed",
        errno.EPERM: "writing there is not allowed",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EEXIST: "a file stands in the way",
        errno.EISDIR: "a folder stands in the way",
        errno.ENOENT: "no folder can be made there",
        errno.ENAMETOOLONG: "the name is too long",
    }
    try:
        yield
    except OSError as problem:
        if problem.errno not in causes:
            raise
        is_full = problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        advice = "Make room, or choose another place: what stands there is whole." if is_full else "Choose another place."
        raise UserError(f"Expected to write '{path}', found that {causes[problem.errno]}. {advice}") from None


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a name to write to; it becomes `path` when all went well, and is gone otherwise."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with plain_disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            os.replace(aside, path)
        finally:
            # on a file system that refuses everything there is nothing to take away either
            if os.path.lexists(aside):
                aside.unlink()


def clear_asides(path: Path) -> None:
    """Remove what processes that were killed have left beside a path while they wrote it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        number = left.name.removesuffix(".tmp").rpartition(".")[2]
        if number.isdigit() and not is_alive(int(number)):
            left.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder among the system's temporary ones; those that killed processes of this user and machine left are removed."""
    begin = f"headwater-{socket.gethostname()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{glob.escape(begin)}*"):
        number = left.name.removeprefix(begin).partition("-")[0]
        with suppress(OSError):  # another process was faster
            if number.isdigit() and not is_alive(int(number)) and left.lstat().st_uid == os.getuid():
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{begin}{os.getpid()}-") as name:
        yield Path(name)


def is_alive(process: int) -> bool:
    """Return whether a process of this machine is at work."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a json file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, needed: Sequence[str] = ()) -> Any:
    """Return what a json file of a run folder holds: a mapping with the keys needed, where they are named."""
    try:
        if obstacle(path) == NO_FILE:
            raise ValueError(NO_FILE)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"Expected a run's '{path.name}' in '{path.parent}', found none. Is it a run folder?") from None
    except (ValueError, RecursionError) as problem:
        raise damaged_json(path, str(problem)) from None
    refuse_without(path, content, needed)
    return content


def refuse_without(path: Path, content: Any, needed: Sequence[str]) -> None:
    """Refuse the content of a run's json that is no mapping with the keys needed."""
    if not isinstance(content, dict):
        raise damaged_json(path, f"{type(content).__name__} in place of a mapping")
    if not {*needed} <= {*content}:
        raise damaged_json(path, f"not all of {', '.join(needed)}")


def refuse_other_kinds(path: Path, content: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Refuse values of other kinds than those that are used without another look."""
    for key, kind in kinds.items():
        if key in content and not isinstance(content[key], kind):
            found = f"{type(content[key]).__name__} in place of a{'n' * (kind is int)} {kind.__name__} at '{key}'"
            raise damaged_json(path, found)


def damaged_json(path: Path, problem: str) -> UserError:
    """Return the error about a file of a run that does not hold what was written there."""
    mend = "Remove the file: the command that trained the run writes it again."
    return UserError(f"Expected a run's json in '{path}', found: {problem}. {mend}")


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; where it stays empty it is taken away again, with the parents that were made for it."""
    with plain_disk_errors(folder):
        missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        with plain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in missing:
            with suppress(OSError):  # it was never made, or is no longer empty
                place.rmdir()


@contextlib.contextmanager
def folder_aside(folder: Path, *, fills_empty: bool = False) -> Iterator[Path]:
    """Give a folder to fill; it becomes `folder` when all went well, and is gone otherwise.

    `folder` may not be there yet, or with `fills_empty` is empty.
    """
    if os.path.lexists(folder) and not (fills_empty and folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"Expected a folder that is not there yet, found '{folder}'. Choose another name, or remove it.")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with made(folder.parent), plain_disk_errors(folder):
        try:
            aside.mkdir()
            yield aside
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def expanded(name: str | Path) -> Path:
    """Return a path with `~` as the user's home; `~nobody` stays as it is, and no file is found there."""
    return Path(os.path.expanduser(name))


def obstacle(path: str | Path) -> str | None:
    """Return why nothing can be read at a path; None where an ordinary file lies that holds something.

    A pipe or a device is not opened: whoever reads it may wait for ever.
    """
    try:
        state = os.stat(path)
    except OSError as problem:
        return _ABSENT.get(problem.errno or 0, problem.strerror or "no file")
    except ValueError:  # a NUL in it, or half a character
        return "a name that no file can have"
    if stat.S_ISDIR(state.st_mode):
        return "a folder"
    if not stat.S_ISREG(state.st_mode):
        return NO_FILE
    if not os.access(path, os.R_OK):
        return "no permission to read it"
    return None if state.st_size else "an empty file (0 bytes)"


NO_FILE = "a pipe, a socket or a device"  # that would be waited for
_ABSENT: dict[int, str] = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.ELOOP: "a link that leads back to itself",
    errno.EACCES: "no permission to read it",
    errno.ENAMETOOLONG: "a name that is too long",
}


def format_bytes(size: float) -> str:
    """Return bytes as a person reads them.

    >>> in_words(3_590_000_000)
    '3.6 GB'
    """
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{int(size)} B"


def hash_file(path: str | Path) -> str:
    """Return the hash of a file's bytes."""
    digest = hashlib.sha256()
    if obstacle(path) == NO_FILE:
        raise UserError(f"Expected readable audio, found {NO_FILE}: {path}. Replace the file, or leave it out.")
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(str(path), error) from error
    return digest.hexdigest()


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(f"Expected readable audio, found: {error.strerror}: {path}. Replace the file, or leave it out.")


_UNITS = {"": 10**9, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Return `20GB`, `500MB` or `1.5TB` in bytes; a bare number is in GB.

    >>> parse_size("1.5GB")
    1500000000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B|)", text.strip().upper())
    if match is None:
        raise UserError(f"Expected a size such as 20GB, found '{text}'. Write a number and KB, MB, GB or TB.")
    return int(float(match[1]) * _UNITS[match[2]])
