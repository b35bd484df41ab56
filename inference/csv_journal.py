"""A csv of predictions that grows: its rows live in a database beside it, and a kill loses the file at hand."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import plain_disk_errors, written_aside
from ..core.options import differences
from .inputs import Item, Version, key_of, refuse_two_texts

# exclusive: one process holds the file. WAL: no commit waits for the disk, and a kill loses none of them
SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS csv (about TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, item TEXT UNIQUE, row TEXT);
"""
KEEP = "INSERT INTO rows (item, row) VALUES (?, ?) ON CONFLICT (item) DO UPDATE SET row = excluded.row"


@dataclass(frozen=True)
class Row:
    """A line of the csv, and what it was computed from."""

    version: Version
    fields: list[str]  # none: the item has no line
    failed: bool


@dataclass
class GrowingCsv:
    """A csv and its rows while a command adds to them; each is in the database as soon as it is computed."""

    path: Path
    header: Sequence[str]
    database: sqlite3.Connection
    rows: dict[str, Row]  # by their items' keys, in the order of the csv
    taken_away: bool  # it was written, and is not there
    notes: list[str]
    added: Counter[str] = field(default_factory=Counter)  # how many rows were computed, and why
    versions: dict[str, Version] = field(default_factory=dict)  # of what is asked for

    @property
    def broken(self) -> int:
        """How many of the requested items have no prediction."""
        return sum(self.rows[key].failed for key in self.versions)

    def todo(self, items: Sequence[Item], version_of: Callable[[Item], Version]) -> list[Item]:
        """Return the items that are new, changed, or had no prediction, each once."""
        wanted = []
        for item in items:
            key, version = key_of(item), version_of(item)
            if key in self.versions:
                refuse_two_texts(item, self.versions[key], version)
                continue
            self.versions[key] = version
            row = self.rows.get(key)
            if row is None or row.failed or version not in (None, row.version):
                wanted.append(item)
        if self.taken_away:
            self.forget({*self.rows} - {*self.versions})
            self.notes.append(
                f"{self.path} was taken away: the rows asked for are written again, from {state_of(self.path).name}"
            )
        return wanted

    def forget(self, keys: Collection[str]) -> None:
        """Forget rows, and with them the csv that they were in: put back, it is refused instead of overwritten."""
        self.rows = {key: row for key, row in self.rows.items() if key not in keys}
        with plain_errors(self.path), self.database:
            for key in keys:
                self.database.execute("DELETE FROM rows WHERE item = ?", [key])
                self.database.execute("UPDATE csv SET digest = ''")

    def add(self, item: Item, fields: list[str], failed: bool) -> None:
        """Take an item's row; after this a kill does not lose it."""
        key = key_of(item)
        before = self.rows.get(key)
        self.added["new" if before is None else "tried again" if before.failed else "changed"] += 1
        self.rows[key] = row = Row(self.versions[key], fields, failed)
        with plain_errors(self.path), self.database:
            self.database.execute(KEEP, [key, json.dumps(vars(row))])

    def save(self) -> None:
        """Write the csv where it is not what the rows say."""
        content = content_of(self.header, self.rows)
        if content != content_there(self.path):
            with written_aside(self.path) as aside:
                aside.write_bytes(content)
        with plain_errors(self.path), self.database:
            self.database.execute("UPDATE csv SET digest = ? WHERE digest != ?", [digest_of(content)] * 2)

    def summary(self, *, has_audio: bool) -> str:
        """Return what was done, in one line; of a run with audio, also how many files are no longer there."""
        parts = [f"{count} {why}" for why, count in sorted(self.added.items())]
        computed = f"{sum(self.added.values())} computed" + (f" ({', '.join(parts)})" if parts else "")
        same = len(self.versions) - sum(self.added.values())
        gone = sum(not os.path.exists(name) for name in {place_in(key) for key, row in self.rows.items() if not row.failed})
        line = (
            f"written to {self.path}: {len(self.versions)} files, {computed}, {same} as they were, {self.broken} of them broken"
        )
        return line + (f"; rows of {gone} files that are no longer there stay" if gone and has_audio else "")


@contextmanager
def growing(path: Path, about: Mapping[str, Any], header: Sequence[str]) -> Iterator[GrowingCsv]:
    """Give a csv to add to, held for this process and written when all went well; of another run or options it is refused."""
    if path.exists() and not path.is_file():
        found = "a folder stands in the way" if path.is_dir() else "a device stands there"
        raise UserError(f"Expected to write '{path}', found that {found}. Name a csv file after --out.")
    if not state_of(path).exists():
        refuse_other_columns(path, header)  # before there is anything beside it
    with closing(hold(path)) as database:
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # of a kill: whoever holds the csv is alone with it
            if left.name.removesuffix(".tmp").rpartition(".")[2].isdigit():
                left.unlink(missing_ok=True)
        with plain_errors(path), database:
            table = read_state(path, database, {"about": about, "columns": [*header]})
        yield table
        table.save()


def state_of(path: Path) -> Path:
    """Return the database of a csv's rows and of what they were computed from."""
    return path.with_name(f".{path.name}.rows")


