"""VoxCeleb1: interviews of 1,251 celebrities, with the official lists for identification and verification."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.voxceleb1 import make_demo
from ..folds import check_fold, compare_counts, in_drawn_order, split_by
from ..locate import find_inside, is_demo

PROTOCOLS = {"iden": 1, "veri": 1}
LISTS = ("iden_split.txt", "veri_test_class.txt")  # the same list by its official and by s3prl's name
TRIALS = {"voxceleb1_test_v2.txt": 37720, "veri_test.txt": 37720, "veri_test2.txt": 37611}  # s3prl's first; the last is cleaned
_SPLITS = {"1": "train", "2": "dev", "3": "test"}
_PARTS = ("dev/wav", "test/wav", "wav", "")  # below the root: folders of speakers
_EXPECTED = {"train": 138361, "dev": 6904, "test": 8251, "speakers": 1251}
_EXPECTED_APART = {"development speakers": 1211, "their files": 148642}
_HELD_OUT = 30  # one in so many development speakers is one of dev: 40 of 1,211, as many as the test has
_META = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/"
_URL, _TRIALS_URL = f"{_META}iden_split.txt", f"{_META}veri_test.txt"


def read(root: str | Path, *, protocol: str = "iden", fold: int | None = None) -> Corpus:
    """Return the utterances of identification (iden) or of verification (veri).

    iden is the official split: the same speakers in train, dev and test, in other videos. veri has the official trials between
    40 speakers as its test, and trains on the others but for a few, drawn once, who are dev.
    """
    check_fold("voxceleb1", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_speakers, "VoxCeleb1", "folders such as dev/wav/id10001")
    places = {place.name: place for part in _PARTS for place in _speakers(folder / part)}
    return {"iden": _identification, "veri": _verification}[protocol](folder, places)


def _identification(folder: Path, places: Mapping[str, Path]) -> Corpus:
    lines = _read_list(folder)
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    missing = []
    for split, name in lines:
        row = _utterance(places, name)
        if row is None:
            missing.append(name)
        else:
            splits[split].append(row)
    notes = _missing(missing, len(lines))
    if not is_demo(folder):
        counts = {split: sum(where == split for where, _ in lines) for split in splits}
        people = {name.split("/")[0] for _, name in lines}
        notes += compare_counts("the list of VoxCeleb1", {**counts, "speakers": len(people)}, _EXPECTED)
    if len(missing) == len(lines):
        raise _none_of(folder, lines[0][1], len(lines))
    return Corpus("voxceleb1", "iden", None, {split: tuple(rows) for split, rows in splits.items()}, notes=notes)


def _verification(folder: Path, places: Mapping[str, Path]) -> Corpus:
    path, trials = _read_trials(folder)
    names = list(dict.fromkeys(name for _, one, other in trials for name in (one, other)))
    found = {name: _utterance(places, name) for name in names}
    test = tuple(row for row in found.values() if row is not None)
    if not test:
        raise _none_of(folder, names[0], len(names))
    tested = {name.split("/")[0] for name in names}
    others = [place for name, place in places.items() if name not in tested]
    rows = [_row(file) for place in others for file in sorted(place.glob("*/*.wav"))]
    speakers = in_drawn_order(str(row.speaker) for row in rows)
    if len(speakers) < _FEWEST:
        raise UserError(
            f"Expected at least {_FEWEST} speakers beside those of {path.name} in {folder}, of whom two are dev, found "
            f"{len(speakers)}. Unpack vox1_dev_wav into dev."
        )
    held_out = {*speakers[: max(2, round(len(speakers) / _HELD_OUT))]}
    splits = split_by(rows, [str(row.speaker) for row in rows], dev=held_out, test=())
    notes = _missing([name for name, row in found.items() if row is None], len(names))
    if not is_demo(folder):
        counts = {"development speakers": len(speakers), "their files": len(rows), "trials": len(trials)}
        notes += compare_counts("VoxCeleb1", counts, {**_EXPECTED_APART, "trials": TRIALS[path.name]})
    notes += (f"dev is {len(held_out)} of the {len(speakers)} development speakers, drawn once: they are not trained on",)
    listed = [(label, one.removesuffix(".wav"), other.removesuffix(".wav")) for label, one, other in trials]
    return Corpus("voxceleb1", "veri", None, {**splits, "test": test}, notes=notes, split_tables={"test": {"trials": listed}})


_FEWEST = 4  # of development speakers: two to train on, two for dev


def _utterance(places: Mapping[str, Path], name: str) -> Utterance | None:
    speaker, video, clip = name.split("/")
    path = places[speaker] / video / clip if speaker in places else None
    return _row(path) if path is not None and path.is_file() else None


def _row(path: Path) -> Utterance:
    speaker, video, clip = path.parts[-3:]
    name = f"{speaker}/{video}/{clip.removesuffix('.wav')}"
    return Utterance(name, str(path), speaker=speaker, session=video, labels={"speaker": speaker})


def _missing(names: Sequence[str], listed: int) -> tuple[str, ...]:
    return (f"{len(names)} of the {listed} files of the list are missing, the first: {names[0]}",) if names else ()


def _none_of(folder: Path, name: str, listed: int) -> UserError:
    return UserError(
        f"Expected files such as {name} in dev/wav or test/wav of {folder}, found none of the list's {listed}. "
        "Unpack vox1_dev_wav into dev and vox1_test_wav.zip into test."
    )


def _has_speakers(folder: Path) -> bool:
    return any(True for part in _PARTS for _ in _speakers(folder / part))


def _speakers(place: Path) -> Iterable[Path]:
    return sorted(path for path in place.glob("id1*") if path.is_dir()) if place.is_dir() else ()


def _read_list(folder: Path) -> list[tuple[str, str]]:
    """Return split and file of each line of the official list."""
    path = _listed(folder, LISTS, _URL)
    rows = _lines(path, "1 id10001/1zcIwhmdeo4/00001.wav", _SPLITS, 1, _URL)
    return [(_SPLITS[split], name) for split, name in rows]


def _read_trials(folder: Path) -> tuple[Path, list[tuple[int, str, str]]]:
    """Return the list of trials, and of each whether it is of one speaker (1), and its two files."""
    path = _listed(folder, [*TRIALS], _TRIALS_URL)
    example = "1 id10270/5r0dWxy17C8/00001.wav id10270/8jEAjG6SegY/00008.wav"
    return path, [(int(label), one, other) for label, one, other in _lines(path, example, ("0", "1"), 2, _TRIALS_URL)]


def _listed(folder: Path, names: Sequence[str], url: str) -> Path:
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        found = "neither" if len(names) == 2 else "none of them"
        raise UserError(
            f"Expected the list {names[0]} (or {' or '.join(names[1:])}) in {folder}, found {found}. Fetch it from {url}"
        )
    return path


def _lines(path: Path, example: str, marks: Collection[str], count: int, url: str) -> list[list[str]]:
    """Return the words of each line: one of the marks, and so many files."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if words[0] not in marks or len(words) != count + 1 or any(name.count("/") != 2 for name in words[1:]):
            raise UserError(
                f"Expected lines such as '{example}' in {path}, found '{line[:80]}' in line {number}. Fetch it again from {url}"
            )
        found.append(words)
    if not found:
        raise UserError(f"Expected lines such as '{example}' in {path}, found none. Fetch it from {url}")
    return found


register_corpus(
    Reader(
        name="voxceleb1",
        read=read,
        has_layout=_has_speakers,
        tasks=("sid", "asv"),
        default_for=("sid", "asv"),
        protocols=PROTOCOLS,
        protocol_of={"asv": "veri"},
        make_demo=partial(make_demo, list_name=LISTS[0], trials_name=next(iter(TRIALS))),
        description="1,251 speakers in interviews, 153,516 utterances of 4 to 145 s; by video (iden), or by speaker (veri)",
        where=f"https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html: folders dev/wav and test/wav, beside them {_URL} for "
        f"sid, {_TRIALS_URL} for asv",
    )
)
