"""Transcripts: the cache, tables of id and text, and what a run does without them."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import threading
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.transcription.transcripts import TranscriptCache, column_of, require_texts, texts_of_table, with_texts

ROWS = (Utterance("u1", "a/one.wav"), Utterance("u2", "a/two.wav", text="old"), Utterance("u3", "b/three.wav"))
CORPUS = Corpus("mine", "split", None, {"train": ROWS[:2], "test": ROWS[2:]}, notes=("first",))


def write(path: Path, text: str) -> Path:
    """A file with that text."""
    path.write_text(text, encoding="utf-8")
    return path


def append(path: Path, name: str) -> None:
    """What one of two processes does."""
    for number in range(60):
        TranscriptCache(path, {"model": "m"}).keep({f"{name}{number}": name * 40_000})  # more than is written at once


def test_the_cache_gives_back_what_was_kept_and_says_whose_it_is(tmp_path: Path) -> None:
    cache = TranscriptCache(tmp_path / "below" / "m.jsonl", {"model": "whisper_tiny"})
    assert cache.read() == {}
    cache.keep({"k1": "grüß \u2028 dich", "k2": ""})
    assert cache.read() == {"k1": "grüß \u2028 dich", "k2": ""}
    TranscriptCache(cache.path, {}).keep({"k3": 'a "quote"'})
    assert cache.read() == {"k3": 'a "quote"'}  # what was added since
    assert TranscriptCache(cache.path, {}).read() == {"k1": "grüß \u2028 dich", "k2": "", "k3": 'a "quote"'}
    assert json.loads(cache.path.read_text().split("\n")[0]) == {"about": {"model": "whisper_tiny"}}


@pytest.mark.parametrize("lost", range(1, 30, 4))
def test_a_write_that_was_cut_short_costs_its_own_line_only(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "m.jsonl"
    TranscriptCache(path, {}).keep({"k1": "one"})
    TranscriptCache(path, {}).keep({"k2": "two, and a few more words"})
    path.write_bytes(path.read_bytes()[:-lost])
    reader = TranscriptCache(path, {})
    assert reader.read() == {"k1": "one"}
    TranscriptCache(path, {}).keep({"k3": "three"})
    whole = {"k2": "two, and a few more words"} if lost == 1 else {}  # nothing but its end was missing
    assert reader.read() == {**whole, "k3": "three"}


def test_a_cache_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected transcripts that can be read in .*, found: Is a directory\. Mend it, or"):
        TranscriptCache(tmp_path, {}).read()


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=append, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert TranscriptCache(path, {}).read() == {f"{name}{number}": name * 40_000 for name in "ab" for number in range(60)}
    assert path.read_text().count('"about"') == 1


def test_a_writer_waits_for_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    writer = threading.Thread(target=TranscriptCache(path, {}).keep, args=({"k": "text"},))
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.1)
        assert path.stat().st_size == 0
    writer.join(60)
    assert TranscriptCache(path, {}).read() == {"k": "text"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "id,text\nu1,Hello there\nu2,\nu3,bye\nother,x\n"),
        ("t.tsv", "utt_id\ttranscript\nu1\tHello there \nu2\t\nu3\tbye\n"),
        ("t.jsonl", '{"id": "u1", "text": "Hello there"}\n{"id": "u2", "text": ""}\n{"id": "u3", "text": "bye"}\n'),
        ("t.csv", "file,sentence\none.wav,Hello there\na/two.wav,\nthree,bye\n"),
        ("t.csv", "id;speaker_id;text\nu1;s;Hello there\nu2;s;\nu3;s;bye\n"),
    ],
)
def test_a_table_gives_texts_by_id_or_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert texts_of_table(write(Path(name), content), ROWS) == {"u1": "Hello there", "u2": "", "u3": "bye"}


def test_a_file_name_that_two_utterances_share_is_known_by_its_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = (Utterance("u1", "a/x.wav"), Utterance("u2", "b/x.wav"))
    assert texts_of_table(write(Path("t.csv"), "audio,text\nx.wav,whose?\n"), rows) == {}
    assert texts_of_table(write(Path("t.csv"), "audio,text\nb/x.wav,mine\n"), rows) == {"u2": "mine"}


def test_a_null_is_no_entry_where_an_empty_cell_is_one(tmp_path: Path) -> None:
    table = write(tmp_path / "t.jsonl", '{"id": "u1", "text": null}\n{"id": "u2", "text": ""}\n')
    assert texts_of_table(table, ROWS) == {"u2": ""}


@pytest.mark.parametrize(
    ("headers", "key", "found"),
    [
        (["file", "speaker_id"], "id", None),  # a part of a header would be somebody's id
        (["Utt ID", "text"], "id", "Utt ID"),
        (["num_words", "label"], "text", None),
        (["Transcript"], "text", "Transcript"),
    ],
)
def test_a_header_is_taken_by_its_whole_name(headers: list[str], key: str, found: str | None) -> None:
    assert column_of(key, headers) == found


@pytest.mark.parametrize(
    ("content", "with_notes"),
    [
        (
            "id,words_spoken\nu1,a\n",
            "Expected the columns id (or audio) and text in t.csv, found id, words_spoken. Rename the two",
        ),
        ("speaker_id,text\nu1,a\n", "found speaker_id, text"),
        ("id,text\nu1,a\nu1,b\n", "Expected one text for 'u1', found another one in row 3 of t.csv. Remove one of the rows."),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, with_notes: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as problem:
        texts_of_table(write(Path("t.csv"), content), ROWS)
    assert with_notes in str(problem.value)


def test_texts_replace_those_of_the_corpus_and_empty_ones_are_counted() -> None:
    with_notes = with_texts(CORPUS, {"u1": "one", "u2": "", "u3": "three"}, source="t.csv", make="")
    assert [row.text for rows in with_notes.splits.values() for row in rows] == ["one", "", "three"]
    assert with_notes.notes == ("first", "transcripts are those of t.csv, 1 of 3 of them empty")


def test_texts_of_nobody_are_an_error_that_says_how_to_make_them() -> None:
    with pytest.raises(UserError) as problem:
        with_texts(CORPUS, {"else": "two"}, source="whisper_tiny", make="Make them: `headwater corpus transcribe mine`")
    assert str(problem.value) == (
        "Expected texts of the 3 utterances of mine in whisper_tiny, found none (the first that lacks one: u1). "
        "Make them: `headwater corpus transcribe mine`"
    )


def test_an_utterance_without_a_text_has_none_and_is_reported() -> None:
    with_notes = with_texts(CORPUS, {"u2": "two"}, source="whisper_tiny", make="Make them: `headwater corpus transcribe mine`")
    assert [row.text for rows in with_notes.splits.values() for row in rows] == [None, "two", None]
    assert "2 of 3 utterances have no text in whisper_tiny (the first: u1). Make them: `headwater" in with_notes.notes[-1]


def test_what_cannot_be_read_has_no_transcript_and_is_counted() -> None:
    with_notes = with_texts(CORPUS, {"u1": "one", "u2": "two"}, source="whisper_tiny", make="", audible={"u1", "u2"})
    assert [row.text for rows in with_notes.splits.values() for row in rows] == ["one", "two", None]
    assert with_notes.notes[-1] == "1 utterances with broken audio have no transcript"


def test_a_missing_transcript_is_refused_with_three_ways_out() -> None:
    with pytest.raises(UserError) as problem:
        require_texts(CORPUS.splits)
    message = str(problem.value)
    assert "found none for 1 of 2 in train, 1 of 1 in test (the first: u1)" in message
    for way in ("headwater corpus transcribe", "--transcripts", "corpus.missing_text=drop", "corpus.missing_text=empty"):
        assert way in message
    assert "\n" not in message


def test_missing_transcripts_are_dropped_or_emptied_when_requested_and_noted() -> None:
    dropped, note = require_texts(CORPUS.splits, "drop")
    assert dropped == {"train": ROWS[1:2], "test": ()}
    assert note == "left out for want of a transcript: 1 of 2 in train, 1 of 1 in test"
    emptied, note = require_texts(CORPUS.splits, "empty")
    assert [row.text for rows in emptied.values() for row in rows] == ["", "old", ""]
    assert note == "read as empty for want of a transcript: 1 of 2 in train, 1 of 1 in test"


def test_an_empty_transcript_is_one() -> None:
    rows = (Utterance("u", "x.wav", text=""),)
    assert require_texts({"train": rows}) == ({"train": rows}, "")
