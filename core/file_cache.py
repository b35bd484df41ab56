"""What was found out about files, remembered by path, size and time of change; safe for several processes."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_AT_ONCE = 500  # paths in one query: SQLite takes 999 variables at least
_HELD_SECONDS = 1.0  # between commits: a lock held for long would stop other processes

FileKey = tuple[str, int, int]  # absolute path, bytes, mtime in ns


def file_key(path: str | Path) -> FileKey:
    """Return what a file is known by; it must exist."""
    state = os.stat(path)
    name = os.path.abspath(path)
    if not name.isascii():  # a name that is no UTF-8 is spelled out: SQLite takes text only
        name = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return name, state.st_size, state.st_mtime_ns


class FileMemory:
    """Facts about files, kept between runs; a folder that cannot be written costs the memory, never the run."""

    def __init__(self, path: Path, loss: str) -> None:
        self.path, self.loss = path, loss  # what it costs to do without: "… is checked again"
        self.connection: sqlite3.Connection | None = None
        self.committed = time.monotonic()
        with self._guarded():
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=30)
            columns = "path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, fact TEXT"
            connection.execute(f"CREATE TABLE IF NOT EXISTS facts ({columns})")
            self.connection = connection

    def __enter__(self) -> FileMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recall(self, keys: Iterable[FileKey]) -> dict[FileKey, Any]:
        """Return what is known of these files as they are now."""
        requested = list(dict.fromkeys(keys))
        known: dict[FileKey, Any] = {}
        for first in range(0, len(requested), _AT_ONCE):
            paths = [key[0] for key in requested[first : first + _AT_ONCE]]
            known |= self._select(f"WHERE path IN ({','.join('?' * len(paths))})", paths)
        return {key: known[key] for key in requested if key in known}

    def everything(self) -> dict[FileKey, Any]:
        """Return all facts."""
        return self._select("", [])

    def keep(self, key: FileKey, fact: Any) -> None:
        """Remember one file."""
        self._change("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", [(*key, json.dumps(fact))])

    def forget(self, paths: Iterable[str]) -> None:
        """Drop what is known of these files."""
        self._change("DELETE FROM facts WHERE path = ?", [(path,) for path in paths])

    def close(self) -> None:
        """Write what is pending."""
        with self._guarded():
            if self.connection is not None:
                self.connection.commit()
                self.connection.close()
        self.connection = None

    def _select(self, where: str, values: list[str]) -> dict[FileKey, Any]:
        with self._guarded():
            if self.connection is not None:
                query = f"SELECT path, size, mtime_ns, fact FROM facts {where}"
                rows = self.connection.execute(query, values).fetchall()
                facts = json.loads(f"[{','.join(row[3] for row in rows)}]")  # at once: ten times faster than one by one
                return {row[:3]: fact for row, fact in zip(rows, facts, strict=True)}
        return {}

    def _change(self, statement: str, rows: list[tuple]) -> None:
        with self._guarded():
            if self.connection is not None:
                self.connection.executemany(statement, rows)
                if time.monotonic() - self.committed > _HELD_SECONDS:
                    self.connection.commit()
                    self.committed = time.monotonic()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.connection = None
            _LOG.warning("%s: %s: %s", self.loss, self.path, error)
