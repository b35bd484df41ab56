"""LibriSpeech: audio books read aloud, with transcripts in capital letters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.librispeech import make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo

PROTOCOLS = {"clean100": 1}
# split -> the release's folder; the last two are tested where they are there
FOLDERS = {
    "train": "train-clean-100",
    "dev": "dev-clean",
    "test": "test-clean",
    "dev-other": "dev-other",
    "test-other": "test-other",
}
_EXPECTED = {"train-clean-100": 28539, "dev-clean": 2703, "test-clean": 2620, "dev-other": 2864, "test-other": 2939}
_SOURCE = "https://www.openslr.org/12"
LEXICONS = "librispeech-lexicon*.txt"  # beside the splits: the g2p files of s3prl, or that of the release (openslr.org/11)
_NAMED = 3  # files that a note names


def read(root: str | Path, *, protocol: str = "clean100", fold: int | None = None) -> Corpus:
    """Return train-clean-100, dev-clean and test-clean as train, dev and test, and the `other` splits under their own names."""
    check_fold("librispeech", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_splits, "LibriSpeech", "folders such as train-clean-100, dev-clean and test-clean")
    sexes, splits, notes = _read_sexes(folder / "SPEAKERS.TXT"), {}, []
    for split, name in FOLDERS.items():
        if (folder / name).is_dir():
            splits[split], split_notes = _read_split(folder / name, sexes)
            notes += split_notes
        elif split in ("train", "dev", "test"):
            notes.append(f"{name} is not there: no {split} ({_SOURCE})")
    if not is_demo(folder):
        found = {FOLDERS[split]: len(rows) for split, rows in splits.items()}
        notes += compare_counts("LibriSpeech", found, {name: _EXPECTED[name] for name in found})
    lexicons = [str(path) for path in sorted(folder.glob(LEXICONS))]  # 200k before allothers, as s3prl reads them
    tables = {"lexicon": lexicons} if lexicons else {}
    return Corpus("librispeech", protocol, None, splits, notes=tuple(notes), tables=tables)


def _has_splits(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in FOLDERS.values())


def _read_split(folder: Path, sexes: Mapping[str, str]) -> tuple[tuple[Utterance, ...], list[str]]:
    """Return a split's utterances in order of their ids, and notes on files that have no line and lines that have no file."""
    texts = {name: text for path in folder.glob("*/*/*.trans.txt") for name, text in _read_texts(path).items()}
    audio = {path.stem: path for path in folder.glob("*/*/*.flac") if not path.name.startswith(".")}
    if not audio:
        raise UserError(
            f"Expected files such as 84/121123/84-121123-0000.flac in {folder}, found none. Unpack the archive again ({_SOURCE})."
        )
    rows = tuple(_utterance(path, texts.get(name), sexes) for name, path in sorted(audio.items()))
    wrong = {"files without a transcript": audio.keys() - texts.keys(), "transcripts without a file": texts.keys() - audio.keys()}
    return rows, [_note(folder.name, what, sorted(names)) for what, names in wrong.items() if names]


def _note(folder: str, what: str, names: list[str]) -> str:
    return f"{folder}: {len(names)} {what} ({', '.join(names[:_NAMED])}{' …' * (len(names) > _NAMED)})"


def _read_texts(path: Path) -> dict[str, str]:
    """Return a chapter's lines, `84-121123-0000 GO DO YOU HEAR`, by utterance."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"Expected lines of an id and its text in {path}, found: {problem}. Unpack the archive again.") from None
    parts = [line.strip().partition(" ") for line in lines if line.strip()]
    return {name: text.strip() for name, _, text in parts}


def _utterance(path: Path, text: str | None, sexes: Mapping[str, str]) -> Utterance:
    speaker, chapter = path.parent.parent.name, path.parent.name
    labels = {"sex": sexes[speaker]} if speaker in sexes else {}
    return Utterance(path.stem, str(path), text=text, speaker=speaker, session=f"{speaker}-{chapter}", labels=labels)


def _read_sexes(path: Path) -> dict[str, str]:
    """Return F or M by speaker, from `14 | F | train-clean-360 | 25.03 | NAME`, where the table lies beside the splits."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith(";")]
    return {row[0]: row[1] for row in cells if len(row) > 1 and row[1] in ("F", "M")}


register_corpus(
    Reader(
        name="librispeech",
        read=read,
        has_layout=_has_splits,
        tasks=("asr", "pr"),
        protocols=PROTOCOLS,
        default_for=("asr", "pr"),
        make_demo=make_demo,
        description="English audio books, 100 h to train on (251 speakers), dev and test of 5 h each (40 speakers)",
        where=f"train-clean-100.tar.gz, dev-clean.tar.gz, test-clean.tar.gz from {_SOURCE} (CC BY 4.0): the folder LibriSpeech",
    )
)
