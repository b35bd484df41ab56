"""Mistakes with speech recognition: one clear line each, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ASR = "python run_downstream.py -d asr -u fbank --data tones/rated.csv QUICK"

# the mistake in words: what is typed, what the answer must say
TYPED = {
    "a table without texts": (
        ASR.replace("rated", "tones"),
        "Expected transcripts in manifest, since asr is trained on them, found none",
        "a column 'text' (or -o corpus.options.columns.text=HEADER)",
    ),
    "a run that would read what it is to write": (
        f"{ASR} --text-upstream hashed_words",
        "an upstream of audio alone for asr, found audio and text",
        "leave out --text-upstream",
    ),
    "a run that hears nothing": (
        ASR.replace("-u fbank", "--text-upstream hashed_words"),
        "an upstream of audio alone for asr, found text",
        "Name an audio model with -u",
    ),
    "classes to keep": (f"{ASR} -o labels.keep='[low]'", "no labels.keep for asr, which has texts and no classes"),
    "a corpus without texts to learn": (
        "python run_downstream.py -d asr -u fbank --corpus ravdess --demo",
        "Corpus 'ravdess' does not serve task 'asr'",
    ),
    "a metric of another task": (f"{ASR} -o select_by=ua", "'select_by' to be one of wer, cer, found 'ua'"),
    "no frame at all": (f"{ASR} -o asr.downsample=0", "'asr.downsample' above 0, found 0"),
    "a form of text that is none": (f"{ASR} -o asr.normalize=lower", "'asr.normalize' to be one of upper, none, found 'lower'"),
    "texts too long for every utterance": (
        f"{ASR} -o asr.downsample=50",
        "training utterances that are long enough for their targets, found none of 48",
        "or the task's options",
    ),
}


@pytest.mark.usefixtures("rated")
@pytest.mark.parametrize("mistake", TYPED)
def test_a_mistake_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = TYPED[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message


def test_a_cell_without_text_is_no_silence(desk: Path, rated: Path, error_of: Callable[..., str]) -> None:
    lines = rated.read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:4], "", *cells[5:]])
    (desk / "mine.csv").write_text("\n".join(lines[:1] + [f"tones/{line}" for line in lines[1:]]) + "\n")
    message = error_of(ASR.replace("tones/rated.csv", "mine.csv"))
    assert "since the run learns to write text, found none for 1 of 48 in train (the first: tones/02.wav)" in message
    assert "-o corpus.missing_text=drop" in message
