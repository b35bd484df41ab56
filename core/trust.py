"""Which checkpoints the user named, and which a file alone names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILES: set[Path] = set()  # checkpoints that were
_SUSPECT: set[Path] = set()  # those that a file names


def take_file(path: str | Path) -> None:
    """Take note of a checkpoint that the user typed."""
    _FILES.add(Path(path).expanduser().resolve())


def suspect_paths(mapping: Any) -> None:
    """Take note of every `path` that a recipe or config names: s3prl's loaders would execute what such a file holds."""
    for value in mapping if isinstance(mapping, list) else ():
        suspect_paths(value)
    for key, value in mapping.items() if isinstance(mapping, Mapping) else ():
        if key == "path" and isinstance(value, str):
            _SUSPECT.add(Path(value).expanduser().resolve())
        suspect_paths(value)


def is_typed_file(path: str | Path) -> bool:
    """Tell whether a file was named by the user, not by a file alone."""
    place = Path(path).expanduser().resolve()
    return place in _FILES or place not in _SUSPECT
