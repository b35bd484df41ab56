"""Speech Commands v0.01: thirty words spoken by thousands of people, ten of them keywords, and six kinds of noise."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import soundfile

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.speech_commands import Layout, make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo, wav_files

PROTOCOLS = {"v1": 1}
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = (*KEYWORDS, UNKNOWN, SILENCE)
NOISE = "_background_noise_"
TEST_SET = "speech_commands_test_set_v0.01"
LISTS = {"dev": "validation_list.txt", "test": "testing_list.txt"}
_EXPECTED = {"train": 51088, "dev": 6798, "test": 6835, "noise files": 6}
_EXPECTED_TEST_SET = {"clips": 3081}
# of each noise file in time, so that no split has another's: begin, end (percent of the file), seconds of a stretch
_NOISE_PARTS = {"train": (0, 80, 5.0), "dev": (80, 90, 1.0), "test": (90, 100, 1.0)}
_NAME = re.compile(r"(?P<speaker>.+)_nohash_\d+")


def read(root: str | Path, *, protocol: str = "v1", fold: int | None = None) -> Corpus:
    """Return keywords, other words and silence; the official lists split them, and the separate test set is the test split.

    Where that set does not lie beside the folder, test is the testing list with noise of its own.
    """
    check_fold("speech_commands", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_noise, "Speech Commands", f"folders of words and {NOISE}")
    if (folder / "backward").is_dir():
        raise UserError(
            f"Expected the 30 words of Speech Commands v0.01 in {folder}, found 'backward', a word of v0.02. "
            "Fetch http://download.tensorflow.org/data/speech_commands_v0.01.tar.gz: its test set and results are others."
        )
    rows, others = _clips(folder)
    if not rows:
        raise UserError(f"Expected clips such as yes/0a7c2a8d_nohash_0.wav in {folder}, found none. Unpack the archive again.")
    splits = _split(folder, rows)
    found = {split: len(clips) for split, clips in splits.items()}
    noises = wav_files(folder / NOISE)
    for path in noises:
        for split, stretches in _stretches(path).items():
            splits[split] += stretches
    notes: tuple[str, ...] = (f"{others} files passed over: other names",) if others else ()
    real = not is_demo(folder)
    if real:
        notes += compare_counts("Speech Commands v0.01", {**found, "noise files": len(noises)}, _EXPECTED)
    if (folder.parent / TEST_SET).is_dir():
        splits["test"] = _test_set(folder.parent / TEST_SET)
        notes += compare_counts(TEST_SET, {"clips": len(splits["test"])}, _EXPECTED_TEST_SET) if real else ()
    else:
        notes += (
            f"no {TEST_SET} beside {folder.name}: test is the testing list (mostly unknown words) and noise, no published test",
        )
    fixed = {split: tuple(clips) for split, clips in splits.items()}
    return Corpus("speech_commands", protocol, None, fixed, label_order={"keyword": CLASSES}, notes=notes)


def split_of(speaker: str) -> str:
    """Return the split of a speaker as the corpus' README gives it: a hash, so that one never moves as clips are added.

    >>> split_of("0a7c2a8d"), split_of("bb05582b")
    ('train', 'test')
    """
    most = 2**27 - 1
    percent = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % (most + 1) * (100.0 / most)
    return "dev" if percent < 10 else "test" if percent < 20 else "train"


def _has_noise(folder: Path) -> bool:
    return (folder / NOISE).is_dir()


def _clips(folder: Path) -> tuple[list[Utterance], int]:
    """Return the words' clips, and how many files have other names."""
    rows, others = [], 0
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isalpha()):
        for path in wav_files(place):
            name = _NAME.fullmatch(path.stem)
            if name is None:
                others += 1
            else:
                word = place.name
                labels = {"keyword": word if word in KEYWORDS else UNKNOWN, "word": word}
                rows.append(Utterance(f"{word}/{path.stem}", str(path), text=word, speaker=name["speaker"], labels=labels))
    return rows, others


def _split(folder: Path, rows: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Return the clips by split: as the lists say, by the hash of their speakers where there are none."""
    files = {split: folder / name for split, name in LISTS.items()}
    listed: dict[str, str] = {}
    if all(path.is_file() for path in files.values()):
        for split, path in files.items():
            listed |= dict.fromkeys(path.read_text(encoding="utf-8").split(), split)
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for row in rows:
        splits[listed.get(f"{row.id}.wav", "train") if listed else split_of(row.speaker or "")].append(row)
    return splits


def _stretches(path: Path) -> dict[str, list[Utterance]]:
    """Return the stretches of a noise file by split."""
    try:
        seconds = soundfile.info(path).duration
    except (soundfile.LibsndfileError, OSError):  # the check of all audio names what is wrong with it
        return {"train": [Utterance(f"{NOISE}/{path.stem}", str(path), text="", session=path.stem, labels={"keyword": SILENCE})]}
    found: dict[str, list[Utterance]] = {}
    for split, (begin, end, longest) in _NOISE_PARTS.items():
        count = max(1, int((end - begin) * seconds / 100 / longest))
        step = (end - begin) * seconds / 100 / count
        found[split] = [
            Utterance(
                f"{NOISE}/{path.stem}/{split}{number}",
                str(path),
                start=begin * seconds / 100 + number * step,
                duration=min(step, longest),
                text="",
                session=path.stem,
                labels={"keyword": SILENCE},
            )
            for number in range(count)
        ]
    return found


def _test_set(folder: Path) -> list[Utterance]:
    """Return the clips of the separate test set, a folder for each class."""
    rows = []
    for label in CLASSES:
        for path in wav_files(folder / label):
            name = _NAME.fullmatch(path.stem)
            text = {UNKNOWN: None, SILENCE: ""}.get(label, label)
            rows.append(
                Utterance(
                    f"test_set/{label}/{path.stem}",
                    str(path),
                    text=text,
                    speaker=name["speaker"] if name and label != SILENCE else None,
                    session=path.stem,
                    labels={"keyword": label},
                )
            )
    return rows


_LAYOUT = Layout(KEYWORDS, UNKNOWN, SILENCE, NOISE, TEST_SET, LISTS, split_of)
register_corpus(
    Reader(
        name="speech_commands",
        read=read,
        has_layout=_has_noise,
        tasks=("ks",),
        default_for=("ks",),
        protocols=PROTOCOLS,
        # most of dev is unknown words, the test set has as many of each class
        select_by={"ks": "ua"},
        make_demo=partial(make_demo, layout=_LAYOUT),
        description="English, 64,721 clips of one second, 30 words (10 keywords), 6 noises; a test set of 3,081",
        where=(
            "speech_commands_v0.01.tar.gz and speech_commands_test_set_v0.01.tar.gz from "
            "http://download.tensorflow.org/data/ (CC BY 4.0), each in a folder of its name: the folder that holds both"
        ),
    )
)
