"""Fluent Speech Commands: spoken orders to a home, each with an action, an object and a location."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.fluent_speech_commands import make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo
from ..tables import read_table

PROTOCOLS = {"official": 1}
LISTS = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}  # in the folder data
SLOTS = ("action", "object", "location")
_COLUMNS = ("path", "speakerId", "transcription", *SLOTS)
_EXPECTED = {"train": 23132, "dev": 3118, "test": 3793, "speakers": 97}
_SOURCE = "https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research"


def read(root: str | Path, *, protocol: str = "official", fold: int | None = None) -> Corpus:
    """Return the utterances of the three official lists; speakers are in one of them each."""
    check_fold("fluent_speech_commands", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_lists, "Fluent Speech Commands", "folders data (with train_data.csv) and wavs")
    splits = {split: _read_list(folder, folder / "data" / name) for split, name in LISTS.items()}
    rows = [row for split in splits.values() for row in split]
    missing = [row.id for row in rows if not Path(row.audio).is_file()]
    if len(missing) == len(rows):
        raise UserError(f"Expected files such as {missing[0]} in {folder}, found none of {len(rows)}. Unpack the archive again.")
    notes: tuple[str, ...] = ()
    if missing:
        notes += (f"{len(missing)} of the {len(rows)} files of the lists are missing, the first: {missing[0]}",)
    if not is_demo(folder):
        counts = {split: len(found) for split, found in splits.items()} | {"speakers": len({row.speaker for row in rows})}
        notes += compare_counts("Fluent Speech Commands", counts, _EXPECTED)
    gone = {*missing}
    there = {split: tuple(row for row in found if row.id not in gone) for split, found in splits.items()}
    return Corpus("fluent_speech_commands", protocol, None, there, notes=notes)


def _has_lists(folder: Path) -> bool:
    return (folder / "data" / LISTS["train"]).is_file()


def _read_list(folder: Path, path: Path) -> list[Utterance]:
    """Return the utterances of one list."""
    headers, rows = read_table(path)
    lacking = [column for column in _COLUMNS if column not in headers]
    if lacking:
        raise UserError(f"Expected the columns {', '.join(_COLUMNS)} in {path}, found no {lacking[0]}. Fetch it again: {_SOURCE}")
    found = []
    for row in rows:
        cells = {column: str(row.values[column]).strip() for column in _COLUMNS}
        empty = next((column for column in ("path", *SLOTS) if not cells[column]), None)
        if empty:
            raise UserError(
                f"Expected a value in column {empty}, found none in row {row.number} of {path}. Fetch it again: {_SOURCE}"
            )
        found.append(
            Utterance(
                cells["path"].removesuffix(".wav"),
                str(folder / cells["path"]),
                text=cells["transcription"],
                speaker=cells["speakerId"],
                labels={slot: cells[slot] for slot in SLOTS},
            )
        )
    return found


register_corpus(
    Reader(
        name="fluent_speech_commands",
        read=read,
        has_layout=_has_lists,
        tasks=("ic",),
        default_for=("ic",),
        protocols=PROTOCOLS,
        make_demo=make_demo,
        description="English, 30,043 orders of 97 speakers: 6 actions, 14 objects, 4 locations, 31 of their combinations",
        where=f"{_SOURCE} (for research): the folder fluent_speech_commands_dataset with data and wavs",
    )
)
