"""A csv of predictions that grows: what is new or changed is computed, and a kill loses the file at hand."""

from __future__ import annotations

import csv
import fcntl
import glob
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import UserError
from ..core.files import plain_disk_errors, written_aside
from ..core.options import differences
from ..corpus.base import Utterance

LAYOUT = 2  # of what is written down; raise it when a row is known by something else
Item = str | Utterance
Key = tuple[str, float, float | None]  # absolute path, first second, seconds
Version = list[Any] | None  # what a row was computed from; None: there is nothing


@dataclass(frozen=True)
class Row:
    """A line of the csv, and what it was computed from."""

    version: Version
    fields: list[str]  # none: the item has no line
    failed: bool


@dataclass
class LabelsFile:
    """The rows of a csv while a command adds to them; beside the csv, each is written down as it comes."""

    path: Path
    header: Sequence[str]
    journal: BinaryIO
    rows: dict[Key, Row]  # in the order of the csv
    found: str  # hash of the csv that is there; "": there is none
    installed: str  # hash of the last csv that is known to have been put there; "": there was none yet
    notes: list[str]
    added: Counter[str]  # how many rows were computed, and why
    versions: dict[Key, Version]  # of what is asked for

    @property
    def broken(self) -> int:
        """How many of the items that are asked for have no answer."""
        return sum(self.rows[key].failed for key in self.versions)

    def todo(self, items: Sequence[Item], version_of: Callable[[Item], Version]) -> list[Item]:
        """Return the items that are new, changed, or had no answer, each once."""
        wanted = []
        for item in items:
            key, version = key_of(item), version_of(item)
            if key in self.versions:
                refuse_twice(item, self.versions[key], version)
                continue
            self.versions[key] = version
            row = self.rows.get(key)
            if row is None or row.failed or version not in (None, row.version):
                wanted.append(item)
        if self.installed and not self.found:
            self.rows = {key: row for key, row in self.rows.items() if key in self.versions}
            self.notes.append(
                f"{self.path} was taken away: the rows asked for are written again, from {state_of(self.path).name}"
            )
        return wanted

    def add(self, item: Item, fields: list[str], failed: bool) -> None:
        """Take an item's row; after this a kill does not lose it."""
        key = key_of(item)
        before = self.rows.get(key)
        self.added["new" if before is None else "tried again" if before.failed else "changed"] += 1
        self.rows[key] = Row(self.versions[key], fields, failed)
        with plain_disk_errors(self.path):
            self.journal.write(line_of(key, self.rows[key]))
            self.journal.flush()

    def save(self) -> None:
        """Write the csv where it is not what the rows say; then what is known of it."""
        content = self._content()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.found:
            with plain_disk_errors(self.path):  # told first: between the two either csv is one of ours
                self.journal.write(json_line({"csv": digest}))
                self.journal.flush()
            with written_aside(self.path) as aside:
                aside.write_bytes(content)
        if self.added or digest != self.installed:
            self._remember(digest)

    def _remember(self, digest: str) -> None:
        """Put one line for each row in the place of all that was written down; whoever waits for the lock opens that file."""
        self.journal.seek(0)
        first = self.journal.readline()
        with written_aside(state_of(self.path)) as aside, aside.open("wb") as file:
            file.write(first)
            file.writelines(line_of(key, row) for key, row in self.rows.items())
            file.write(json_line({"installed": digest}))

    def told(self, *, listens: bool) -> str:
        """Return what was done, in one line; of a run that listens, also how many files are no longer there."""
        parts = [f"{count} {why}" for why, count in sorted(self.added.items())]
        computed = f"{sum(self.added.values())} computed" + (f" ({', '.join(parts)})" if parts else "")
        same = len(self.versions) - sum(self.added.values())
        gone = sum(not os.path.exists(name) for name in {key[0] for key, row in self.rows.items() if not row.failed})
        line = (
            f"written to {self.path}: {len(self.versions)} files, {computed}, {same} as they were, {self.broken} of them broken"
        )
        return line + (f"; rows of {gone} files that are no longer there stay" if gone and listens else "")

    def _content(self) -> bytes:
        lines = [csv_line(self.header), *map(csv_line, self._shown())]
        return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")  # a file's name may be no UTF-8

    def _shown(self) -> Iterator[list[str]]:
        """Yield the fields of each line, files as they were typed; where two are then called alike, by their paths."""
        lines = [(key[0], row.fields) for key, row in self.rows.items() if row.fields]
        count = Counter(name for name, _ in {(fields[0], place) for place, fields in lines})
        for place, fields in lines:
            alike = self.header[0] == "file" and count[fields[0]] > 1
            yield [place, *fields[1:]] if alike else fields


