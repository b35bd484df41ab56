"""Mistakes with phones and slots: one clear line each, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

PR = "python run_downstream.py -d pr -u fbank --data tones/rated.csv QUICK"
SF = "python run_downstream.py -d sf -u fbank --data tones/rated.csv QUICK"

# the mistake in words: what is typed, what the answer must say
TYPED = {
    "neither phones nor a lexicon": (
        PR,
        "Expected phones of manifest, found neither a column 'phones'",
        "-o labels.column=HEADER",
        "-o pr.lexicon=FILE",
    ),
    "a lexicon that is not there": (f"{PR} -o pr.lexicon=none.txt", "a lexicon that can be read at none.txt", "Check the path"),
    "a lexicon that is a table": (
        f"{PR} -o pr.lexicon=tones/rated.csv",
        "Expected a word and its phones",
        "in line 1 of tones/rated.csv",
    ),
    "a lexicon of other words": (
        f"{PR} -o pr.lexicon='[words.txt]'",
        "found none whose words are all in the lexicon (not in it:",
        "-o pr.lexicon='[LEXICON, MINE]'",
    ),
    "a column that is not there": (f"{PR} -o labels.column=phone", "found none in column 'phone' (columns there: arousal,"),
    "phones that are classes": (f"{PR} -o labels.keep='[a]'", "no labels.keep for pr, which has phones and no classes"),
    "phones of another alphabet": (
        f"{PR} -o labels.column=directed pr.phones=arpabet",
        "phones of ARPAbet in manifest",
        "found 'no'",
    ),
    "a set of phones that is none": (f"{PR} -o pr.phones=ipa", "'pr.phones' to be one of found, arpabet, found 'ipa'"),
    "phones that are read": (
        f"{PR} --text-upstream hashed_words -o labels.column=label",
        "an upstream of audio alone for pr, found audio and text",
    ),
    "a text without slots": (
        SF,
        "Expected texts with slots in split 'train' of manifest, found none in column 'tagged'",
        "[artist:",
    ),
    "brackets without a pair": (
        SF.replace("tones/rated", "open"),
        "found 'play [artist: queen' in 'tones/00.wav'",
        "Mend its brackets",
    ),
    "a tag too few": (
        SF.replace("tones/rated", "tags"),
        "a tag for each of the 2 words of 'tones/00.wav' (O O artist artist), found 1",
    ),
    "a corpus without slots": (
        "python run_downstream.py -d sf -u fbank --corpus librispeech --demo",
        "Corpus 'librispeech' does not serve task 'sf'",
    ),
    "another metric": (f"{SF} -o select_by=wer", "'select_by' to be one of slot_type_f1, slot_value_cer, found 'wer'"),
}


@pytest.fixture
def desk_of_tokens(desk: Path) -> None:
    """A lexicon, and two tables with a mistake in their first row."""
    (desk / "words.txt").write_text("OTHER AH1 DH ER0\n")
    audio = [f"tones/{number:02d}.wav" for number in range(12)]
    splits = ["train"] * 8 + ["dev"] * 2 + ["test"] * 2
    rows = [*zip(audio, splits, strict=True)]
    tagged = ["play [artist: queen", *["play [artist: queen]"] * 11]
    (desk / "open.csv").write_text(_table("tagged", [f"{a},{s},{t}" for (a, s), t in zip(rows, tagged, strict=True)]))
    tags = ["play queen,O", *["play queen,O artist"] * 11]
    (desk / "tags.csv").write_text(_table("text,iob", [f"{a},{s},{t}" for (a, s), t in zip(rows, tags, strict=True)]))


def _table(header: str, rows: list[str]) -> str:
    return "\n".join([f"audio,split,{header}", *rows]) + "\n"


@pytest.mark.usefixtures("rated", "desk_of_tokens")
@pytest.mark.parametrize("mistake", TYPED)
def test_a_mistake_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = TYPED[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message
