"""Fluent Speech Commands: its official lists, what is missing, and what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.readers import fluent_speech_commands

HEADER = ",path,speakerId,transcription,action,object,location"
LISTS = {
    "train_data.csv": (
        "0,wavs/speakers/2BqVo8kVB2Skwgyb/0a3129c0.wav,2BqVo8kVB2Skwgyb,Change language,change language,none,none",
        '1,wavs/speakers/2BqVo8kVB2Skwgyb/0ee42a80.wav,2BqVo8kVB2Skwgyb,"Resume, please",activate,music,none',
    ),
    "valid_data.csv": ("0,wavs/speakers/2ojo7YRL7Gck83Z3/1b9b7f90.wav,2ojo7YRL7Gck83Z3,Lights on,activate,lights,kitchen",),
    "test_data.csv": ("0,wavs/speakers/4BrX8aDqK2cLZRYl/cbdf5700.wav,4BrX8aDqK2cLZRYl,Heat down,decrease,heat,washroom",),
}


def write(root: Path) -> Path:
    folder = root / "fluent_speech_commands_dataset"
    (folder / "data").mkdir(parents=True)
    for name, lines in LISTS.items():
        (folder / "data" / name).write_text("\n".join([HEADER, *lines]) + "\n")
        for line in lines:
            path = folder / line.split(",")[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def test_the_lists_are_the_splits_and_counts_are_compared_with_the_release(tmp_path: Path) -> None:
    write(tmp_path)
    corpus = fluent_speech_commands.read(tmp_path)  # the folder above is accepted
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {"train": 2, "dev": 1, "test": 1}
    row = corpus.splits["train"][1]
    assert (row.id, row.speaker, row.text) == ("wavs/speakers/2BqVo8kVB2Skwgyb/0ee42a80", "2BqVo8kVB2Skwgyb", "Resume, please")
    assert row.labels == {"action": "activate", "object": "music", "location": "none"}
    assert corpus.notes == (
        "Fluent Speech Commands differs from the release: train 2 instead of 23132, dev 1 instead of 3118, "
        "test 1 instead of 3793, speakers 3 instead of 97",
    )


def test_missing_files_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "wavs/speakers/2BqVo8kVB2Skwgyb/0a3129c0.wav").unlink()
    corpus = fluent_speech_commands.read(folder)
    assert len(corpus.splits["train"]) == 1
    assert corpus.notes[0] == "1 of the 4 files of the lists are missing, the first: wavs/speakers/2BqVo8kVB2Skwgyb/0a3129c0"
    for path in folder.glob("wavs/speakers/*/*.wav"):
        path.unlink()
    with pytest.raises(UserError, match=r"Expected files such as wavs/speakers/.* found none of 4"):
        fluent_speech_commands.read(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("location", "place", "Expected the columns .* found no location"),
        ("activate,music,none", "activate,,none", "Expected a value in column object, found none in row 3"),
    ],
)
def test_a_broken_list_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path) / "data" / "train_data.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        fluent_speech_commands.read(tmp_path)
