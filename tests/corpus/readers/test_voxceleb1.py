"""VoxCeleb1: the official list of identification over the layouts that it lies in."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.readers import voxceleb1

LINES = [
    "1 id10001/1zcIwhmdeo4/00001.wav",
    "3 id10001/7gWzIy6yIIk/00001.wav",
    "2 id10001/J9lHsKG98U8/00002.wav",
    "1 id10309/0b1inHMAr6o/00001.wav",
    "2 id10309/0b1inHMAr6p/00001.wav",
    "3 id10309/0b1inHMAr6q/00001.wav",
]
LAYOUTS = {"dev and test": ("dev/wav", "test/wav"), "one folder": ("wav", "wav"), "speakers at once": ("", "")}


def write(root: Path, layout: str = "dev and test", name: str = "iden_split.txt") -> Path:
    for line in LINES:
        place = LAYOUTS[layout][line.startswith("id10309", 2)]
        path = root / place / line[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / name).write_text("\n".join(LINES) + "\n")
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_list_splits_every_layout(layout: str, tmp_path: Path) -> None:
    splits = voxceleb1.read(write(tmp_path / "vox", layout)).splits
    assert {split: [row.id for row in rows] for split, rows in splits.items()} == {
        "train": ["id10001/1zcIwhmdeo4/00001", "id10309/0b1inHMAr6o/00001"],
        "dev": ["id10001/J9lHsKG98U8/00002", "id10309/0b1inHMAr6p/00001"],
        "test": ["id10001/7gWzIy6yIIk/00001", "id10309/0b1inHMAr6q/00001"],
    }
    assert all(Path(row.audio).is_file() for rows in splits.values() for row in rows)


def test_the_list_may_have_s3prls_name_and_the_folder_above_is_accepted(tmp_path: Path) -> None:
    write(tmp_path / "vox", name="veri_test_class.txt")
    assert len(voxceleb1.read(tmp_path).splits["train"]) == 2


def test_an_utterance_knows_its_speaker_and_its_video(tmp_path: Path) -> None:
    row = voxceleb1.read(write(tmp_path)).splits["test"][1]
    assert (row.speaker, row.session, row.labels) == ("id10309", "0b1inHMAr6q", {"speaker": "id10309"})


def test_missing_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "dev" / "wav" / LINES[0][2:]).unlink()
    (root / "test" / "wav" / LINES[5][2:]).unlink()
    corpus = voxceleb1.read(root)
    assert "2 of the 6 files of the list are missing, the first: id10001/1zcIwhmdeo4/00001.wav" in corpus.notes
    assert [len(rows) for rows in corpus.splits.values()] == [1, 2, 1]


def test_counts_that_differ_from_the_official_list_are_named_except_for_a_demo(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert voxceleb1.read(root).notes == (
        "the list of VoxCeleb1 differs from the release: train 2 instead of 138361, dev 2 instead of 6904, "
        "test 2 instead of 8251, speakers 2 instead of 1251",
    )
    (root / "DEMO").touch()
    assert voxceleb1.read(root).notes == ()


def test_a_corpus_without_its_list_is_refused_with_the_lists_address(tmp_path: Path) -> None:
    (write(tmp_path) / "iden_split.txt").unlink()
    with pytest.raises(UserError, match=r"the list iden_split\.txt .* found neither\. Fetch it from https://"):
        voxceleb1.read(tmp_path)


@pytest.mark.parametrize("line", ["4 id10001/1zcIwhmdeo4/00001.wav", "1 A.J._Buckley/1zcIwhmdeo4_0000001.wav", "<html>"])
def test_a_line_that_is_none_is_named(line: str, tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "iden_split.txt").write_text(f"{LINES[0]}\n{line}\n")
    with pytest.raises(UserError) as problem:
        voxceleb1.read(root)
    assert f"found '{line}' in line 2. Fetch it again" in str(problem.value)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (write(tmp_path) / "iden_split.txt").write_text("\n")
    with pytest.raises(UserError, match=r"Expected lines such as .*, found none\. Fetch it"):
        voxceleb1.read(tmp_path)


def test_a_list_of_other_files_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "iden_split.txt").write_text("1 id10777/abc/00001.wav\n1 id10001/abc/00001.wav\n")
    with pytest.raises(UserError, match=r"such as id10777/abc/00001\.wav in dev/wav .* found none of the list's 2\. Unpack"):
        voxceleb1.read(root)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match=r"Expected folders such as dev/wav/id10001 in .*, found holiday"):
        voxceleb1.read(tmp_path)
