"""A folder of recordings with RTTM files: anybody's own data about who speaks when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile

from ...core.errors import UserError
from ...core.files import expanded
from ..base import Corpus, Reader, Utterance, register_corpus
from ..folds import check_fold, deal, in_drawn_order, split_by
from ..rttm import LABEL, Turn, pieces_of, read_rttm

PROTOCOLS = {"auto": 5, "split": 1, "files5": 5}  # auto: the folders train, dev and test where they are there, else files5
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SPLITS = ("train", "dev", "test")


def read(root: str | Path, *, protocol: str = "auto", fold: int | None = None, chunk_seconds: float | None = 60.0) -> Corpus:
    """Return each recording that an RTTM file names, cut into equal pieces where it is longer than `chunk_seconds`."""
    number = check_fold("rttm", PROTOCOLS, protocol, fold)
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(f"Expected a folder with recordings and RTTM files at {folder}, found no folder. Check --data.")
    if chunk_seconds is not None and chunk_seconds < 1:
        raise UserError(f"Expected corpus.options.chunk_seconds of at least 1, found {chunk_seconds:g}. Leave it out: 60.")
    has_splits = all((folder / split).is_dir() for split in ("train", "test"))
    if protocol == "split" and not has_splits:
        raise UserError(
            f"Expected folders train and test in {folder} for protocol split, found none. Use -o corpus.protocol=files5"
        )
    notes: list[str] = []
    if has_splits and protocol != "files5":
        places = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
        splits = {split: read_folder(place, folder, notes) for split, place in places.items()}
        chosen, fold_number = "split", None
        if "dev" not in splits:
            groups = deal(in_drawn_order([row.id for row in splits["train"]]), 5)
            parts = split_by(splits["train"], [row.id for row in splits["train"]], dev=set(groups[0]), test=())
            splits |= {"train": list(parts["train"]), "dev": list(parts["dev"])}
            notes.append(f"no folder dev: dev is {len(parts['dev'])} recordings of train")
    else:
        rows = read_folder(folder, folder, notes)
        if len(rows) < 3:
            raise UserError(f"Expected at least 3 recordings with turns in {folder}, found {len(rows)}. Add some.")
        groups = deal(in_drawn_order([row.id for row in rows]), min(PROTOCOLS["files5"], len(rows)))
        place = number or 1
        if place > len(groups):
            raise UserError(
                f"Expected a fold between 1 and {len(groups)}, since there are {len(rows)} recordings, found {place}."
            )
        parts = split_by(rows, [row.id for row in rows], dev=set(groups[place % len(groups)]), test=set(groups[place - 1]))
        splits, chosen, fold_number = {split: list(parts[split]) for split in SPLITS}, "files5", place
    cut = {split: [piece for row in rows for piece in cut_up(row, chunk_seconds)] for split, rows in splits.items()}
    more = sum(map(len, cut.values())) - sum(map(len, splits.values()))
    if more:
        notes.append(f"recordings of more than {chunk_seconds:g} s are cut into equal pieces, and speakers matched in each")
    return Corpus("rttm", chosen, fold_number, {split: tuple(rows) for split, rows in cut.items()}, notes=tuple(notes))


def cut_up(row: Utterance, longest: float | None) -> Sequence[Utterance]:
    """Return the pieces of a recording; one that cannot be opened stays whole: the check of all audio names what is wrong."""
    if longest is None:
        return [row]
    try:
        return pieces_of(row, soundfile.info(row.audio).duration, longest)
    except (soundfile.LibsndfileError, OSError):
        return [row]


def read_folder(folder: Path, root: Path, notes: list[str]) -> list[Utterance]:
    """Return the recordings of a folder and those below it that its RTTM files name."""
    turns: dict[str, list[Turn]] = {}
    for path in sorted(folder.rglob("*.rttm")):
        # a file without turns, called as a recording, says that nobody speaks in it
        for name, found in (read_rttm(path) or {path.stem: []}).items():
            if name in turns:
                raise UserError(f"Expected each recording in one RTTM file, found '{name}' in {path} and another. Remove one.")
            turns[name] = found
    if not any(turns.values()):
        raise UserError(f"Expected RTTM files (*.rttm) with turns in {folder}, found none. Put them beside the recordings.")
    audio: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")):
        if path.stem in turns and path.stem in audio:
            raise UserError(f"Expected one recording called '{path.stem}' in {folder}, found two. Rename one.")
        audio[path.stem] = path
    rows = [_recording(audio[name], root, found) for name, found in sorted(turns.items()) if name in audio]
    alone = {"recordings without turns": audio.keys() - turns.keys(), "turns without a recording": turns.keys() - audio.keys()}
    note_missing(notes, folder, alone)
    if not rows:
        raise UserError(
            f"Expected a recording called as in the RTTM files, such as {min(turns)}.wav, in {folder}, found none. Rename them."
        )
    return rows


def _recording(path: Path, root: Path, turns: Sequence[Turn]) -> Utterance:
    name = path.relative_to(root).with_suffix("").as_posix()
    return Utterance(name, str(path), session=path.stem, labels={LABEL: list(turns)})


def note_missing(notes: list[str], folder: Path, missing: Mapping[str, set[str]]) -> None:
    """Add a note that counts and names what has no counterpart."""
    for what, names in missing.items():
        if names:
            named = ", ".join(sorted(names)[:3]) + " …" * (len(names) > 3)
            notes.append(f"{folder.name}: {len(names)} {what} ({named})")


register_corpus(
    Reader(
        name="rttm",
        read=read,
        tasks=("sd",),
        protocols=PROTOCOLS,
        description="your own recordings with RTTM files: folders train, dev and test, or folds over the recordings",
        where="put each recording's RTTM file beside it; `headwater corpus mix` makes such a folder of any table with speakers",
    )
)
