"""Tables with one row for each utterance: csv, tsv and jsonl, and what their columns are called."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError, nearest
from ..core.files import NO_FILE, obstacle
from ..core.options import option_text

TABLES = {".csv", ".tsv", ".jsonl"}


# what is needed -> what others call it
SYNONYMS: dict[str, tuple[str, ...]] = {
    "audio": (
        "wav",
        "wav_path",
        "audio_path",
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "audio_file",
        "wav_file",
        "clip",
    ),
    "label": ("emotion", "class", "target", "category", "emo", "emoclass", "label_name", "y", "directed", "is_directed"),
    "speaker": ("spk", "speaker_id", "spk_id", "spkrid", "client_id", "actor", "actor_id", "talker", "subject", "user_id"),
    "session": ("session_id", "dialog", "dialogue_id", "conversation", "recording"),
    "text": ("transcript", "transcription", "sentence", "utterance", "words", "asr_text", "hypothesis", "hyp"),
    "split": ("subset", "partition", "set", "split_set", "fold_name", "usage"),
    "start": ("begin", "start_time", "onset", "from"),
    "end": ("stop", "end_time", "offset", "to"),
    "id": ("utt_id", "utterance_id", "utt", "name", "key"),
    "device": ("device_type", "platform"),
    "lang": ("language", "locale"),
    "arousal": ("emoact", "act", "activation", "aro"),
    "valence": ("emoval", "val"),
    "dominance": ("emodom", "dom"),
}
_SUFFIXES = (".csv", ".tsv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One row, with the number that an editor shows for the line it ends on."""

    number: int
    values: Mapping[str, Any]  # header -> value


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """Return headers and rows; empty lines are passed over."""
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"Expected a table ({', '.join(_SUFFIXES)}), found {path}. Save it in one of these forms.")
    if obstacle(path) == NO_FILE:
        raise UserError(f"Expected a table that can be read at {path}, found {NO_FILE}. Check the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"Expected UTF-8 text in {path}, found byte {error.object[error.start]:#04x}. Save the table as UTF-8."
        ) from None
    except OSError as error:
        raise UserError(f"Expected a table that can be read at {path}, found: {error.strerror}. Check the path.") from error
    headers, rows = _read_jsonl(text, path) if path.suffix.lower() == ".jsonl" else _read_csv(text, path)
    if not rows:
        raise UserError(
            f"Expected a header and at least one row in {path}, found {'a header' if headers else 'nothing'}. Add rows."
        )
    return headers, rows


def _read_csv(text: str, path: Path) -> tuple[list[str], list[Row]]:
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    headers: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not headers:
                headers = [cell.strip() for cell in cells]
                _refuse_repeated(headers, path)
            elif len(cells) != len(headers):
                raise UserError(
                    f"Expected {len(headers)} columns, found {len(cells)} in row {reader.line_num} of {path}. "
                    "Put quotes around text that holds the delimiter."
                )
            else:
                rows.append(Row(reader.line_num, dict(zip(headers, cells, strict=True))))
    except csv.Error as error:
        raise UserError(
            f"Expected {path.suffix[1:]} rows in {path}, found in row {reader.line_num}: {error}. Mend its quotes."
        ) from error
    return headers, rows


def _refuse_repeated(headers: Sequence[str], path: Path) -> None:
    header, count = Counter(headers).most_common(1)[0]
    if count > 1:
        raise UserError(f"Expected every header once, found '{header}' {count} times in {path}. Rename one.")


def _read_jsonl(text: str, path: Path) -> tuple[list[str], list[Row]]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # a text may hold U+2028, which ends lines elsewhere
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of 5,000 digits
            found = getattr(error, "msg", str(error))
            raise UserError(
                f"Expected one json object in each line, found in row {number} of {path}: {found}. Mend it."
            ) from None
        if not isinstance(values, dict):
            raise UserError(
                f"Expected one json object in each line, found {line.strip()[:40]} in row {number} of {path}. Mend it."
            )
        rows.append(Row(number, {key: _whole(value) for key, value in values.items()} if "\\ud" in line.lower() else values))
    return list(dict.fromkeys(key for row in rows for key in row.values)), rows


def _whole(value: Any) -> Any:
    """Return a text with half characters, which json can spell and nothing can write, as the sign for what is none."""
    try:
        if isinstance(value, str):
            value.encode(errors="surrogateescape")  # which is how a file's name that is no UTF-8 is kept
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def resolve_columns(headers: Sequence[str], columns: Mapping[str, str], needed: Sequence[str], path: Path) -> dict[str, str]:
    """Return what is known -> its header: as the user maps it, else a header of that very name."""
    for key, header in columns.items():
        if key not in SYNONYMS:
            raise UserError(
                f"Expected corpus.options.columns.NAME=HEADER, found the name '{key}'.{nearest(key, SYNONYMS)} "
                f"Known: {', '.join(SYNONYMS)}."
            )
        if header not in headers:
            close = nearest(header, headers) or " Name one of these."
            raise UserError(f"Expected a column '{header}' in {path}, found {', '.join(headers)}.{close}")
    names = {key: columns.get(key, key) for key in SYNONYMS if key in columns or key in headers}
    missing = [key for key in needed if key not in names]
    if missing:
        wanted = " and ".join(f"'{key}'" for key in missing)
        free = [header for header in headers if header not in names.values()]
        raise UserError(
            f"Expected columns {wanted} in {path}, found {', '.join(headers)}. "
            f"Say which is which: -o {_suggestion(free, columns, missing)}"
        )
    return names


def _suggestion(free: list[str], columns: Mapping[str, str], missing: Sequence[str]) -> str:
    """Return the option filled in: what is missing first, then what else is likely in this table."""
    chosen = dict(columns)
    for key in (*missing, *(key for key in ("speaker", "split", "text", "device", "lang") if key not in columns)):
        header = likeliest(key, [header for header in free if header not in chosen.values()])
        if header is not None:
            chosen[key] = header
        elif key in missing:
            chosen[key] = "HEADER"
    return columns_option(chosen)


def columns_option(columns: Mapping[str, str]) -> str:
    """Return the option that says which column of a table is which, as it is typed after -o."""
    if len(columns) == 1:
        return next(option_text(f"corpus.options.columns.{key}", header) for key, header in columns.items())
    return option_text("corpus.options.columns", dict(columns))


def column_of(key: str, headers: Sequence[str]) -> str | None:
    """Return the header that is a known column's name or a synonym of it, to the letter: a guess would be somebody's id."""
    plain = _plain(headers)
    return next((plain[word] for word in (key, *SYNONYMS[key]) if word in plain), None)


def _plain(headers: Sequence[str]) -> dict[str, str]:
    return {re.sub(r"[^a-z0-9]+", "_", header.lower()).strip("_"): header for header in headers}


def likeliest(key: str, headers: Sequence[str]) -> str | None:
    """Return the header that most likely stands for a known column.

    >>> likeliest("audio", ["emotion", "WAV-Path"])
    'WAV-Path'
    """
    plain, words = _plain(headers), (key, *SYNONYMS[key])
    named = column_of(key, headers)
    if named is not None:
        return named
    parts = {name: set(name.split("_")) for name in plain}
    for word in words:
        for name, pieces in parts.items():
            if word in pieces:
                return plain[name]
    for word in words:
        close = difflib.get_close_matches(word, plain, n=1, cutoff=0.8)
        if close:
            return plain[close[0]]
    return None
