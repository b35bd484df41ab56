"""The folder of an extraction: its plan, its shards, their claims, and what is known of each recording."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import read_json, write_json, written_aside
from ...core.locks import Claim, Kind, exclusive, holder_of, kind_of_locks
from ...corpus.recordings.source import Source
from ...upstream.store.merged import JOBS, Part

FORMAT = 1  # of the job's files
MOST_SHARDS = 16  # where nothing else is requested: so many processes can share the work
FAILURES, LISTED, JOURNAL = "failures.csv", "utterances.csv", "journal.jsonl"


@dataclass(frozen=True)
class Stored:
    """One utterance whose features are stored."""

    id: str
    audio: str
    start: float
    end: float | None  # None: the end of the file
    seconds: float
    key: str


@dataclass(frozen=True)
class Failed:
    """One utterance or recording that has no features, and why."""

    id: str
    audio: str
    start: float
    end: float | None
    reason: str


@dataclass(frozen=True)
class Entry:
    """What became of a recording: a line of a shard's journal."""

    name: str
    stored: tuple[Stored, ...]
    failed: tuple[Failed, ...]

    def as_line(self) -> bytes:
        """Return the entry as it is written."""
        rows = [list(asdict(row).values()) for row in self.stored], [list(asdict(row).values()) for row in self.failed]
        return (json.dumps([self.name, *rows]) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Entry | None:
        """Return the entry of a line; None where a kill came in the middle of it."""
        try:
            name, stored, failed = json.loads(line)
            return cls(str(name), tuple(Stored(*row) for row in stored), tuple(Failed(*row) for row in failed))
        except (ValueError, TypeError):
            return None


def read_journal(folder: Path) -> dict[str, Entry]:
    """Return what became of a shard's recordings, by name; a line that a kill cut short is none."""
    try:
        lines = (folder / JOURNAL).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    entries = (Entry.from_line(line) for line in lines if line)
    return {entry.name: entry for entry in entries if entry is not None}


def append_journal(folder: Path, entries: Sequence[Entry]) -> None:
    """Add lines; one that was cut short before is ended first."""
    with (folder / JOURNAL).open("a+b") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            torn = file.read() != b"\n"
            file.write(b"\n" * torn)
        file.write(b"".join(entry.as_line() for entry in entries))


@dataclass(frozen=True)
class Job:
    """One extraction: a source, cut in one way, into a space."""

    space: Path  # the folder of the space
    key: str
    shards: int
    locks: Kind
    plan: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its shards lie."""
        return self.space / JOBS / self.key

    def part(self, number: int) -> Path:
        """Return the folder of a shard."""
        return self.folder / f"{number:05d}"

    def is_done(self, number: int) -> bool:
        """Return whether a shard has come to its end, and all of its files are there."""
        part = Part.read(self.part(number))
        return part is not None and not part.missing()

    def left(self) -> list[int]:
        """Return the shards that are not done."""
        return [number for number in range(self.shards) if not self.is_done(number)]

    @contextmanager
    def claimed(self, number: int) -> Iterator[Claim | None]:
        """Give a claim on a shard; None where another process is at work on it."""
        with exclusive(self.lock(f"{number:05d}"), self.locks, wait=False) as claim:
            yield claim

    def holder(self, number: int) -> str:
        """Return who is at work on a shard."""
        return holder_of(self.lock(f"{number:05d}"), self.locks)

    def lock(self, name: str) -> Path:
        """Return what is locked for a shard."""
        return self.folder / "locks" / name


def job_key(source: Source, stretch: float | None) -> str:
    """Return what an extraction is known by: its source, and how it is cut."""
    return hashlib.sha256(f"{FORMAT} {source.key} {stretch}".encode()).hexdigest()[:16]


def shards_of(source: Source, requested: int | None) -> int:
    """Return how many shards the work is split in."""
    count = len(source.files)
    what = {"tars": "tars", "files": "files", "table": "files of the table"}[source.kind]
    if requested is not None and not 1 <= requested <= count:
        raise UserError(f"Expected --shards from 1 to {count}, the number of {what}, found {requested}.")
    return requested or min(MOST_SHARDS, count)


def begun(space: Path, source: Source, stretch: float | None, requested: int | None) -> Job | None:
    """Return the job that was begun on a source; None where there is none."""
    key = job_key(source, stretch)
    path = space / JOBS / key / "plan.json"
    if not path.is_file():
        return None
    plan = read_json(path, ("shards", "locks", "format"))
    job = Job(space, key, int(plan["shards"]), plan["locks"], plan)
    if requested not in (None, job.shards):
        raise UserError(
            f"Expected --shards {job.shards}, as this extraction was begun, found {requested}. "
            f"Leave it out, or remove {job.folder}"
        )
    return job


def begin(space: Path, source: Source, stretch: float | None, requested: int | None, plan: Mapping[str, Any]) -> Job:
    """Write the plan of a new job and return it."""
    key, locks, shards = job_key(source, stretch), kind_of_locks(space), shards_of(source, requested)
    content = {"format": FORMAT, "input": str(source.place), "kind": source.kind, "files": len(source.files), "stretch": stretch}
    content |= {"shards": shards, "locks": locks, **plan}
    write_json(space / JOBS / key / "plan.json", content)
    return Job(space, key, shards, locks, content)


def write_lists(folder: Path, entries: Sequence[Entry]) -> None:
    """Write a shard's utterances with their keys, and its failures, as tables that a person can read."""
    rows = [[row.id, row.audio, *seconds_of(row), f"{row.seconds:.3f}", row.key] for entry in entries for row in entry.stored]
    write_csv(folder / LISTED, ["id", "audio", "start", "end", "seconds", "key"], rows)
    write_failures(folder / FAILURES, [row for entry in entries for row in entry.failed])


def write_failures(path: Path, failed: Sequence[Failed]) -> None:
    """Write what has no features, and why."""
    write_csv(
        path, ["id", "audio", "start", "end", "reason"], [[row.id, row.audio, *seconds_of(row), row.reason] for row in failed]
    )


def seconds_of(row: Stored | Failed) -> tuple[str, str]:
    """Return start and end as a table has them: empty where it is the whole file."""
    return ("" if not row.start and row.end is None else repr(row.start), "" if row.end is None else repr(row.end))


def write_csv(path: Path, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table whole or not at all."""
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(headers)
        writer.writerows(rows)
