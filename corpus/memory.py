"""What was found out about files, remembered by path, size and time of change; safe for several processes."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)

FileKey = tuple[str, int, int]  # absolute path, bytes, mtime in ns


def file_key(path: str | Path) -> FileKey:
    """Return what a file is known by; it must exist."""
    state = os.stat(path)
    return os.path.abspath(path), state.st_size, state.st_mtime_ns


class FileMemory:
    """Facts about files, kept between runs; a folder that cannot be written costs the memory, never the run."""

    def __init__(self, path: Path, loss: str) -> None:
        self.path, self.loss = path, loss  # what it costs to do without: "… is checked again"
        self.pending = 0
        self.connection: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.connection = sqlite3.connect(path, timeout=30)
            columns = "path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, fact TEXT"
            self.connection.execute(f"CREATE TABLE IF NOT EXISTS facts ({columns})")
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def recall(self, keys: Iterable[FileKey]) -> dict[FileKey, Any]:
        """Return what is known of these files as they are now."""
        if self.connection is None:
            return {}
        known = {}
        try:
            for key in keys:
                query = "SELECT fact FROM facts WHERE path = ? AND size = ? AND mtime_ns = ?"
                row = self.connection.execute(query, key).fetchone()
                if row is not None:
                    known[key] = json.loads(row[0])
        except sqlite3.Error as error:
            self._give_up(error)
        return known

    def everything(self) -> dict[FileKey, Any]:
        """Return all facts."""
        if self.connection is None:
            return {}
        rows = self.connection.execute("SELECT path, size, mtime_ns, fact FROM facts").fetchall()
        return {(path, size, mtime): json.loads(fact) for path, size, mtime, fact in rows}

    def keep(self, key: FileKey, fact: Any) -> None:
        """Remember one file."""
        if self.connection is None:
            return
        try:
            self.connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?)", (*key, json.dumps(fact)))
            self.pending += 1
            if self.pending % 200 == 0:  # a lock held for long would stop other processes
                self.connection.commit()
        except sqlite3.Error as error:
            self._give_up(error)

    def forget(self, paths: Iterable[str]) -> None:
        """Drop what is known of these files."""
        if self.connection is not None:
            self.connection.executemany("DELETE FROM facts WHERE path = ?", [(path,) for path in paths])
            self.connection.commit()

    def close(self) -> None:
        """Write what is pending."""
        if self.connection is None:
            return
        try:
            self.connection.commit()
            self.connection.close()
        except sqlite3.Error as error:
            self._give_up(error)
        self.connection = None

    def _give_up(self, error: Exception) -> None:
        self.connection = None
        _LOG.warning("%s: %s: %s", self.loss, self.path, error)
