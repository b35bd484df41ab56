"""The readers of RAVDESS, CREMA-D and EmoDB on miniatures in their official layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.readers import cremad, emodb, ravdess


def rows(corpus: Corpus) -> dict[str, Utterance]:
    return {row.id: row for split in corpus.splits.values() for row in split}


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def write_ravdess(root: Path) -> Path:
    for actor in range(1, 25):
        for emotion in range(1, 9):
            touch(root / f"Actor_{actor:02d}" / f"03-01-{emotion:02d}-01-02-01-{actor:02d}.wav")
    return root


def write_cremad(root: Path) -> Path:
    for actor in range(1001, 1092):
        touch(root / "AudioWAV" / f"{actor}_DFA_{cremad.EMOTIONS[actor % 6]}_XX.wav")
    return root


def write_emodb(root: Path) -> Path:
    for speaker in emodb.SPEAKERS:
        for letter in emodb.LETTERS:
            touch(root / "wav" / f"{speaker}a01{letter}b.wav")
    return root


READERS: dict[str, tuple[Callable[..., Corpus], Callable[[Path], Path], int]] = {
    "ravdess": (ravdess.read, write_ravdess, 6),
    "cremad": (cremad.read, write_cremad, 5),
    "emodb": (emodb.read, write_emodb, 10),
}


@pytest.mark.parametrize("name", READERS)
def test_folds_are_disjoint_in_speakers_and_test_everyone_once(name: str, tmp_path: Path) -> None:
    read, write, folds = READERS[name]
    root, tested = write(tmp_path / name), []
    for fold in range(1, folds + 1):
        speakers = {split: {row.speaker for row in found} for split, found in read(root, fold=fold).splits.items()}
        assert all(speakers.values())
        assert not speakers["train"] & speakers["dev"]
        assert not speakers["train"] & speakers["test"]
        assert not speakers["dev"] & speakers["test"]
        tested += sorted(speakers["test"])
    assert len(tested) == len(set(tested)) == len({row.speaker for row in rows(read(root)).values()})


@pytest.mark.parametrize("name", READERS)
def test_labels_are_in_the_fixed_order_of_the_corpus(name: str, tmp_path: Path) -> None:
    read, write, _ = READERS[name]
    corpus = read(write(tmp_path / name))
    assert {row.labels["emotion"] for row in rows(corpus).values()} == set(corpus.label_order["emotion"])


@pytest.mark.parametrize("name", READERS)
def test_macos_litter_is_passed_over_and_the_folder_above_accepted(name: str, tmp_path: Path) -> None:
    read, write, _ = READERS[name]
    root = write(tmp_path / "data" / name)
    for path in list(root.rglob("*.wav")):
        touch(path.with_name(f"._{path.name}"))
        touch(tmp_path / "data" / "__MACOSX" / path.relative_to(root).with_name(f"._{path.name}"))
    assert len(rows(read(root.parent))) == len(rows(read(root))) == len([p for p in root.rglob("*.wav") if p.name[0] != "."])
    assert not any("passed over" in note for note in read(root).notes)


@pytest.mark.parametrize("name", READERS)
def test_counts_that_differ_from_the_release_are_named_except_for_a_demo(name: str, tmp_path: Path) -> None:
    read, write, _ = READERS[name]
    root = write(tmp_path / name)
    assert any("differs from the release" in note for note in read(root).notes)
    (root / "DEMO").touch()
    assert read(root).notes == ()


@pytest.mark.parametrize("name", READERS)
def test_a_folder_of_something_else_is_refused_with_what_was_expected(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "holiday" / "song.wav")
    with pytest.raises(UserError, match=r"Expected (a folder|files).* found") as problem:
        READERS[name][0](tmp_path / "holiday")
    assert "--data" in str(problem.value)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found nothing"):
        READERS[name][0](tmp_path / "nowhere")


def test_ravdess_leaves_song_and_video_out_and_counts_them(tmp_path: Path) -> None:
    root = write_ravdess(tmp_path)
    touch(root / "Actor_01" / "03-02-03-01-01-01-01.wav")
    touch(root / "Actor_01" / "01-01-03-01-01-01-01.wav")
    corpus = ravdess.read(root)
    assert len(rows(corpus)) == 24 * 8
    assert "2 files passed over: song or video" in corpus.notes


def test_ravdess_reads_each_file_once_where_an_archive_holds_it_twice(tmp_path: Path) -> None:
    write_ravdess(tmp_path)
    write_ravdess(tmp_path / "audio_speech_actors_01-24")
    corpus = ravdess.read(tmp_path)
    assert len(rows(corpus)) == 24 * 8
    assert "192 files passed over: second copies" in corpus.notes


def test_ravdess_may_lie_flat(tmp_path: Path) -> None:
    for path in write_ravdess(tmp_path / "folders").rglob("*.wav"):
        touch(tmp_path / "flat" / path.name)
    assert rows(ravdess.read(tmp_path / "flat")).keys() == rows(ravdess.read(tmp_path / "folders")).keys()


def test_ravdess_knows_text_sex_and_emotion_from_the_name(tmp_path: Path) -> None:
    row = rows(ravdess.read(write_ravdess(tmp_path)))["03-01-05-01-02-01-12"]
    assert (row.speaker, row.text) == ("12", "Dogs are sitting by the door")
    assert (row.labels["emotion"], row.labels["sex"], row.labels["intensity"]) == ("angry", "F", "normal")


def test_ravdess_has_both_sexes_in_every_fold() -> None:
    assert all({int(actor) % 2 for actor in fold} == {0, 1} for fold in ravdess.FOLDS["actor6"])


def test_ravdess_of_songs_only_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "Actor_01" / "03-02-03-01-01-01-01.wav")
    with pytest.raises(UserError, match="Audio_Speech_Actors"):
        ravdess.read(tmp_path)


def test_cremad_leaves_its_silent_file_out_and_says_so(tmp_path: Path) -> None:
    root = write_cremad(tmp_path)
    touch(root / "AudioWAV" / "1076_MTI_SAD_XX.wav")
    corpus = cremad.read(root)
    assert "1076_MTI_SAD_XX" not in rows(corpus)
    assert any("silent" in note for note in corpus.notes)


def test_cremad_reads_text_and_the_table_of_actors(tmp_path: Path) -> None:
    root = write_cremad(tmp_path)
    (root / "VideoDemographics.csv").write_text("ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n")
    row = rows(cremad.read(root))[f"1001_DFA_{cremad.EMOTIONS[1001 % 6]}_XX"]
    assert (row.text, row.labels["sex"], row.speaker) == ("Don't forget a jacket", "M", "1001")


def test_cremad_without_its_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "AudioWAV").mkdir()
    with pytest.raises(UserError, match="git lfs"):
        cremad.read(tmp_path)


def test_emodb_may_be_the_folder_wav_itself(tmp_path: Path) -> None:
    root = write_emodb(tmp_path)
    assert rows(emodb.read(root / "wav")).keys() == rows(emodb.read(root)).keys()


def test_emodb_knows_speaker_text_and_emotion_from_the_name(tmp_path: Path) -> None:
    row = rows(emodb.read(write_emodb(tmp_path)))["09a01Tb"]
    assert (row.speaker, row.text) == ("09", "Der Lappen liegt auf dem Eisschrank.")
    assert (row.labels["emotion"], row.labels["sex"], row.labels["age"]) == ("sadness", "F", 21)


def test_emodb_trains_on_eight_speakers(tmp_path: Path) -> None:
    splits = emodb.read(write_emodb(tmp_path), fold=10).splits
    assert {row.speaker for row in splits["test"]} == {"16"}
    assert {row.speaker for row in splits["dev"]} == {"03"}
    assert len({row.speaker for row in splits["train"]}) == 8


def test_emoboxs_folds_of_ravdess_hold_every_actor_once() -> None:
    folds = ravdess.FOLDS["emobox"]
    assert sorted(actor for fold in folds for actor in fold) == [f"{actor:02d}" for actor in range(1, 25)]
    assert folds[1] == ("04", "10", "12", "14")  # four women: not what our own folds are made by
