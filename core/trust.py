"""Which checkpoints the user named, and which a file alone names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES: set[Path] = set()  # checkpoints that were
_SUSPECT: set[Path] = set()  # those that a file names


def take_file(path: str | Path) -> None:
    """Take note of a checkpoint that the user typed."""
    _FILES.add(resolved(path))


def suspect_paths(mapping: Any) -> None:
    """Take note of every `path` that a recipe or config names: s3prl's loaders would execute what such a file holds."""
    left, seen = [mapping], set[int]()
    while left:
        value = left.pop()
        if not isinstance(value, (Mapping, list)) or id(value) in seen:  # an alias stands for what was seen already
            continue
        seen.add(id(value))
        left += value if isinstance(value, list) else value.values()
        place = value.get("path") if isinstance(value, Mapping) else None
        if isinstance(place, str):
            _SUSPECT.add(resolved(place))


def resolved(path: str | Path) -> Path:
    """Return the absolute path of a file, links followed; one that no file can have stays as it is."""
    try:
        return Path(os.path.realpath(os.path.expanduser(path)))
    except ValueError:
        return Path(path)


def is_typed_file(path: str | Path) -> bool:
    """Tell whether a file was named by the user, not by a file alone."""
    place = resolved(path)
    return place in _FILES or place not in _SUSPECT
