"""What is said in the files that a run is asked about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.base import Utterance
from headwater.inference.inputs import files_of
from headwater.inference.texts import text_for
from headwater.inference.waveforms import AudioItem, Waveform, read_waveform


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """A file of a second."""
    soundfile.write(tmp_path / "x.wav", np.zeros(16_000), 16_000)
    return tmp_path / "x.wav"


def seconds(item: AudioItem) -> str:
    """A recogniser that says how much it heard."""
    return f"{len(read_waveform(item)) / 16_000:g} s"


def test_a_lists_column_of_texts_comes_with_its_files(wav: Path) -> None:
    table = wav.with_name("list.csv")
    table.write_text("audio,transcript\nx.wav, Hello there \nx.wav,\n")
    first, second = files_of([str(table)])
    assert first == Utterance(str(wav), str(wav), text="Hello there")
    assert isinstance(second, Utterance)
    assert second.text is None
    assert [text_for(item, seconds) for item in (first, second)] == ["Hello there", "1 s"]


def test_a_lists_stretches_keep_their_own_texts(wav: Path) -> None:
    table = wav.with_name("list.csv")
    table.write_text("audio,start,end,text\nx.wav,0.25,0.75,half\nx.wav,0.5,,\n")
    assert [text_for(item, seconds) for item in files_of([str(table)])] == ["half", "0.5 s"]


def test_a_list_without_texts_stands_for_its_files(wav: Path) -> None:
    table = wav.with_name("list.csv")
    table.write_text("audio,num_words\nx.wav,3\n")
    assert files_of([str(table)]) == [str(wav)]


def test_the_text_beside_a_file_comes_before_the_recogniser(wav: Path) -> None:
    wav.with_suffix(".txt").write_text("\ufeffGrüß dich \n", encoding="utf-8")
    assert text_for(str(wav), seconds) == "Grüß dich"
    assert text_for(wav) == "Grüß dich"


def test_an_empty_text_file_means_no_speech(wav: Path) -> None:
    wav.with_suffix(".txt").write_text("")
    assert text_for(wav, seconds) == ""


def test_a_stretch_does_not_take_the_text_of_the_whole_file(wav: Path) -> None:
    wav.with_suffix(".txt").write_text("all of it")
    assert text_for(Utterance("u", str(wav), 0.5), seconds) == "0.5 s"


def test_text_files_in_a_folder_are_no_inputs(wav: Path) -> None:
    wav.with_suffix(".txt").write_text("hello")
    assert files_of([str(wav.parent)]) == [str(wav)]


@pytest.mark.parametrize(
    ("kind", "sought"),
    [
        ("file", "x.txt. Write it there, give a list with a column 'text', or add --transcribe."),
        ("row", "x.txt. Fill a column 'text', or add --transcribe."),
        ("waveform", "of waveform (the run reads text), found nothing beside it. Give its text, or add --transcribe."),
    ],
)
def test_a_missing_text_is_an_error_never_an_empty_one(wav: Path, kind: str, sought: str) -> None:
    items = {"file": str(wav), "row": Utterance("u", str(wav)), "waveform": Waveform(np.zeros(10), 16_000)}
    with pytest.raises(UserError) as problem:
        text_for(items[kind])
    assert str(problem.value).startswith("Expected the words ")
    assert str(problem.value).endswith(sought)


def test_a_text_file_that_is_no_text_is_named(wav: Path) -> None:
    wav.with_suffix(".txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"Expected the words of x\.wav as UTF-8 text in .*x\.txt, found: .*Save it so\."):
        text_for(wav, seconds)


def test_a_file_that_cannot_be_read_has_the_error_of_its_audio(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected readable audio, found no such file"):
        text_for(tmp_path / "gone.wav", seconds)