@contextmanager
def growing(path: Path, about: Mapping[str, Any], header: Sequence[str]) -> Iterator[LabelsFile]:
    """Give a csv to add to, held for this process and written when all went well; of another run or options it is refused."""
    if path.exists() and not path.is_file():
        found = "a folder stands in the way" if path.is_dir() else "a device stands there"
        raise UserError(f"Expected to write '{path}', found that {found}. Name a csv file after --out.")
    state = state_of(path)
    with plain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = hold(path, state)
    with journal:
        try:
            clear_leftovers(path)
            table = read_state(path, journal, about, header)
            yield table
            table.save()
        finally:
            if not os.fstat(journal.fileno()).st_size:  # refused before anything was begun
                state.unlink(missing_ok=True)


def state_of(path: Path) -> Path:
    """Return where it is written down what the rows of a csv were computed from."""
    return path.with_name(f".{path.name}.state")


def clear_leftovers(path: Path) -> None:
    """Take away what a kill left half written: whoever holds the csv is alone with it."""
    for target in (path, state_of(path)):
        for left in path.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
            if left.name.removesuffix(".tmp").rpartition(".")[2].isdigit():
                left.unlink(missing_ok=True)


def hold(path: Path, state: Path) -> BinaryIO:
    """Return the file of what is known, held for this process alone."""
    while True:
        journal = state.open("a+b")
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            journal.close()
            raise UserError(
                f"Expected '{path}' to be free, found that another `headwater predict` is writing to it. "
                "Wait for it to end, or choose another --out."
            ) from None
        if os.fstat(journal.fileno()).st_nlink:
            return journal
        journal.close()  # its holder has just replaced it


def read_state(path: Path, journal: BinaryIO, about: Mapping[str, Any], header: Sequence[str]) -> LabelsFile:
    """Return what is known of a csv, what a kill cut short left out; a csv that nothing is known of is set aside."""
    journal.seek(0)
    block = journal.read()
    whole = block[: block.rfind(b"\n") + 1]
    if whole != block:
        journal.truncate(len(whole))
    lines = [line for line in map(parsed, whole.split(b"\n")) if line]
    notes, known = [], bool(lines) and "about" in lines[0]
    if known and lines[0].get("layout") == LAYOUT:
        refuse_other(path, lines[0], about, header)
        refuse_foreign(path, {line[word] for line in lines for word in ("csv", "installed") if word in line})
    else:
        lines = []
        journal.truncate(0)
        why = "an earlier version wrote down" if known else "nothing says"
        notes += set_aside(path, header, why)
        journal.write(json_line({"layout": LAYOUT, "about": about, "header": list(header)}))
    rows = {
        (line["item"][0], line["item"][1], line["item"][2]): Row(line["version"], line["fields"], line["failed"])
        for line in lines
        if "item" in line
    }
    installed = next((line["installed"] for line in reversed(lines) if "installed" in line), "")
    return LabelsFile(path, header, journal, rows, digest_of(path), installed, notes, Counter(), {})


def refuse_other(path: Path, first: Mapping[str, Any], about: Mapping[str, Any], header: Sequence[str]) -> None:
    """Refuse a csv of another run, or of other options."""
    lines = differences(first["about"], about) or differences({"columns": first["header"]}, {"columns": [*header]})
    if lines:
        raise UserError(
            f"Expected '{path}' of the same run with the same options, found another (there -> now): {'; '.join(lines)}. "
            f"Choose another --out, or begin anew: rm '{path}' '{state_of(path)}'"
        )


