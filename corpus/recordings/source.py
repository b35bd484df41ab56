"""Where recordings come from: a table, a folder of audio, or tars; split into shards that know nothing of each other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...core.errors import UserError
from ...core.files import expanded, hash_file
from ..base import Utterance
from ..load import get_reader
from ..locate import audio_files
from ..tables import TABLES
from .tars import TARS, members

MOST_TARS = 1_000_000  # that a pattern in braces may stand for


@dataclass(frozen=True)
class Recording:
    """One file of audio, on the disk or out of a tar."""

    name: str  # in every list: its path, or TAR/NAME
    data: bytes | None = None  # of a tar's: the file
    stretches: tuple[Utterance, ...] = ()  # that a table names; without any it is cut, or taken whole
    problem: str = ""  # why there is no more to be had: a tar that cannot be read


@dataclass(frozen=True)
class Source:
    """Everything that features are computed of."""

    kind: Literal["table", "files", "tars"]
    place: Path  # the table, the folder, or the folder of the first tar
    files: tuple[Path, ...]  # of audio, or tars; in order
    stretches: Mapping[str, tuple[Utterance, ...]]  # of a table: path -> its rows
    key: str  # what makes it this one: the files' names, sizes and times, or the table's bytes

    def shard(self, number: int, count: int, done: frozenset[str] = frozenset()) -> Iterator[Recording]:
        """Yield the recordings of one of `count` shards, those left out that are done: nothing of them is read."""
        for file in self.files[number::count]:
            if self.kind == "tars":
                yield from recordings_of(file, done)
            elif str(file) not in done:
                yield Recording(str(file), stretches=self.stretches.get(str(file), ()))


def recordings_of(tar: Path, done: frozenset[str]) -> Iterator[Recording]:
    """Yield the audio of a tar, and last why it ends early, where it does."""
    try:
        for name, data in members(tar, done):
            yield Recording(name, data)
    except UserError as problem:
        yield Recording(str(tar), problem=str(problem))


def find_source(words: Sequence[str], options: Mapping[str, Any] | None = None) -> Source:
    """Return the source that a user typed: one table, one folder, or any number of tars, `{000..099}` and `*` among them."""
    paths = [path for word in words for path in expand(word)]
    tars = [path for path in paths if is_tar(path)]
    if options and (tars or paths[0].suffix.lower() not in TABLES):
        raise UserError(f"Expected a table beside -o corpus.options, found '{words[0]}'. Leave the options out.")
    if tars:
        if len(tars) < len(paths):
            other = next(path for path in paths if not is_tar(path))
            raise UserError(f"Expected tars alone, found '{other}' among them. Name one kind of input.")
        return source_of_files("tars", tars[0].parent, tars)
    if len(paths) > 1:
        raise UserError(f"Expected one table, one folder, or tars, found {len(paths)} paths. Name one table with all rows.")
    [path] = paths
    if path.is_dir():
        return source_of_folder(path)
    if path.suffix.lower() in TABLES:
        return source_of_table(path, options or {})
    raise UserError(
        f"Expected a table ({', '.join(sorted(TABLES))}), a folder of audio or tars ({', '.join(TARS)}), found "
        f"{f'the file {path}' if path.exists() else f'nothing at {path}'}. Check the path."
    )


def source_of_folder(folder: Path) -> Source:
    """Return all audio below a folder, or the tars in it where no audio lies beside them."""
    files, tars = audio_files(folder), sorted(path for path in folder.iterdir() if is_tar(path))
    if files and tars:
        raise UserError(f"Expected audio or tars, found both in {folder}. Name the tars: '{folder}/*.tar'")
    if not files and not tars:
        raise UserError(f"Expected audio or tars in {folder}, found none. Check the path.")
    return source_of_files("files" if files else "tars", folder, files or tars)


def source_of_files(kind: Literal["files", "tars"], place: Path, files: Sequence[Path]) -> Source:
    """Return a source of files; those of a table are hashed one by one when they are read."""
    twins = len(files) - len({*files})
    if twins:
        raise UserError(f"Expected every file once, found {twins} of them twice. Name each once.")
    digest = hashlib.sha256(kind.encode())
    for file in files:
        try:
            state = file.stat()
        except OSError as problem:
            raise UserError(f"Expected a file at '{file}', found: {problem.strerror}. Check the path.") from None
        digest.update(f"{file.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return Source(kind, place, tuple(file.absolute() for file in files), {}, digest.hexdigest())


def source_of_table(table: Path, options: Mapping[str, Any]) -> Source:
    """Return the rows of a table as the corpus `manifest` reads it, by file."""
    reader = get_reader("manifest")
    given = {"label_required": False, "splits_required": False, **options}
    corpus = reader.read(table, protocol="all_test", fold=None, **given)
    stretches: dict[str, list[Utterance]] = {}
    for row in corpus.splits["test"]:
        stretches.setdefault(row.audio, []).append(row)
    key = hashlib.sha256(f"{table.absolute()} {hash_file(table)} {sorted(options.items())}".encode()).hexdigest()
    files = tuple(Path(path) for path in stretches)
    return Source("table", table, files, {path: tuple(rows) for path, rows in stretches.items()}, key)


def is_tar(path: Path) -> bool:
    """Return whether a path's name is that of a tar."""
    return path.name.lower().endswith(TARS)


_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(word: str) -> list[Path]:
    """Return the paths that a word stands for: `shard-{000..099}.tar`, `shards/*.tar`, or a path.

    >>> [path.name for path in expand("a-{08..10}.tar")]
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    found = _BRACES.search(word)
    if found:
        first, last = int(found[1]), int(found[2])
        if last < first or last - first >= MOST_TARS:
            raise UserError(
                f"Expected {{FIRST..LAST}} with FIRST below LAST, found '{found[0]}' in '{word}'. For instance {{00..99}}."
            )
        numbers = [f"{number:0{len(found[1])}d}" for number in range(first, last + 1)]
        return [path for number in numbers for path in expand(word[: found.start()] + number + word[found.end() :])]
    path = expanded(word)
    if "*" not in word or path.exists():
        return [path]
    wild = next(place for place, part in enumerate(path.parts) if "*" in part)
    matches = sorted(Path(*path.parts[:wild]).glob(str(Path(*path.parts[wild:]))))
    if not matches:
        raise UserError(f"Expected files for '{word}', found none. Check the pattern.")
    return matches
