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


# verification

SAME = "1 id10270/5r0dWxy17C8/00001.wav id10270/8jEAjG6SegY/00008.wav"
OTHER = "0 id10270/5r0dWxy17C8/00001.wav id10300/x6uYqmx31kE/00001.wav"
TRIED = ("id10270/5r0dWxy17C8/00001", "id10270/8jEAjG6SegY/00008", "id10300/x6uYqmx31kE/00001")


def write_trials(root: Path, *, name: str = "voxceleb1_test_v2.txt", layout: str = "dev and test", speakers: int = 6) -> Path:
    """Write development speakers with two files each, and the files and the list of two trials."""
    others, tried = (root / place for place in LAYOUTS[layout])
    files = [others / f"id{10001 + number}/video/0000{clip}.wav" for number in range(speakers) for clip in (1, 2)]
    for file in [*files, *(tried / f"{name}.wav" for name in TRIED)]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (root / name).write_text(f"{SAME}\n{OTHER}\n")
    return root


@pytest.mark.parametrize("name", voxceleb1.TRIALS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_trials_are_between_speakers_that_are_not_trained_on(layout: str, name: str, tmp_path: Path) -> None:
    corpus = voxceleb1.read(write_trials(tmp_path, name=name, layout=layout), protocol="veri")
    assert tuple(row.id for row in corpus.splits["test"]) == TRIED
    assert corpus.tables_of("test") == {"trials": [(1, TRIED[0], TRIED[1]), (0, TRIED[0], TRIED[2])]}
    voices = {split: {row.speaker for row in rows} for split, rows in corpus.splits.items()}
    assert {split: len(names) for split, names in voices.items()} == {"train": 4, "dev": 2, "test": 2}
    assert not voices["train"] & voices["dev"] | voices["test"] & (voices["train"] | voices["dev"])
    assert corpus.tables_of("dev") == {}


def test_dev_is_drawn_once_and_is_one_development_speaker_in_thirty(tmp_path: Path) -> None:
    corpus = voxceleb1.read(write_trials(tmp_path, speakers=121), protocol="veri")
    assert len({row.speaker for row in corpus.splits["dev"]}) == 4
    assert "dev is 4 of the 121 development speakers, drawn once: they are not trained on" in corpus.notes
    assert voxceleb1.read(tmp_path, protocol="veri").splits == corpus.splits


def test_counts_that_differ_from_the_release_of_the_trials_are_named(tmp_path: Path) -> None:
    root = write_trials(tmp_path)
    assert voxceleb1.read(root, protocol="veri").notes[0] == (
        "VoxCeleb1 differs from the release: development speakers 6 instead of 1211, their files 12 instead of 148642, "
        "trials 2 instead of 37720"
    )
    (root / "DEMO").touch()
    assert len(voxceleb1.read(root, protocol="veri").notes) == 1


def test_a_missing_file_of_a_trial_is_counted(tmp_path: Path) -> None:
    root = write_trials(tmp_path)
    (root / "test/wav" / f"{TRIED[2]}.wav").unlink()
    corpus = voxceleb1.read(root, protocol="veri")
    assert f"1 of the 3 files of the list are missing, the first: {TRIED[2]}.wav" in corpus.notes
    assert len(corpus.splits["test"]) == 2


@pytest.mark.parametrize("line", [f"2{SAME[1:]}", SAME.rsplit(" ", 1)[0], "<html>", f"{SAME} more"])
def test_a_line_that_is_no_trial_is_named(line: str, tmp_path: Path) -> None:
    root = write_trials(tmp_path)
    (root / "voxceleb1_test_v2.txt").write_text(f"{SAME}\n{line}\n")
    with pytest.raises(UserError, match=r"Expected lines such as '1 id10270/.* in line 2\. Fetch it again from https://"):
        voxceleb1.read(root, protocol="veri")


def test_a_corpus_without_trials_is_refused_with_their_address(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list voxceleb1_test_v2\.txt \(or veri_test\.txt or veri_test2\.txt\) .* Fetch it from"):
        voxceleb1.read(write(tmp_path), protocol="veri")


def test_trials_without_others_to_train_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected at least 4 speakers beside those of voxceleb1_test_v2\.txt .*, found 3\."):
        voxceleb1.read(write_trials(tmp_path, speakers=3), protocol="veri")


def test_trials_of_other_files_are_refused(tmp_path: Path) -> None:
    root = write_trials(tmp_path)
    (root / "voxceleb1_test_v2.txt").write_text(SAME.replace("id10270", "id10777"))
    with pytest.raises(UserError, match=r"such as id10777/.* found none of the list's 2\. Unpack"):
        voxceleb1.read(root, protocol="veri")