def hold(path: Path) -> sqlite3.Connection:
    """Return the database of a csv, held for this process alone."""
    with plain_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        state_of(path).open("ab").close()  # SQLite does not say why it cannot
        database = sqlite3.connect(state_of(path), timeout=0)
        try:
            database.executescript(SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
    return database


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn what the disk or the database of a csv refuses into one line."""
    try:
        with plain_disk_errors(path):
            yield
    except sqlite3.Error as problem:
        if getattr(problem, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise UserError(
                f"Expected '{path}' to be free, found that another `headwater predict` is writing to it. "
                "Wait for it to end, or choose another --out."
            ) from None
        raise UserError(
            f"Expected the rows of '{path}' in '{state_of(path)}', found: {problem}. Make room where the disk is full, choose "
            f"another --out, or begin anew: rm '{state_of(path)}'"
        ) from None


def read_state(path: Path, database: sqlite3.Connection, about: Mapping[str, Any]) -> GrowingCsv:
    """Return what is known of a csv; one that nothing is known of is set aside, one that is not ours is refused."""
    notes, found, header = list[str](), digest_of(content_there(path)), about["columns"]
    stored = database.execute("SELECT item, row FROM rows ORDER BY number").fetchall()
    rows = {item: Row(**json.loads(row)) for item, row in stored}
    known = database.execute("SELECT about, digest FROM csv").fetchone()
    if known is None:
        notes, found = set_aside(path, header), ""
        known = json.dumps(about), ""
        database.execute("INSERT INTO csv VALUES (?, ?)", known)
    refuse_other(path, json.loads(known[0]), about)
    if found not in ("", known[1]):
        refuse_foreign(path, found, digest_of(content_of(header, rows)))
        database.execute("UPDATE csv SET digest = ?", [found])  # a kill came between the csv and this
    return GrowingCsv(path, header, database, rows, bool(known[1] and not found), notes)


def refuse_other(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a csv of another run, or of other options."""
    lines = differences(before["about"], now["about"]) or differences(before, now)
    if lines:
        raise UserError(
            f"Expected '{path}' of the same run with the same options, found another (there -> now): {'; '.join(lines)}. "
            f"Choose another --out, or begin anew: rm '{path}' '{state_of(path)}'"
        )


def refuse_foreign(path: Path, found: str, ours: str) -> None:
    """Refuse a csv that was changed by another hand: its rows would be overwritten."""
    if found != ours:
        raise UserError(
            f"Expected '{path}' as `headwater predict` left it, found it changed. Move it away (its rows are remembered and "
            "written again), or choose another --out."
        )


def refuse_other_columns(path: Path, header: Sequence[str]) -> None:
    """Refuse a csv with other columns than ours: it is somebody else's."""
    content = content_there(path)
    if content is None:
        return
    found = next(csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline="")), [])
    if found != [*header]:
        shown = ", ".join(found)[:200] or "nothing"
        raise UserError(
            f"Expected the columns {', '.join(header)} in '{path}', found {shown}. Choose another --out, or move that file away."
        )


def set_aside(path: Path, header: Sequence[str]) -> list[str]:
    """Rename a csv of our columns whose rows are not known, and say so and why."""
    refuse_other_columns(path, header)
    earlier = path.with_name(f".{path.name}.state")  # lines of json, before the rows went into a database
    why = "an earlier version wrote down" if earlier.exists() else "nothing says"
    earlier.unlink(missing_ok=True)
    if not path.exists():
        return []
    places = (path.with_name(f"{path.stem}.old{number or ''}{path.suffix}") for number in range(10_000))
    place = next(place for place in places if not place.exists())
    os.rename(path, place)
    return [f"{why} what the rows of {path} were computed from: they are kept in {place.name}, and all is computed anew"]


def content_of(header: Sequence[str], rows: Mapping[str, Row]) -> bytes:
    """Return a csv of rows: files as they were typed; where two are then called alike, by their paths."""
    lines = [(place_in(key), row.fields) for key, row in rows.items() if row.fields]
    count = Counter(name for name, _ in {(fields[0], place) for place, fields in lines})
    shown = [[place, *rest] if header[0] == "file" and count[name] > 1 else [name, *rest] for place, (name, *rest) in lines]
    text = "".join(f"{csv_line(fields)}\n" for fields in [header, *shown])
    return text.encode("utf-8", "surrogateescape")  # a file's name may be no UTF-8


def place_in(key: str) -> str:
    """Return the absolute path in an item's key."""
    return json.loads(key)[0]


def content_there(path: Path) -> bytes | None:
    """Return what a csv holds; None: there is none."""
    return path.read_bytes() if path.exists() else None


def digest_of(content: bytes | None) -> str:
    """Return a hash of what a csv holds; nothing, where there is none."""
    return "" if content is None else hashlib.sha256(content).hexdigest()


def csv_line(fields: Sequence[str]) -> str:
    """Return fields as one line of csv, without its end; a name may hold line ends of either kind, which are quoted."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(fields)
    return buffer.getvalue().removesuffix("\r\n")
