"""What a user names to predict on, as one list of files in order, and what a prediction for one of them depends on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.files import expanded
from ..corpus.base import Utterance
from ..corpus.locate import AUDIO
from ..corpus.tables import TABLES, Row, likeliest, read_table
from ..corpus.transcription.transcripts import column_of

Item = str | Utterance
Version = list[Any] | None  # what a prediction was computed from; None: there is nothing


def files_of(names: Sequence[str]) -> list[str | Utterance]:
    """Return the files that the names stand for, in the order given; a folder's files in the order of their paths.

    A list with columns start and end (seconds) stands for stretches of files; one with a column text has the transcripts.
    What cannot be read, and a stretch whose seconds are no finite numbers, has its own line in the output.
    """
    return [file for name in names for file in _files_of(name)]


def _files_of(name: str) -> Iterable[str | Utterance]:
    path = expanded(name)
    if os.path.isdir(path):  # asks of a name that is too long, too
        found = sorted(_audio_below(path))
        if not found:
            raise UserError(f"Expected audio files below '{name}', found none ({', '.join(sorted(AUDIO))}). Check the path.")
        return found
    if path.suffix.lower() in TABLES:
        return _listed(path)
    if path.suffix.lower() == ".txt" and os.path.isfile(path):
        return [_beside(path, line.strip()) for line in _text_of(path).split("\n") if line.strip()]
    return [str(path)]  # a file that is missing or broken has its own line in the output


def _audio_below(folder: Path, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a folder's audio files; hidden ones are left out, and a link that leads back up ends there."""
    own = os.path.realpath(folder)
    if own in above:
        return
    try:
        with os.scandir(folder) as entries:
            seen = [(folder / entry.name, os.path.isdir(entry.path)) for entry in entries if not entry.name.startswith(".")]
    except PermissionError:
        raise UserError(
            f"Expected a folder that can be read, found no permission: '{folder}'. Grant it, or name files."
        ) from None
    for path, is_folder in seen:
        if is_folder:
            yield from _audio_below(path, (*above, own))
        elif path.suffix.lower() in AUDIO:
            yield str(path)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as problem:
        raise UserError(f"Expected a list of files, one a line, in '{path}', found: {problem}. Save it as UTF-8 text.") from None


def _listed(path: Path) -> list[str | Utterance]:
    headers, rows = read_table(path)
    header = likeliest("audio", headers)
    if header is None:
        raise UserError(f"Expected a column of audio files in '{path}', found {', '.join(headers)}. Call it 'audio'.")
    missing = next((row.number for row in rows if not str(row.values.get(header) or "").strip()), None)
    if missing is not None:
        raise UserError(f"Expected a file in column '{header}', found none in row {missing} of '{path}'. Fill it in.")
    files = [_beside(path, str(row.values[header]).strip()) for row in rows]
    columns = {"start": likeliest("start", headers), "end": likeliest("end", headers), "text": column_of("text", headers)}
    if not any(columns.values()):
        return [*files]
    return [_stretch(file, row, columns, path) for file, row in zip(files, rows, strict=True)]


def _stretch(file: str, row: Row, columns: Mapping[str, str | None], path: Path) -> Utterance:
    """Return the stretch of a file that a row of a list names, and the transcript in that row."""
    start, end = (_seconds(row, columns[key], path) for key in ("start", "end"))
    if not math.isfinite(start or 0.0) or not math.isfinite(end or 0.0):
        return Utterance(file, file, math.inf)  # read_audio refuses it; NaN would be no key: it is not equal to itself
    if (start or 0.0) < 0 or (end is not None and end <= (start or 0.0)):
        raise UserError(f"Expected 0 <= start < end, found {start} and {end} in row {row.number} of '{path}'. Mend the row.")
    cell = None if columns["text"] is None else row.values.get(columns["text"])  # "" is a header, too
    text = None if cell is None else str(cell).strip()
    if not text and path.suffix.lower() != ".jsonl":  # an empty cell of a csv was not filled in
        text = None
    return Utterance(file, file, start or 0.0, None if end is None else end - (start or 0.0), text)


def _seconds(row: Row, header: str | None, path: Path) -> float | None:
    word = str(row.values.get(header) or "").strip() if header else ""
    try:
        return float(word) if word else None
    except ValueError:
        raise UserError(f"Expected seconds in column '{header}', found '{word}' in row {row.number} of '{path}'.") from None


def _beside(table: Path, name: str) -> str:
    """A relative path is meant from the list's own folder."""
    return str(table.parent / expanded(name))


def key_of(item: Item) -> str:
    """Return what an item is known by: its file, wherever that is named from, and the stretch of it."""
    start, seconds = (item.start, item.duration) if isinstance(item, Utterance) else (0.0, None)
    return json.dumps(
        [place_of(item), float(start), None if seconds is None else float(seconds)]
    )  # ASCII: a name may be no UTF-8


def refuse_two_texts(item: Item, one: Version, other: Version) -> None:
    """Refuse a stretch that is listed twice with other transcripts: a table has one row of each."""
    if one != other:
        begin = item.start if isinstance(item, Utterance) else 0.0
        raise UserError(
            f"Expected one text for each stretch of a file, found two for {audio_of(item)} (from {begin:g} s). "
            "Leave one out, or predict the two without --out."
        )


def audio_of(item: Item) -> str:
    """Return an item's file as it was named."""
    return item.audio if isinstance(item, Utterance) else item


def place_of(item: Item) -> str:
    """Return a file's absolute path; behind a link to a folder `..` is above the folder that the link leads to."""
    name = audio_of(item)
    place = os.path.abspath(name)
    if ".." not in Path(name).parts:
        return place
    folder = os.path.realpath(os.path.dirname(name))
    same = os.path.realpath(os.path.dirname(place)) == folder
    return place if same else os.path.join(folder, os.path.basename(name))


def version_of(item: Item, *, has_audio: bool, has_text: bool) -> Version:
    """Return what a prediction depends on: size and time of the audio, and the transcript; None: there is no audio."""
    name = audio_of(item)
    found: list[Any] = []
    if has_audio:
        state = stat_of(name)
        if state is None:
            return None
        found += state
    if has_text:
        text = item.text if isinstance(item, Utterance) else None
        beside = stat_of(str(Path(os.path.expanduser(name)).with_suffix(".txt"))) if text is None else None
        found.append(beside if text is None else hashlib.sha256(text.encode()).hexdigest()[:16])
    return found


def stat_of(name: str) -> list[int] | None:
    """Return size and time of change of a file, in nanoseconds."""
    try:
        state = os.stat(name)
    except (OSError, ValueError):
        return None
    return [state.st_size, state.st_mtime_ns]
