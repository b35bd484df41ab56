"""What `headwater corpus check` and `headwater list corpora` say."""

from __future__ import annotations

from pathlib import Path

from headwater.corpus.audio import Broken
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.describe import describe, table_of_corpora
from headwater.corpus.load import list_corpora
from headwater.corpus.overlap import identical_files


def corpus() -> Corpus:
    def row(name: str, speaker: str, text: str, emotion: str) -> Utterance:
        return Utterance(name, f"/{name}.wav", text=text, speaker=speaker, labels={"emotion": emotion})

    train = (row("a", "s1", "Excuse me.", "neu"), row("b", "s1", "Go!", "ang"), row("c", "s2", "No.", "odd"))
    test = (row("d", "s2", "excuse me", "ang"), row("e", "s3", "Well", "ang"))
    return Corpus("toy", "p", 2, {"train": train, "test": test}, {"emotion": ("neu", "ang")}, notes=("a note",))


def test_a_check_counts_by_split_class_and_speaker() -> None:
    text = describe(corpus(), {"a": 1800.0, "b": 1800.0, "c": 3600.0, "d": 3.0}, [])
    assert "toy, protocol p, fold 2" in text
    assert "train: 3 utterances, 2.00 h" in text
    assert "emotion: neu 1, ang 1, odd 1" in text
    assert "speakers: 2: s1 2, s2 1" in text
    assert "note: a note" in text


def test_a_check_names_overlaps_of_speakers_and_of_texts_without_case_and_points() -> None:
    assert "train and test share 1 speakers, 1 texts (1 of the 2 in test)" in describe(corpus(), {}, [])


def test_what_splits_share_is_not_known_where_a_table_does_not_say_it() -> None:
    def split(name: str) -> tuple[Utterance, ...]:
        return (Utterance(name, f"/{name}.wav", text=None, speaker=None, labels={"emotion": "neu"}),)

    bare = Corpus("toy", "p", None, {"train": split("a"), "test": split("b")}, {"emotion": ("neu",)})
    assert "train and test share speakers: not known, texts: not known" in describe(bare, {}, [])


def test_a_check_names_a_broken_file_once_where_the_utterance_has_its_name() -> None:
    assert "\n  /d.wav: no such file" in describe(corpus(), {}, [Broken("/d.wav", "/d.wav", "no such file")])


def test_a_check_names_every_broken_file() -> None:
    text = describe(corpus(), {}, [Broken("d", "/d.wav", "no such file"), Broken("e", "/e.wav", "no samples in it")])
    assert "broken files: 2" in text
    assert "d  /d.wav: no such file" in text
    assert "e  /e.wav: no samples in it" in text


def test_the_list_names_every_corpus_its_protocols_and_where_it_comes_from() -> None:
    text = table_of_corpora()
    readers = list_corpora()
    assert len(readers) >= 5
    for reader in readers.values():
        assert f"{reader.name}: {reader.description}" in text
        assert reader.where in text
        assert all(protocol in text for protocol in reader.protocols)


def test_the_list_marks_the_usual_corpus_of_a_task() -> None:
    lines = [line.split() for line in table_of_corpora().splitlines()[2 : 3 + len(list_corpora())]]
    marks = {name: dict(zip(lines[0], cells, strict=True)) for name, *cells in lines[1:]}
    assert (marks["iemocap"]["emotion"], marks["iemocap"]["demo"]) == ("X", "demo")
    assert (marks["manifest"]["emotion"], marks["manifest"]["demo"]) == ("x", "-")
    assert (marks["msp_podcast"]["avd"], marks["directed"]["dsd"], marks["emodb"]["dsd"]) == ("X", "X", "-")


def test_identical_files_and_labels_that_differ_in_case_are_named(tmp_path: Path) -> None:
    for name, content in {"a": "same", "b": "same", "c": "else", "d": "longer"}.items():
        (tmp_path / name).write_text(content)
    paths = [str(tmp_path / name) for name in "abcd"]
    assert identical_files(paths) == [paths[:2]]
    rows = [
        Utterance(path, path, labels={"label": label}) for path, label in zip(paths, ("sad", "SAD", "low", "low"), strict=True)
    ]
    twins = Corpus("mine", "split", None, {"train": (rows[0], rows[2]), "test": (rows[1], rows[3])}, {"label": ("sad", "SAD")})
    text = describe(twins, {}, [], identical_files(paths))
    assert f"files of the same bytes: 1 groups\n  {paths[0]} (train) = {paths[1]} (test)" in text
    assert "note: label: classes that differ in case or space alone: 'SAD' and 'sad'" in text
    assert "same bytes" not in describe(corpus(), {}, [])
