"""Which checkpoints the user named, and which a file alone names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Trust:
    """Checkpoints of this process: s3prl's loaders execute what such a file holds, so only one that the user typed is read."""

    def __init__(self) -> None:
        self._typed: set[Path] = set()
        self._suspect: set[Path] = set()  # a recipe or config names them

    def take(self, path: str | Path) -> None:
        """Take note of a checkpoint that the user typed."""
        self._typed.add(resolved(path))

    def suspect(self, mapping: Any) -> None:
        """Take note of every `path` that a recipe or config names."""
        left, seen = [mapping], set[int]()
        while left:
            value = left.pop()
            if not isinstance(value, (Mapping, list)) or id(value) in seen:  # an alias stands for what was seen already
                continue
            seen.add(id(value))
            left += value if isinstance(value, list) else value.values()
            place = value.get("path") if isinstance(value, Mapping) else None
            if isinstance(place, str):
                self._suspect.add(resolved(place))

    def allows(self, path: str | Path) -> bool:
        """Tell whether a file was named by the user, not by a file alone."""
        place = resolved(path)
        return place in self._typed or place not in self._suspect

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """For tests: inside nothing is named yet, and what is named there is forgotten."""
        before = self._typed, self._suspect
        self._typed, self._suspect = set(), set()
        try:
            yield
        finally:
            self._typed, self._suspect = before


CHECKPOINTS = Trust()


def resolved(path: str | Path) -> Path:
    """Return the absolute path of a file, links followed; one that no file can have stays as it is."""
    try:
        return Path(os.path.realpath(os.path.expanduser(path)))
    except ValueError:
        return Path(path)
