"""Speech recognition as a run: from a table to error rates, and asked about files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.commands.use.predict import challenge_lines, plain_lines
from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.corpus.base import Utterance
from headwater.downstream.answer import OneClass, Ratings, Text
from headwater.inference.load import load_run
from headwater.inference.waveforms import WINDOW_SECONDS
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.prepare import prepare
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

WORDS = {"low": "L", "middle": "M", "high": "H"}  # what each tone of the manifest says
SIZES = {"projector_dim": 16, "hidden_dim": 16, "layers": 1, "dropout": 0.0, "downsample": 2}


@pytest.fixture(scope="module")
def tone_table(tones: Path) -> Path:
    """The tones as a table of audio and text: each says its name."""
    with tones.open() as file:
        rows = list(csv.DictReader(file))
    lines = ["audio,text,speaker,split"]
    lines += [f"{row['audio']},{WORDS[row['label']].lower()}!,{row['speaker']},{row['split']}" for row in rows]
    path = tones.with_name("spoken.csv")
    path.write_text("\n".join(lines) + "\n")
    return path


def config_of(table: Path, over: dict[str, Any] | None = None) -> RunConfig:
    training = {"steps": 12, "batch_size": 8, "eval_every": 6, "patience": None}
    mapping = {"task": "asr", "upstream": {"name": "fbank"}, "corpus": {"data": str(table)}, "training": training}
    return resolve([merge({**mapping, "asr": {**SIZES, "spec_augment": False}, "optimizer": {"lr": 1e-2}}, over or {})])


@pytest.fixture(scope="module")
def trained(tone_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the tones' names; tests only read it."""
    folder = tmp_path_factory.mktemp("asr") / "run"
    run(config_of(tone_table), folder, Runtime("cpu", quiet=True))
    return folder


def test_a_table_of_audio_and_text_trains(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["metrics"] == {"wer": "lower", "cer": "lower"}
    assert {*result["scores"]} == {"dev", "test"}
    assert all(scores["cer"] >= 0 and scores["loss"] > 0 for scores in result["scores"].values())
    assert json.loads((trained / "vocabulary.json").read_text())["asr"]["characters"] == list("HLM")


def test_predictions_are_written_and_read_as_texts(trained: Path) -> None:
    outcome, speakers = read_predictions(trained / "predictions-test.csv", Text())
    assert {*outcome.references} == {*WORDS.values()}
    assert len(outcome.predictions) == len(speakers) == 12
    assert not (trained / "outcome-test.safetensors").exists()


def test_a_finished_run_transcribes_a_file(trained: Path, tones: Path) -> None:
    outcome, _ = read_predictions(trained / "predictions-test.csv", Text())
    for name, label in zip(outcome.ids, outcome.predictions, strict=True):
        prediction = load_run(trained).predict(str(tones.with_name(name)))
        assert (prediction.label, prediction.scores) == (label, None)


def test_a_long_file_is_written_window_by_window(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested, texts = load_run(trained), iter(["FIRST", "", "LAST"])
    monkeypatch.setattr(requested.expert, "decode", lambda _: (next(texts),))
    prediction = requested.predict(np.ones(int(2.5 * WINDOW_SECONDS * 16_000), np.float32), sampling_rate=16_000)
    assert prediction.label == "FIRST LAST"
    assert prediction.seconds == 2.5 * WINDOW_SECONDS


def test_predict_prints_the_text_as_label_and_passes_broken_files_over(
    trained: Path, tones: Path, tmp_path: Path, headwater: Callable[..., Any]
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    done = headwater("predict", trained, tones.with_name("00.wav"), tmp_path / "broken.wav")
    header, first, second = csv.reader(done.stdout.splitlines())
    assert header == ["file", "start", "end", "label", "error"]
    assert first[3:] == [load_run(trained).predict(str(tones.with_name("00.wav"))).label, ""]
    assert second[3] == ""
    assert "broken.wav" in second[4]
    assert done.returncode == 3


def test_columns_follow_from_what_a_run_predicts() -> None:
    assert plain_lines(Text(("A",))).header == ["file", "start", "end", "label", "error"]
    assert plain_lines(OneClass(("a", "b"))).header == ["file", "start", "end", "label", "score_a", "score_b", "error"]
    assert plain_lines(Ratings(("valence",))).header == ["file", "start", "end", "score_valence", "error"]
    with pytest.raises(UserError, match="emotions or ratings for --format msp-challenge, found one on texts"):
        challenge_lines(Text(("A",)))


# texts that are not there


@pytest.fixture
def lacking(tone_table: Path) -> Path:
    """The table with three cells of text left empty, one of them in test."""
    lines = tone_table.read_text().splitlines()
    for number in (1, 2, 72):
        cells = lines[number].split(",")
        lines[number] = ",".join([cells[0], "", *cells[2:]])
    path = tone_table.with_name("lacking.csv")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_an_utterance_without_a_transcript_is_refused(lacking: Path) -> None:
    expected = r"since the run learns to write text, found none for 2 of 48 in train, 1 of 12 in test \(the first: 00\.wav\)"
    with pytest.raises(UserError, match=expected):
        prepare(config_of(lacking))


def test_an_utterance_without_a_transcript_is_left_out_or_silent_as_the_run_says(lacking: Path) -> None:
    dropped = prepare(config_of(lacking, {"corpus": {"missing_text": "drop"}}))
    assert {name: len(rows) for name, rows in dropped.tasks["asr"].splits.items()} == {"train": 46, "dev": 12, "test": 11}
    assert "left out for want of a transcript: 2 of 48 in train, 1 of 12 in test" in dropped.notes
    silent = prepare(config_of(lacking, {"corpus": {"missing_text": "empty"}}))
    assert [row.target for row in silent.tasks["asr"].splits["train"][:3]] == ["", "", "H"]
    assert identity_of(dropped.config) != identity_of(silent.config)


def test_training_utterances_too_short_for_their_text_are_reported(tone_table: Path) -> None:
    lines = tone_table.read_text().splitlines()
    lines[1] = lines[1].replace("l!", "l" * 60)
    path = tone_table.with_name("long.csv")
    path.write_text("\n".join(lines) + "\n")
    setup = prepare(config_of(path))
    assert len(setup.tasks["asr"].splits["train"]) == 47
    expected = "1 of 48 training utterances left out: too short for their targets (the first: 00.wav)"
    assert expected in setup.notes


# mistakes


def test_a_table_without_texts_is_refused_with_the_column_that_would_serve(tones: Path) -> None:
    with pytest.raises(UserError, match=r"Expected transcripts in manifest, since asr is trained on them, found none"):
        prepare(config_of(tones))


def test_a_column_of_texts_by_another_name_is_named(tone_table: Path) -> None:
    path = tone_table.with_name("other.csv")
    path.write_text(tone_table.read_text().replace("audio,text", "audio,transcript"))
    with pytest.raises(UserError, match=r"corpus.options.columns.text=transcript"):
        prepare(config_of(path))
    found = prepare(config_of(path, {"corpus": {"options": {"columns": {"text": "transcript"}}}}))
    assert found.tasks["asr"].splits["train"][0].utterance == Utterance(
        "00.wav", str(path.with_name("00.wav")), text="l!", speaker="spk0"
    )
