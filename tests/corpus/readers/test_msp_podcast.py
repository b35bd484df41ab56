"""MSP-Podcast's reader on small releases that differ as the real ones do, and its miniature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.audio import check_files, read_audio
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.demo.make import demo_root
from headwater.corpus.demo.msp_podcast import _CENTRES, _feel
from headwater.corpus.demo.texts.talk import TOPICS, graded_sentence
from headwater.corpus.load import get_reader
from headwater.corpus.readers import msp_podcast
from headwater.downstream.labels import LabelsConfig, classes_of

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
ROWS = (
    "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1",
    "MSP-PODCAST_0002_0001.wav,H,5.2,6.0,4.6,Spkr_7,Female,Train",
    "MSP-PODCAST_0002_0004_01.wav,X,4.0,3.0,4.0,unknown,Unknown,Train",
    "MSP-PODCAST_0003_0002.wav,A,6.4,1.8,6.0,12,Female,Development",
    "MSP-PODCAST_0004_0009.wav,C,3.0,2.0,5.0,13,Male,Test2",
)


def write_release(
    root: Path,
    rows: Sequence[str] = ROWS,
    *,
    header: str = HEADER,
    audio: str = "Audios",
    labels: str = "Labels",
    table: str = "labels_consensus.csv",
    transcripts: str = "Transcripts",
) -> Path:
    for folder in (audio, labels, transcripts):
        (root / folder).mkdir(parents=True)
    (root / labels / table).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    for row in rows:
        name = row[row.index("MSP-") : row.index(".wav") + 4]
        (root / audio / name).touch()
        (root / transcripts / name.replace(".wav", ".txt")).write_text(f"said in {name}\n", encoding="utf-8")
    return root


def rows(corpus: Corpus) -> dict[str, Utterance]:
    return {row.id: row for split in corpus.splits.values() for row in split}


def sizes(corpus: Corpus) -> dict[str, int]:
    return {name: len(split) for name, split in corpus.splits.items()}


def failure(root: Path) -> str:
    with pytest.raises(UserError) as problem:
        msp_podcast.read(root)
    message = str(problem.value)
    assert "\n" not in message
    return message


def test_each_row_is_an_utterance_of_its_partition(tmp_path: Path) -> None:
    corpus = msp_podcast.read(write_release(tmp_path))
    assert sizes(corpus) == {"train": 2, "dev": 1, "test1": 1, "test2": 1}
    row = rows(corpus)["MSP-PODCAST_0001_0008"]
    assert row.labels == {"emotion": "neutral", "arousal": 2.2, "valence": 4.0, "dominance": 2.6, "gender": "Male"}
    assert (row.speaker, row.session, row.text) == ("30", "0001", "said in MSP-PODCAST_0001_0008.wav")
    assert (corpus.scale, corpus.protocol, corpus.fold) == ((1.0, 7.0), "official", None)
    assert all(Path(row.audio).is_file() for row in rows(corpus).values())


def test_columns_are_known_by_name_in_any_order(tmp_path: Path) -> None:
    header = "Split_Set,EmoDom,EmoVal,EmoAct,FileName,EmoClass"
    root = write_release(tmp_path, ("Train,2.6,4.0,2.2,MSP-PODCAST_0001_0008.wav,S",), header=header)
    row = rows(msp_podcast.read(root))["MSP-PODCAST_0001_0008"]
    assert row.labels == {"emotion": "sad", "arousal": 2.2, "valence": 4.0, "dominance": 2.6}
    assert row.speaker is None


@pytest.mark.parametrize("table", ["labels_consensus.csv", "labels_concensus.csv"])
def test_the_table_is_found_under_both_spellings(tmp_path: Path, table: str) -> None:
    assert sizes(msp_podcast.read(write_release(tmp_path, table=table)))["train"] == 2


@pytest.mark.parametrize(
    "names",
    [
        {"audio": "Audio"},
        {"labels": "label"},
        {"labels": "labels"},
        {"audio": "audio", "labels": "Label"},
        {"transcripts": "Transcription"},
    ],
)
def test_folders_are_found_under_the_names_they_had(tmp_path: Path, names: dict[str, str]) -> None:
    corpus = msp_podcast.read(write_release(tmp_path, **names))
    assert len(rows(corpus)) == len(ROWS)
    assert all(Path(row.audio).is_file() and row.text for row in rows(corpus).values())


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Validation", "dev"),
        ("Development", "dev"),
        ("development", "dev"),
        ("Test", "test1"),
        ("Test1", "test1"),
        ("Test2", "test2"),
        ("Test3", "test3"),
        ("Train", "train"),
    ],
)
def test_partition_words_of_every_release_are_understood(tmp_path: Path, word: str, split: str) -> None:
    root = write_release(tmp_path, (f"MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,{word}",))
    corpus = msp_podcast.read(root)
    assert sizes(corpus) == {split: 1}
    assert corpus.notes == ()


def test_an_unknown_partition_is_read_and_named(tmp_path: Path) -> None:
    root = write_release(tmp_path, (*ROWS, "MSP-PODCAST_0009_0001.wav,N,2.2,4.0,2.6,30,Male,Test4"))
    corpus = msp_podcast.read(root)
    assert [row.id for row in corpus.splits["test4"]] == ["MSP-PODCAST_0009_0001"]
    assert "partition 'Test4' is none that is known" in corpus.notes[0]
    assert "read as split 'test4', 1 files" in corpus.notes[0]


def test_partitions_come_from_their_own_file_where_the_table_has_none(tmp_path: Path) -> None:
    bare = [row.rpartition(",")[0] for row in ROWS]
    root = write_release(tmp_path, bare, header=HEADER.rpartition(",")[0])
    assert "found none for 5, MSP-PODCAST_0001_0008.wav first" in failure(root)
    lines = [f"{row.rpartition(',')[2]}; {row.partition(',')[0]}" for row in ROWS]
    (root / "Partitions.txt").write_text("\n\n".join(lines) + "\n")
    assert sizes(msp_podcast.read(root)) == {"train": 2, "dev": 1, "test1": 1, "test2": 1}


def test_where_table_and_list_differ_the_table_counts_and_a_note_says_so(tmp_path: Path) -> None:
    root = write_release(tmp_path)
    (root / "Partition.txt").write_text("Train; MSP-PODCAST_0001_0008.wav\n")
    corpus = msp_podcast.read(root)
    assert sizes(corpus)["test1"] == 1
    assert "Split_Set and Partition.txt differ in 1 files" in corpus.notes[0]


def test_what_is_hidden_is_read_without_labels(tmp_path: Path) -> None:
    """Test3 is in the list of partitions and on the disk only, or in the table with empty cells."""
    root = write_release(tmp_path, (*ROWS, "MSP-PODCAST_0050_0001.wav,,,nan,,Unknown,Unknown,Test3"))
    (root / "Partitions.txt").write_text("Test3; MSP-PODCAST_0051_0001.wav\nTest3; MSP-PODCAST_0052_0001.wav\n")
    (root / "Audios" / "MSP-PODCAST_0051_0001.wav").touch()
    corpus = msp_podcast.read(root)
    assert {row.id[-9:]: (row.labels, row.speaker, row.text is None) for row in corpus.splits["test3"]} == {
        "0050_0001": ({}, None, False),
        "0051_0001": ({}, None, True),
    }
    assert "no ratings: 2 of 7 utterances (test3 2)" in corpus.notes
    assert any("1 files of the list of partitions are neither in the table nor on the disk" in note for note in corpus.notes)


def test_unknown_speakers_are_nobody_and_the_others_words(tmp_path: Path) -> None:
    corpus = msp_podcast.read(write_release(tmp_path))
    assert {row.id[12:]: row.speaker for row in rows(corpus).values()} == {
        "0001_0008": "30",
        "0002_0001": "Spkr_7",
        "0002_0004_01": None,
        "0003_0002": "12",
        "0004_0009": "13",
    }
    assert "speaker not known: 1 of 5 utterances (train 1)" in corpus.notes


def test_missing_transcripts_are_normal_and_counted(tmp_path: Path) -> None:
    root = write_release(tmp_path)
    home = root / "Transcripts"
    (home / "MSP-PODCAST_0001_0008.txt").unlink()
    (home / "MSP-PODCAST_0003_0002.txt").write_text("\n")
    (home / "part1").mkdir()
    (home / "MSP-PODCAST_0002_0001.txt").rename(home / "part1" / "MSP-PODCAST_0002_0001.txt")
    (home / "ForceAligned").mkdir()
    (home / "ForceAligned" / "MSP-PODCAST_0001_0008.txt").write_text("0.0 0.3 said")
    corpus = msp_podcast.read(root)
    texts = {row.id[12:]: row.text for row in rows(corpus).values()}
    assert (texts["0001_0008"], texts["0003_0002"]) == (None, "")
    assert texts["0002_0001"] == "said in MSP-PODCAST_0002_0001.wav"
    assert "no transcript: 1 of 5 utterances (test1 1)" in corpus.notes


def test_a_release_without_transcripts_is_read(tmp_path: Path) -> None:
    root = write_release(tmp_path)
    (root / "Transcripts").rename(root / "elsewhere")
    assert all(row.text is None for row in rows(msp_podcast.read(root)).values())


def test_a_stereo_file_of_44100_hertz_is_read_as_any_other(tmp_path: Path) -> None:
    root = write_release(tmp_path)
    samples = np.stack([np.sin(np.arange(44_100) / 20), np.zeros(44_100)], axis=1)
    soundfile.write(root / "Audios" / "MSP-PODCAST_0001_0008.wav", 0.5 * samples, 44_100)
    row = msp_podcast.read(root).splits["test1"][0]
    assert check_files([row]) == ({row.id: 1.0}, [])
    assert read_audio(row.audio).shape == (16_000,)


def test_eight_of_ten_classes_are_usual_and_the_others_stay_rated(tmp_path: Path) -> None:
    corpus = msp_podcast.read(write_release(tmp_path))
    assert len(corpus.label_order["emotion"]) == 10
    assert classes_of(corpus, "emotion", LabelsConfig()).names == msp_podcast.EIGHT_CLASSES
    undecided = rows(corpus)["MSP-PODCAST_0002_0004_01"]
    assert (undecided.labels["emotion"], undecided.labels["arousal"], undecided.session) == ("no_agreement", 4.0, "0002")


def test_audio_that_belongs_to_nothing_is_counted(tmp_path: Path) -> None:
    root = write_release(tmp_path)
    (root / "Audios" / "MSP-PODCAST_0099_0001.wav").touch()
    (root / "Audios" / "._MSP-PODCAST_0098_0001.wav").touch()
    assert "1 audio files belong to no partition: passed over" in msp_podcast.read(root).notes


@pytest.mark.parametrize(
    ("moved", "words"),
    [(0, "counts of release toy"), (1, "MSP-Podcast toy differs from the release: train 2 instead of 3, test2 1 instead of 0")],
)
def test_totals_that_identify_a_release_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int, words: str
) -> None:
    counts = {"train": 2 + moved, "dev": 1, "test1": 1, "test2": 1 - moved, "test3": 9}
    monkeypatch.setattr(msp_podcast, "_RELEASES", {"toy": counts})
    assert words in msp_podcast.read(write_release(tmp_path)).notes


@pytest.mark.parametrize("word", ["0.9", "7.2", "five", "inf"])
def test_a_rating_off_the_scale_is_named_with_row_and_file(tmp_path: Path, word: str) -> None:
    root = write_release(tmp_path, (ROWS[0], f"MSP-PODCAST_0002_0001.wav,H,5.2,{word},4.6,7,Female,Train"))
    message = failure(root)
    assert f"Expected EmoVal between 1 and 7, found '{word}' in row 3 of {root / 'Labels' / 'labels_consensus.csv'}" in message


def test_a_class_of_another_kind_is_named(tmp_path: Path) -> None:
    row = "MSP-PODCAST_0002_0001.wav,Joy,5.2,5.0,4.6,7,Female,Train"
    assert "Expected EmoClass to be one of N, H, A" in failure(write_release(tmp_path, (row,)))


def test_a_file_listed_twice_is_named(tmp_path: Path) -> None:
    assert "found 'MSP-PODCAST_0001_0008.wav' again in row 7" in failure(write_release(tmp_path, (*ROWS, ROWS[0])))


def test_another_folder_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    message = failure(tmp_path)
    assert "Expected the folders Audios and Labels" in message
    assert "found holiday" in message


def test_a_part_of_the_release_is_refused_with_the_folder_above(tmp_path: Path) -> None:
    root = write_release(tmp_path / "MSP")
    assert f"--data {root}" in failure(root / "Audios")
    assert len(rows(msp_podcast.read(tmp_path))) == len(ROWS)


def test_a_table_without_the_columns_is_refused_with_those_it_has(tmp_path: Path) -> None:
    message = failure(write_release(tmp_path, ("MSP-PODCAST_0001_0008.wav,N",), header="FileName,EmoClass"))
    assert "found FileName, EmoClass" in message
    assert "Without EmoAct and EmoVal and EmoDom" in message


def test_a_release_without_its_table_is_refused(tmp_path: Path) -> None:
    root = write_release(tmp_path)
    (root / "Labels" / "labels_consensus.csv").rename(root / "Labels" / "labels.txt")
    assert f"Expected labels_consensus.csv in {root / 'Labels'}, found none" in failure(root)


@pytest.mark.parametrize("folder_is_there", [True, False])
def test_a_release_without_audio_is_refused(tmp_path: Path, folder_is_there: bool) -> None:
    root = write_release(tmp_path)
    for path in (root / "Audios").iterdir():
        path.unlink()
    if not folder_is_there:
        (root / "Audios").rmdir()
    message = failure(root)
    assert f"Expected files such as MSP-PODCAST_0001_0008.wav in {root / 'Audios'}, found none" in message


@pytest.fixture(scope="module")
def miniature() -> Corpus:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    reader = get_reader("msp_podcast")
    return reader.read(demo_root(reader, scale=0.05))


def test_the_miniature_has_seen_and_unseen_podcasts_and_nobody_in_two_splits(miniature: Corpus) -> None:
    podcasts = {name: {row.session for row in split} for name, split in miniature.splits.items()}
    speakers = {name: {row.speaker for row in split} - {None} for name, split in miniature.splits.items()}
    assert podcasts["test1"] <= podcasts["train"] == podcasts["dev"]
    assert not podcasts["test2"] & (podcasts["train"] | podcasts["dev"] | podcasts["test1"])
    assert min(len(speakers["test1"]), len(speakers["test2"])) >= 10
    assert len(set().union(*speakers.values())) == sum(map(len, speakers.values()))


def test_the_miniature_hides_test3_and_lacks_some_speakers(miniature: Corpus) -> None:
    assert all((row.labels, row.text, row.speaker) == ({}, None, None) for row in miniature.splits["test3"])
    assert None in {row.speaker for row in miniature.splits["train"]}


def test_every_split_of_the_miniature_has_all_eight_classes(miniature: Corpus) -> None:
    for name in ("train", "dev", "test1", "test2"):
        assert {row.labels["emotion"] for row in miniature.splits[name]} >= {*msp_podcast.EIGHT_CLASSES}


def test_ratings_of_the_miniature_are_means_of_five(miniature: Corpus) -> None:
    ratings = [row.labels[key] for row in miniature.splits["train"] for key in ("arousal", "valence", "dominance")]
    assert np.allclose(np.array(ratings) * 5, np.rint(np.array(ratings) * 5))
    assert 1 <= min(ratings) < 3 < 5 < max(ratings) <= 7


def test_valence_of_the_miniature_says_nothing_about_arousal() -> None:
    generator = np.random.default_rng(0)
    states = np.array(
        [(state.valence, state.arousal, state.dominance) for _, state in (_feel(None, None, generator) for _ in range(2000))]
    )
    correlations = np.corrcoef(states.T)
    assert abs(correlations[0, 1]) < 0.06
    assert 0.5 < correlations[1, 2] < 0.7


def test_a_wanted_class_is_felt() -> None:
    generator = np.random.default_rng(0)
    assert [_feel(code, None, generator)[0] for code in _CENTRES] == list(_CENTRES)


def test_words_of_another_grade_are_other_words() -> None:
    def words(grade: int) -> set[str]:
        generator = np.random.default_rng(0)
        sentences = [graded_sentence(grade, "food", generator, mixed=0.0) for _ in range(200)]
        return {word.strip(".,").lower() for sentence in sentences for word in sentence.split()}

    assert {"wonderful", "love"} <= words(2) - words(-2)
    assert {"awful", "hate"} <= words(-2) - words(2)
    assert not words(0) & {"wonderful", "good", "bad", "awful", "love", "hate"}


def test_every_topic_can_be_talked_about() -> None:
    generator = np.random.default_rng(0)
    for topic, nouns in TOPICS.items():
        sentences = " ".join(graded_sentence(1, topic, generator) for _ in range(60))
        assert all(noun in sentences for noun in nouns)


@pytest.mark.parametrize(
    ("counts", "release"),
    [
        ({"train": 63076, "dev": 10999, "test1": 16903, "test2": 13289}, "1.10"),
        ({"train": 84030, "dev": 19815, "test1": 30647, "test2": 14815, "test3": 2347}, "1.11"),
        ({"train": 84030, "dev": 19815, "test1": 30647, "test2": 14815}, "1.11"),  # test3 has no labels: it may be left away
        ({"train": 63075, "dev": 11000, "test1": 16903, "test2": 13289}, "unknown"),
        ({"train": 63076}, "unknown"),
    ],
)
def test_a_release_is_known_by_its_counts(counts: dict[str, int], release: str) -> None:
    assert msp_podcast.release_of(counts) == release


def test_a_corpus_says_which_release_it_is_and_its_miniature_is_none(tmp_path: Path) -> None:
    assert msp_podcast.read(write_release(tmp_path / "real")).release == "unknown"
    assert msp_podcast.read(demo_root(get_reader("msp_podcast"), scale=0.05)).release == ""
