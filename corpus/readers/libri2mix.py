"""Libri2Mix for diarization: mixtures of two readers in Kaldi's folders, as SUPERB's scripts make them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.libri2mix import make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo
from ..rttm import LABEL, Turn, pieces_of, read_rttm

PROTOCOLS = {"superb": 1}
_EXPECTED = {"train": 13900, "dev": 3000, "test": 3000}
_SCRIPTS = "https://github.com/s3prl/LibriMix (generate_librimix_sd.sh, then scripts/prepare_diarization.py)"
_FILES = ("wav.scp", "rttm")  # or segments and utt2spk in place of rttm


def read(root: str | Path, *, protocol: str = "superb", fold: int | None = None, chunk_seconds: float = 40.0) -> Corpus:
    """Return the recordings of train, dev and test; those of more than `chunk_seconds` in equal pieces (s3prl: 2,000 frames)."""
    check_fold("libri2mix", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_splits, "Libri2Mix", "folders train, dev and test with wav.scp and rttm")
    splits = {split: _read_split(folder / split, chunk_seconds) for split in _EXPECTED if (folder / split).is_dir()}
    notes: tuple[str, ...] = ()
    if not is_demo(folder):
        whole = {split: len({row.session for row in rows}) for split, rows in splits.items()}
        notes = compare_counts("Libri2Mix", whole, _EXPECTED)
    return Corpus("libri2mix", protocol, None, splits, notes=notes)


def _has_splits(folder: Path) -> bool:
    return all((folder / split / "wav.scp").is_file() for split in ("train", "test"))


def _read_split(folder: Path, longest: float) -> tuple[Utterance, ...]:
    """Return the recordings of a Kaldi folder."""
    audio = _pairs(folder / "wav.scp")
    turns = read_rttm(folder / "rttm") if (folder / "rttm").is_file() else _of_segments(folder)
    seconds = {name: float(word) for name, word in _pairs(folder / "reco2dur").items()} if (folder / "reco2dur").is_file() else {}
    rows: list[Utterance] = []
    for name, place in audio.items():
        path = Path(place) if Path(place).is_absolute() else folder / place
        if not path.is_file():
            raise UserError(f"Expected the recording {path} of {folder / 'wav.scp'}, found nothing there. Mend its paths.")
        row = Utterance(name, str(path), session=name, labels={LABEL: turns.get(name, [])})
        rows += pieces_of(row, seconds.get(name) or max((turn[2] for turn in turns.get(name, [])), default=1.0), longest)
    return tuple(rows)


def _pairs(path: Path) -> dict[str, str]:
    """Return the second word of each line by its first."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"Expected lines of two words in {path}, found: {problem}. Make it again: {_SCRIPTS}") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        cells = line.split(maxsplit=1)
        if line.strip() and len(cells) != 2:
            raise UserError(
                f"Expected a name and a value in line {number} of {path}, found '{line[:80]}'. Make it again: {_SCRIPTS}"
            )
        if cells:
            found[cells[0]] = cells[1].strip()
    return found


def _of_segments(folder: Path) -> dict[str, list[Turn]]:
    """Return turns from segments and utt2spk, where there is no RTTM file."""
    speakers: Mapping[str, str] = _pairs(folder / "utt2spk")
    found: dict[str, list[Turn]] = {}
    for name, rest in _pairs(folder / "segments").items():
        cells = rest.split()
        try:
            recording, start, end = cells[0], float(cells[1]), float(cells[2])
            found.setdefault(recording, []).append((speakers[name], start, end))
        except (IndexError, ValueError, KeyError):
            raise UserError(
                f"Expected 'utterance recording start end' of a known speaker in {folder / 'segments'}, found "
                f"'{name} {rest[:60]}'. Make it again: {_SCRIPTS}"
            ) from None
    return found


register_corpus(
    Reader(
        name="libri2mix",
        read=read,
        has_layout=_has_splits,
        tasks=("sd",),
        default_for=("sd",),
        protocols=PROTOCOLS,
        make_demo=make_demo,
        description="English, mixtures of two readers: 13,900 to train on, 3,000 each for dev and test",
        where=f"{_SCRIPTS}, from Libri2Mix/wav16k/max: the folder with train, dev and test",
    )
)
