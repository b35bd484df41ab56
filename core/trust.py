"""Which checkpoints the user named, and which a file alone names."""

from __future__ import annotations

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
        self._typed.add(_absolute(path))

    def suspect(self, mapping: Any) -> None:
        """Take note of every `path` that a recipe or config names."""
        for value in mapping if isinstance(mapping, list) else ():
            self.suspect(value)
        for key, value in mapping.items() if isinstance(mapping, Mapping) else ():
            if key == "path" and isinstance(value, str):
                self._suspect.add(_absolute(value))
            self.suspect(value)

    def allows(self, path: str | Path) -> bool:
        """Tell whether a file was named by the user, not by a file alone."""
        place = _absolute(path)
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


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()
