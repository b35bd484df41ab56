"""Speech Commands: its lists, its hash, silence in three parts, and the separate test set."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.readers import speech_commands
from headwater.corpus.readers.speech_commands import KEYWORDS, LISTS, NOISE, SILENCE, TEST_SET, UNKNOWN, split_of

SPEAKERS = ("0a7c2a8d", "026290a7", "0c40e715")  # train, dev and test in the release


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def hiss(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.01, int(seconds * 4000)), 4000)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "speech_commands_v0.01"
    for word in (*KEYWORDS, "bed", "wow"):
        for speaker in SPEAKERS:
            touch(folder / word / f"{speaker}_nohash_0.wav")
    for name in ("running_tap", "pink_noise"):
        hiss(folder / NOISE / f"{name}.wav", 60)
    return folder


def write_lists(folder: Path) -> None:
    for split, speaker in (("dev", SPEAKERS[1]), ("test", SPEAKERS[2])):
        lines = [f"{path.parent.name}/{path.name}" for path in folder.glob(f"*/{speaker}_nohash_0.wav")]
        (folder / LISTS[split]).write_text("\n".join(lines) + "\n")


def write_test_set(folder: Path) -> None:
    for label in (*KEYWORDS, UNKNOWN):
        touch(folder.parent / TEST_SET / label / "0c40e715_nohash_1.wav")
    touch(folder.parent / TEST_SET / SILENCE / "0.wav")


def silence(corpus: Corpus, split: str) -> list[Utterance]:
    return [row for row in corpus.splits[split] if row.labels["keyword"] == SILENCE]


@pytest.mark.parametrize(
    ("speaker", "split"),
    [("0c40e715", "test"), ("bb05582b", "test"), ("026290a7", "dev"), ("a69b9b3e", "dev"), ("0a7c2a8d", "train")],
)
def test_the_hash_puts_speakers_where_the_release_does(speaker: str, split: str) -> None:
    assert split_of(speaker) == split


def test_without_lists_the_hash_splits_as_they_do(root: Path) -> None:
    hashed = speech_commands.read(root)
    write_lists(root)
    assert speech_commands.read(root).splits == hashed.splits
    assert {split: {row.speaker for row in rows if row.speaker} for split, rows in hashed.splits.items()} == {
        "train": {SPEAKERS[0]},
        "dev": {SPEAKERS[1]},
        "test": {SPEAKERS[2]},
    }


def test_the_lists_stand_above_the_hash(root: Path) -> None:
    write_lists(root)
    (root / LISTS["dev"]).write_text(f"yes/{SPEAKERS[0]}_nohash_0.wav\n")
    dev = speech_commands.read(root).splits["dev"]
    assert [row.id for row in dev if row.speaker] == [f"yes/{SPEAKERS[0]}_nohash_0"]


def test_a_word_that_is_no_keyword_is_unknown_and_keeps_its_name(root: Path) -> None:
    rows = {row.id: row for row in speech_commands.read(root).splits["train"]}
    assert rows["bed/0a7c2a8d_nohash_0"].labels == {"keyword": UNKNOWN, "word": "bed"}
    assert rows["off/0a7c2a8d_nohash_0"].labels["keyword"] == "off"
    assert rows["off/0a7c2a8d_nohash_0"].text == "off"


def test_no_moment_of_a_noise_is_in_two_splits(root: Path) -> None:
    corpus = speech_commands.read(root)
    for name in ("running_tap", "pink_noise"):
        spans = {
            split: [(row.start, row.start + (row.duration or 0)) for row in silence(corpus, split) if row.session == name]
            for split in ("train", "dev", "test")
        }
        assert spans["train"][0][0] == 0
        ordered = [*spans["train"], *spans["dev"], *spans["test"]]
        assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(ordered))
        assert max(end for _, end in spans["train"]) <= 48 + 1e-9
        assert max(end for _, end in spans["test"]) <= 60 + 1e-9
        assert [round(end - start, 6) for start, end in spans["dev"]] == [1.0] * 6


def test_ids_are_unique_over_all_splits(root: Path) -> None:
    write_test_set(root)
    touch(root.parent / TEST_SET / "yes" / f"{SPEAKERS[0]}_nohash_0.wav")
    ids = [row.id for rows in speech_commands.read(root).splits.values() for row in rows]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("named", ["the folder", "the folder above"])
def test_the_separate_test_set_is_the_test_split(root: Path, named: str) -> None:
    write_test_set(root)
    corpus = speech_commands.read(root if named == "the folder" else root.parent)
    assert all(row.id.startswith("test_set/") for row in corpus.splits["test"])
    assert [row.labels["keyword"] for row in corpus.splits["test"]] == [*KEYWORDS, UNKNOWN, SILENCE]
    assert not any("beside" in note for note in corpus.notes)
    assert [(row.text, row.speaker, row.session) for row in corpus.splits["test"]][-2:] == [
        (None, "0c40e715", "0c40e715_nohash_1"),
        ("", None, "0"),
    ]


def test_a_note_says_that_the_separate_test_set_is_missing(root: Path) -> None:
    corpus = speech_commands.read(root)
    assert any(note.startswith(f"no {TEST_SET} beside speech_commands_v0.01: test is the testing list") for note in corpus.notes)
    assert silence(corpus, "test")


def test_counts_that_differ_from_the_release_are_named_except_for_a_demo(root: Path) -> None:
    write_test_set(root)
    notes = speech_commands.read(root).notes
    assert (
        "Speech Commands v0.01 differs from the release: train 12 instead of 51088, dev 12 instead of 6798, "
        "test 12 instead of 6835, noise files 2 instead of 6" in notes
    )
    assert f"{TEST_SET} differs from the release: clips 12 instead of 3081" in notes
    (root.parent / "DEMO").touch()
    assert speech_commands.read(root.parent).notes == ()


def test_other_names_are_counted(root: Path) -> None:
    touch(root / "yes" / "me.wav")
    assert "1 files passed over: other names" in speech_commands.read(root).notes


def test_a_broken_noise_file_is_left_to_the_check_of_all_audio(root: Path) -> None:
    (root / NOISE / "white_noise.wav").write_bytes(b"RIFF")
    rows = [row for rows in speech_commands.read(root).splits.values() for row in rows if row.session == "white_noise"]
    assert [(row.duration, row.labels["keyword"]) for row in rows] == [(None, SILENCE)]


def test_the_second_release_is_refused(root: Path) -> None:
    touch(root / "backward" / "0a7c2a8d_nohash_0.wav")
    with pytest.raises(UserError, match=r"v0\.01 in .*, found 'backward', a word of v0\.02\. Fetch"):
        speech_commands.read(root)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    (tmp_path / NOISE).mkdir()
    with pytest.raises(UserError, match=r"Expected clips such as yes/.*, found none\. Unpack"):
        speech_commands.read(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "song.wav")
    with pytest.raises(UserError, match=r"Expected folders of words and _background_noise_ in .*, found song\.wav"):
        speech_commands.read(tmp_path)
