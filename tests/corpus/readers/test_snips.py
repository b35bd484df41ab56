"""Audio SNIPS: the official layout, SUPERB's voices, broken lines and the counts of the release."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.readers.snips import VOICES, read

LINES = {
    "Ivy-snips-train-0": "BOS PLAY THE BEATLES EOS\tO O artist artist PlayMusic",
    "Brian-snips-train-0": "BOS NO VOICE OF TRAIN EOS\tO O O O O PlayMusic",
    "Amy-snips-valid-0": "BOS WEATHER EOS\tO O GetWeather",
    "Brian-snips-test-7": "BOS BOOK IN NEW YORK EOS\tO O O city city BookRestaurant",
}


@pytest.fixture
def snips(tmp_path: Path) -> Path:
    """The release with an order or two in each split."""
    folder = tmp_path / "SNIPS"
    for number, name in enumerate(LINES):
        place = folder / name.split("-")[2] / ("Ivy" if number == 0 else "")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{name}.wav", [0.0] * 1600, 16_000)
    (folder / "all.iob.snips.txt").write_text("".join(f"{name} {line}\n" for name, line in LINES.items()))
    (folder / "slots.txt").write_text("O\nartist\ncity\n")
    return folder


@pytest.mark.parametrize("above", [False, True])
def test_the_official_layout_is_read_with_the_voices_of_superb(snips: Path, above: bool) -> None:
    corpus = read(snips.parent if above else snips)
    assert {split: [row.id for row in rows] for split, rows in corpus.splits.items()} == {
        "train": ["Ivy-snips-train-0"],
        "dev": ["Amy-snips-valid-0"],
        "test": ["Brian-snips-test-7"],
    }
    (first,) = corpus.splits["train"]
    assert (first.text, first.speaker, first.labels) == (
        "PLAY THE BEATLES",
        "Ivy",
        {"iob": "O artist artist", "intent": "PlayMusic"},
    )
    assert first.audio == str(snips / "train" / "Ivy" / "Ivy-snips-train-0.wav")
    assert corpus.tables == {"slots": ["artist", "city"]}
    assert sum(map(len, VOICES.values())) == 16


def test_counts_that_are_not_those_of_the_release_are_a_note(snips: Path) -> None:
    assert read(snips).notes == (
        "Audio SNIPS differs from the release: train 1 instead of 104672, dev 1 instead of 2800, test 1 instead of 2800",
    )


def test_files_without_a_line_and_lines_with_too_few_tags_are_counted(snips: Path) -> None:
    path = snips / "all.iob.snips.txt"
    path.write_text(path.read_text().replace("O O artist artist Play", "O O artist Play") + "\n")
    for name in ("Joey-snips-train-1", "Ivy-snips-train-2"):
        soundfile.write(snips / "train" / f"{name}.wav", [0.0] * 1600, 16_000)
    notes = read(snips).notes
    assert notes[:2] == (
        "1 lines of all.iob.snips.txt have not as many tags as words (Ivy-snips-train-0)",
        "3 files without a line in all.iob.snips.txt, left out (Ivy-snips-train-0, Ivy-snips-train-2, Joey-snips-train-1)",
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Ivy-snips-train-0 BOS PLAY EOS O O PlayMusic", r"found 'Ivy-snips-train-0 BOS PLAY EOS O O PlayMusic' in line 2"),
        ("Ivy-snips-train-0\tO", r"found 'Ivy-snips-train-0\tO' in line 2"),
    ],
)
def test_a_broken_line_is_named(snips: Path, line: str, expected: str) -> None:
    path = snips / "all.iob.snips.txt"
    path.write_text(f"{path.read_text().splitlines()[1]}\n{line}\n")
    with pytest.raises(UserError, match=expected):
        read(snips)


def test_a_split_without_files_of_its_voices_is_refused(snips: Path) -> None:
    (snips / "valid" / "Amy-snips-valid-0.wav").unlink()
    with pytest.raises(
        UserError, match=r"files such as Aditi-snips-valid-0\.wav in .*valid, found none of the voices Aditi, Amy"
    ):
        read(snips)


def test_without_a_list_of_slots_there_is_no_table(snips: Path) -> None:
    (snips / "slots.txt").unlink()
    assert read(snips).tables == {}


def test_a_text_that_is_no_utf8_is_refused(snips: Path) -> None:
    (snips / "all.iob.snips.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="Expected lines such as 'Ivy-snips-train-0 BOS play queen EOS', a tab"):
        read(snips)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected all\.iob\.snips\.txt beside folders train, valid and test in"):
        read(tmp_path)
