"""VoxCeleb1: interviews of 1,251 celebrities, with the official lists for identification."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.voxceleb1 import make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo

PROTOCOLS = {"iden": 1}
LISTS = ("iden_split.txt", "veri_test_class.txt")  # the same list by its official and by s3prl's name
_SPLITS = {"1": "train", "2": "dev", "3": "test"}
_PARTS = ("dev/wav", "test/wav", "wav", "")  # below the root: folders of speakers
_EXPECTED = {"train": 138361, "dev": 6904, "test": 8251, "speakers": 1251}
_URL = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt"


def read(root: str | Path, *, protocol: str = "iden", fold: int | None = None) -> Corpus:
    """Return the utterances of the official identification split: the same speakers in all splits, in other videos."""
    check_fold("voxceleb1", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_speakers, "VoxCeleb1", "folders such as dev/wav/id10001")
    lines = _read_list(folder)
    places = {place.name: place for part in _PARTS for place in _speakers(folder / part)}
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    missing = []
    for split, name in lines:
        speaker, video, clip = name.split("/")
        path = places[speaker] / video / clip if speaker in places else None
        if path is None or not path.is_file():
            missing.append(name)
            continue
        row = Utterance(name.removesuffix(".wav"), str(path), speaker=speaker, session=video, labels={"speaker": speaker})
        splits[split].append(row)
    notes: tuple[str, ...] = ()
    if missing:
        notes += (f"{len(missing)} of the {len(lines)} files of the list are missing, the first: {missing[0]}",)
    if not is_demo(folder):
        counts = {split: sum(where == split for where, _ in lines) for split in splits}
        people = {name.split("/")[0] for _, name in lines}
        notes += compare_counts("the list of VoxCeleb1", {**counts, "speakers": len(people)}, _EXPECTED)
    if len(missing) == len(lines):
        raise UserError(
            f"Expected files such as {lines[0][1]} in dev/wav or test/wav of {folder}, found none of the list's {len(lines)}. "
            "Unpack vox1_dev_wav into dev and vox1_test_wav.zip into test."
        )
    return Corpus("voxceleb1", protocol, None, {split: tuple(rows) for split, rows in splits.items()}, notes=notes)


def _has_speakers(folder: Path) -> bool:
    return any(True for part in _PARTS for _ in _speakers(folder / part))


def _speakers(place: Path) -> Iterable[Path]:
    return sorted(path for path in place.glob("id1*") if path.is_dir()) if place.is_dir() else ()


def _read_list(folder: Path) -> list[tuple[str, str]]:
    """Return split and file of each line of the official list."""
    path = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"Expected the list {LISTS[0]} (or {LISTS[1]}) in {folder}, found neither. Fetch it from {_URL}")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        split, _, name = line.strip().partition(" ")
        if not line.strip():
            continue
        if split not in _SPLITS or name.count("/") != 2:
            raise UserError(
                f"Expected lines such as '1 id10001/1zcIwhmdeo4/00001.wav' in {path}, found '{line[:80]}' in line {number}. "
                f"Fetch it again from {_URL}"
            )
        found.append((_SPLITS[split], name))
    if not found:
        raise UserError(f"Expected lines such as '1 id10001/1zcIwhmdeo4/00001.wav' in {path}, found none. Fetch it from {_URL}")
    return found


register_corpus(
    Reader(
        name="voxceleb1",
        read=read,
        has_layout=_has_speakers,
        tasks=("sid",),
        default_for=("sid",),
        protocols=PROTOCOLS,
        make_demo=partial(make_demo, list_name=LISTS[0]),
        description="1,251 speakers in interviews, 153,516 utterances of 4 to 145 s; train, dev and test by video",
        where=f"https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html: folders dev/wav and test/wav, and {_URL} beside them",
    )
)