def refuse_foreign(path: Path, ours: set[str]) -> None:
    """Refuse a csv that was changed by another hand: its rows would be overwritten."""
    if digest_of(path) not in {"", *ours}:
        raise UserError(
            f"Expected '{path}' as `headwater predict` left it, found it changed. Move it away (its rows are remembered and "
            "written again), or choose another --out."
        )


def digest_of(path: Path) -> str:
    """Return a hash of what a file holds; nothing, where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def set_aside(path: Path, header: Sequence[str], why: str) -> list[str]:
    """Rename a csv of our columns whose rows are not known, and say so and why; one of other columns is refused."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        found = next(csv.reader(file), [])
    if found != [*header]:
        shown = ", ".join(found)[:200] or "nothing"
        raise UserError(
            f"Expected the columns {', '.join(header)} in '{path}', found {shown}. Choose another --out, or move that file away."
        )
    places = (path.with_name(f"{path.stem}.old{number or ''}{path.suffix}") for number in range(10_000))
    place = next(place for place in places if not place.exists())
    os.rename(path, place)
    return [f"{why} what the rows of {path} were computed from: they are kept in {place.name}, and all is computed anew"]


def key_of(item: Item) -> Key:
    """Return what a row is known by: the file, wherever it is named from, and the stretch of it that is asked for."""
    place = place_of(audio_of(item))
    return (place, item.start, item.duration) if isinstance(item, Utterance) else (place, 0.0, None)


def audio_of(item: Item) -> str:
    """Return an item's file as it was named."""
    return item.audio if isinstance(item, Utterance) else item


def place_of(name: str) -> str:
    """Return a file's absolute path; behind a link to a folder `..` is above the folder that the link leads to."""
    place = os.path.abspath(name)
    if ".." not in Path(name).parts:
        return place
    folder = os.path.realpath(os.path.dirname(name))
    same = os.path.realpath(os.path.dirname(place)) == folder
    return place if same else os.path.join(folder, os.path.basename(name))


def version_of(item: Item, *, listens: bool, reads: bool) -> Version:
    """Return what an answer depends on: size and time of change of the audio, and the words; None: the audio is not there."""
    name = audio_of(item)
    found: list[Any] = []
    if listens:
        state = stat_of(name)
        if state is None:
            return None
        found += state
    if reads:
        told = item.text if isinstance(item, Utterance) else None
        beside = stat_of(str(Path(os.path.expanduser(name)).with_suffix(".txt"))) if told is None else None
        found.append(beside if told is None else hashlib.sha256(told.encode()).hexdigest()[:16])
    return found


def stat_of(name: str) -> list[int] | None:
    """Return size and time of change of a file, in nanoseconds."""
    try:
        state = os.stat(name)
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]


def refuse_twice(item: Item, one: Version, other: Version) -> None:
    """Refuse a stretch that is asked about twice with other words: a table has one row of each."""
    if one != other:
        raise UserError(
            f"Expected one text for each stretch of a file, found two for {audio_of(item)} (from {key_of(item)[1]:g} s). "
            "Leave one out, or ask for the two without --out."
        )


def csv_line(fields: Sequence[str]) -> str:
    """Return fields as one line of csv, without its end; a name may hold line ends of either kind, which are quoted."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(fields)
    return buffer.getvalue().removesuffix("\r\n")


def line_of(key: Key, row: Row) -> bytes:
    """Return a row as it is written down."""
    return json_line({"item": key, "version": row.version, "fields": row.fields, "failed": row.failed})


def json_line(value: Mapping[str, Any]) -> bytes:
    """Return a mapping as one line."""
    return (json.dumps(value) + "\n").encode()


def parsed(line: bytes) -> dict[str, Any]:
    """Return a line as a mapping; nothing, where it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
