"""Transcripts from a table or a recogniser, and what a run does where there is none."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...core.errors import UserError
from ...core.locks import take
from ..base import Corpus, Utterance
from ..tables import SYNONYMS, read_table

MissingText = Literal["refuse", "drop", "empty"]


class TranscriptCache:
    """Texts by key, a line of json each, appended as they come: any number of processes may write, and any may be killed."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, about
        self.read_to = 0  # bytes

    def read(self) -> dict[str, str]:
        """Return what was added since the last call, at first everything; a line that a kill cut short is passed over."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.read_to)
                block = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise UserError(
                f"Expected transcripts that can be read in {self.path}, found: {error.strerror}. Mend it, or remove it."
            ) from error
        block = block[: block.rfind(b"\n") + 1]  # a line in the making is read when it is whole
        self.read_to += len(block)
        rows = [row for line in block.split(b"\n") if (row := _parsed(line))]
        return {row["key"]: row["text"] for row in rows if isinstance(row.get("key"), str) and isinstance(row.get("text"), str)}

    def keep(self, texts: Mapping[str, str]) -> None:
        """Add texts; after this they are safe."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            take(file, wait=True)
            size = file.seek(0, os.SEEK_END)
            rows: list[Mapping[str, Any]] = [{"key": key, "text": text} for key, text in texts.items()]
            block = "".join(
                f"{json.dumps(row, ensure_ascii=False)}\n" for row in (rows if size else [{"about": self.about}, *rows])
            )
            if size:
                file.seek(-1, os.SEEK_END)
                block = block if file.read() == b"\n" else f"\n{block}"  # a writer was killed in the middle of its line
            file.write(block.encode())


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return row if isinstance(row, dict) else {}


def column_of(key: str, headers: Sequence[str]) -> str | None:
    """Return the header that is a known column's name or a synonym of it, to the letter: a guess would be somebody's id."""
    plain = {re.sub(r"[^a-z0-9]+", "_", header.lower()).strip("_"): header for header in headers}
    return next((plain[word] for word in (key, *SYNONYMS[key]) if word in plain), None)


def texts_of_table(path: Path, utterances: Sequence[Utterance]) -> dict[str, str]:
    """Return utterance id -> text from a table's columns id (or audio) and text; an empty cell means silence."""
    headers, rows = read_table(path)
    text = column_of("text", headers)
    key = "id" if column_of("id", headers) else "audio"
    owner_of = _by_id(utterances) if key == "id" else _by_audio(utterances, path.parent)
    named = column_of(key, headers)
    if text is None or named is None:
        raise UserError(
            f"Expected the columns id (or audio) and text in {path}, found {', '.join(headers)}. Rename the two that are meant."
        )
    texts: dict[str, str] = {}
    for row in rows:
        cell, name = row.values.get(text), str(row.values.get(named) or "").strip()
        utterance = owner_of(name)
        if utterance is None or cell is None:
            continue
        transcript = str(cell).strip()
        if texts.setdefault(utterance, transcript) != transcript:
            raise UserError(
                f"Expected one text for '{name}', found another one in row {row.number} of {path}. Remove one of the rows."
            )
    return texts


def _by_id(utterances: Sequence[Utterance]) -> Callable[[str], str | None]:
    return {utterance.id: utterance.id for utterance in utterances}.get


def _by_audio(utterances: Sequence[Utterance], folder: Path) -> Callable[[str], str | None]:
    """Return what finds the utterance of a path, file name or stem; one that several share finds none."""
    names = [(name, row.id) for row in utterances for name in {os.path.abspath(row.audio), *_short_names(row.audio)}]
    shared = Counter(name for name, _ in names)
    owner = {name: utterance for name, utterance in names if shared[name] == 1}
    return lambda name: owner.get(os.path.abspath(folder / name)) or owner.get(Path(name).name)


def _short_names(audio: str) -> tuple[str, str]:
    return Path(audio).name, Path(audio).stem


def with_texts(
    corpus: Corpus, texts: Mapping[str, str], *, source: str, make: str, audible: Collection[str] | None = None
) -> Corpus:
    """Return a corpus that says what `texts` (by utterance id) says, and a note that counts those without speech.

    Where nobody has one, an error says how to `make` them; an utterance without keeps none, and is reported. What is not
    `audible` nobody can transcribe.
    """
    rows = [utterance for split in corpus.splits.values() for utterance in split]
    expected = [row for row in rows if audible is None or row.id in audible]
    missing = [row.id for row in expected if row.id not in texts]
    if expected and len(missing) == len(expected):
        raise UserError(
            f"Expected texts of the {len(expected)} utterances of {corpus.name} in {source}, found none (the first that lacks "
            f"one: {missing[0]}). {make}"
        )
    silent = sum(1 for row in expected if texts.get(row.id) == "")
    notes: tuple[str, ...] = (
        f"transcripts are those of {source}" + (f", {silent} of {len(expected)} of them empty" if silent else ""),
    )
    if missing:  # what becomes of them is reported where texts are needed
        notes += (f"{len(missing)} of {len(expected)} utterances have no text in {source} (the first: {missing[0]}). {make}",)
    if len(expected) < len(rows):
        notes += (f"{len(rows) - len(expected)} utterances with broken audio have no transcript",)
    splits = {name: tuple(replace(row, text=texts.get(row.id)) for row in split) for name, split in corpus.splits.items()}
    return replace(corpus, splits=splits, notes=(*corpus.notes, *notes))


def require_texts(
    splits: Mapping[str, Sequence[Utterance]], missing: MissingText = "refuse", does: str = "reads"
) -> tuple[dict[str, tuple[Utterance, ...]], str]:
    """Return the splits of a run that reads, every utterance with a text, and a note on what was done to those without.

    `does` says what else the run does with text.
    """
    lacking = {name: [row.id for row in rows if row.text is None] for name, rows in splits.items()}
    counts = ", ".join(f"{len(ids)} of {len(splits[name])} in {name}" for name, ids in lacking.items() if ids)
    if not counts:
        return {name: tuple(rows) for name, rows in splits.items()}, ""
    if missing == "refuse":
        first = next(ids[0] for ids in lacking.values() if ids)
        raise UserError(
            f"Expected a transcript of every utterance, since the run {does} text, found none for {counts} (the first: {first}). "
            "Fill a column 'text' or let `headwater corpus transcribe` write them and add --transcripts; "
            "leave these utterances out with -o corpus.missing_text=drop; or read them as empty text with "
            "-o corpus.missing_text=empty."
        )
    if missing == "drop":
        kept = {name: tuple(row for row in rows if row.text is not None) for name, rows in splits.items()}
        return kept, f"left out for want of a transcript: {counts}"
    filled = {name: tuple(replace(row, text="") if row.text is None else row for row in rows) for name, rows in splits.items()}
    return filled, f"read as empty for want of a transcript: {counts}"
