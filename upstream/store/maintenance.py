"""Upkeep of the store: what lies in it, which of it goes first, and whether it is still what was computed and written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.file_cache import FileKey, file_key
from ...corpus.audio import checked_audio
from ...corpus.fingerprints import hashed, hashes
from .merged import merged_parts, merged_shards
from .shards import open_shard
from .store import LOCKS, TRIAL, USED, locked_alone, remove, sound_shards


@dataclass(frozen=True)
class StoredSpace:
    """A space as it lies on the disk."""

    folder: Path
    described: Mapping[str, Any]  # its space.json; empty where it cannot be read
    rows: int
    size: int  # bytes
    used: float  # when a run last used it, in seconds since 1970

    @property
    def name(self) -> str:
        """The upstream's name in the run that made the space."""
        return str(self.described.get("name", "?"))

    @property
    def holds(self) -> str:
        """What a row is, in a word."""
        in_bits = " in 8 bits" if self.described.get("numbers") == "int8" else ""
        kind = "means" if self.described.get("pooled") else f"frames{in_bits}"
        return f"normed {kind}" if self.described.get("normalized") else kind

    @property
    def is_known(self) -> bool:
        """Whether its space.json says that the store made the folder: nothing else is ever removed."""
        return {"upstream", "layers"} <= {*self.described}


_KEY = "[0-9a-f]{24}"  # what a space's folder is called


def list_spaces(root: Path) -> list[StoredSpace]:
    """Return every space below a folder, the longest unused first; other folders and links are none."""
    folders = [path.parent for path in root.glob(f"*/{LOCKS}") if is_own_folder(path.parent, _KEY)]
    return sorted((look_at(folder) for folder in folders), key=lambda space: (space.used, space.folder))


def is_own_folder(path: Path, pattern: str) -> bool:
    """Return whether a path is a folder, no link to one, with a name such as the store gives."""
    return re.fullmatch(pattern, path.name) is not None and path.is_dir() and not path.is_symlink()


def look_at(folder: Path) -> StoredSpace:
    """Return what a space's folder holds; its numbers are not read."""
    try:
        described = json.loads((folder / "space.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        described = {}
    shards = [open_shard(path) for path in folder.glob("*.safetensors") if path.is_file()]
    stamp = folder / USED if (folder / USED).is_file() else folder
    return StoredSpace(
        folder,
        described if isinstance(described, Mapping) else {},
        rows=len({row.key for shard in shards if shard is not None for row in shard.rows})
        + sum(part.rows for part in merged_parts(folder)),
        size=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        used=stamp.stat().st_mtime,
    )


def prune(
    spaces: Sequence[StoredSpace], *, unused_since: float | None = None, down_to: int | None = None, dry_run: bool = False
) -> tuple[list[StoredSpace], list[StoredSpace]]:
    """Remove spaces, the longest unused first: all, those unused since a time, or until a size is left.

    Return those that went (with `dry_run`: would go), and those in the way that a process holds.
    """
    spaces = [space for space in spaces if space.is_known]
    left = sum(space.size for space in spaces)
    removed: list[StoredSpace] = []
    held: list[StoredSpace] = []
    for space in sorted(spaces, key=lambda space: space.used):
        if unused_since is not None and space.used >= unused_since:
            continue
        if down_to is not None and left <= down_to:
            break
        if is_free(space.folder) if dry_run else remove(space.folder):
            left -= space.size
            removed.append(space)
        else:
            held.append(space)
    return removed, held


def is_free(folder: Path) -> bool:
    """Return whether no process holds a space."""
    with locked_alone(folder) as free:
        return free


def clear_remains(root: Path) -> None:
    """Take away what a prune that was killed had not come to, and what a killed run had measured the disk with."""
    for folder in root.glob(".gone-*"):
        if is_own_folder(folder, rf"\.gone-{_KEY}-\d+"):
            shutil.rmtree(folder)
    for folder in root.glob(f"{TRIAL}*"):
        if is_own_folder(folder, rf"{re.escape(TRIAL)}\w+") and all(is_free(space.folder) for space in list_spaces(folder)):
            shutil.rmtree(folder)


def changed_audio(root: Path, cache: Path) -> tuple[int, list[str]]:
    """Hash every remembered audio file again; return how many there are, and those with other bytes, now forgotten.

    What changed with its size or time is seen by any run; here only that is looked for which nobody could see.
    """
    with hashes(root) as memory, checked_audio(cache) as verdicts:
        known = {key: digest for key, digest in memory.everything().items() if is_there(key)}
        paths = [key[0] for key in known]
        changed = [path for path, then, now in zip(paths, known.values(), hashed(paths), strict=True) if then != now]
        memory.forget(changed)
        verdicts.forget(changed)
    return len(paths), changed


def is_there(key: FileKey) -> bool:
    """Return whether a file is as it was, as far as size and time tell."""
    try:
        return file_key(key[0]) == key
    except OSError:
        return False


def damaged_shards(root: Path) -> tuple[int, list[Path]]:
    """Compare every checksum; return how many shards there are, and the damaged ones, now removed."""
    paths = [path for space in list_spaces(root) for path in sorted(space.folder.glob("*.safetensors")) if path.is_file()]
    paths += [path for space in list_spaces(root) for path in merged_shards(space.folder)]
    damaged = [path for path, shard in sound_shards(root, paths, anew=True) if shard is None]
    for path in damaged:
        path.unlink(missing_ok=True)
    return len(paths), damaged


def parse_age(text: str) -> float:
    """Return `30d`, `12h` or `2w` in seconds.

    >>> parse_age("2w") / 86400
    14.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.strip().lower())
    if match is None:
        raise UserError(f"Expected an age such as 30d, found '{text}'. Write a number and h, d or w.")
    return float(match[1]) * {"h": 3600.0, "d": 86400.0, "w": 604800.0}[match[2]]
