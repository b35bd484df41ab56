"""A finished run answers about files, from the command and from Python."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import HubertConfig, HubertModel, WhisperConfig, WhisperModel

import headwater as library
from headwater.__main__ import dispatch
from headwater.commands.common.shell import run_command
from headwater.core.errors import UserError
from headwater.core.tensors import load_tensors
from headwater.corpus.base import Utterance
from headwater.inference.inputs import files_of
from headwater.inference.load import load_run
from headwater.inference.predict import Piece
from headwater.inference.waveforms import WINDOW_SECONDS, cut
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream

Command = Callable[..., subprocess.CompletedProcess[str]]


def short_run(tones: Path, folder: Path, **upstream: object) -> Path:
    """A run of two steps through an upstream."""
    training = {"steps": 2, "batch_size": 4, "eval_every": 1}
    mapping = {"task": "emotion", "upstream": upstream, "corpus": {"data": str(tones)}, "training": training}
    run(resolve([mapping]), folder, Runtime("cpu", quiet=True))
    return folder


def test_a_file_has_a_label_and_scores(finished: Path, tones: Path) -> None:
    prediction = library.load_run(finished).predict(tones.parent / "70.wav")
    assert prediction.label == "middle"
    assert prediction.scores is not None
    assert sum(prediction.scores.values()) == pytest.approx(1.0, abs=1e-5)
    assert max(prediction.scores, key=lambda name: prediction.scores[name]) == "middle"


def test_a_prediction_is_the_one_of_the_test_csv(finished: Path, tones: Path) -> None:
    trained = load_run(finished)
    for row in csv.DictReader((finished / "predictions-test.csv").open()):
        prediction = trained.predict(tones.parent / row["id"])
        assert prediction.label == row["prediction"]
        assert prediction.scores is not None
        assert prediction.scores["low"] == pytest.approx(float(row["score_low"]), abs=1e-4)


def test_a_waveform_predicts_as_its_file_does(finished: Path, tones: Path) -> None:
    trained = load_run(finished)
    samples, _ = soundfile.read(tones.parent / "10.wav", dtype="float32")
    assert trained.predict(samples, sampling_rate=16_000).scores == trained.predict(tones.parent / "10.wav").scores


def test_long_files_are_cut_into_equal_windows_and_joined(finished: Path, tmp_path: Path) -> None:
    seconds = 2.5 * WINDOW_SECONDS
    time = np.arange(int(16_000 * seconds)) / 16_000
    soundfile.write(tmp_path / "long.wav", 0.3 * np.sin(2 * np.pi * 200 * time), 16_000)
    assert [len(window) for window in cut(np.zeros(len(time), dtype=np.float32))] == pytest.approx([len(time) / 3] * 3, abs=1)
    prediction = load_run(finished).predict(tmp_path / "long.wav")
    assert prediction.seconds == pytest.approx(seconds)
    assert prediction.label in {"low", "middle", "high"}


@pytest.mark.parametrize("samples", [1, 100, 16_000])
def test_silence_and_very_short_sounds_have_finite_scores(finished: Path, samples: int) -> None:
    _, scores = load_run(finished).join([Piece(np.zeros(samples, dtype=np.float32), None)])
    assert scores is not None
    assert scores.isfinite().all()


@pytest.mark.parametrize(("samples", "found"), [(0, "0 samples"), (399, "399 samples"), (16_000, "digital silence")])
def test_what_holds_no_sound_has_an_error_and_no_label(finished: Path, tmp_path: Path, samples: int, found: str) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(samples), 16_000)
    (prediction,) = load_run(finished).predict_all([tmp_path / "none.wav"])
    assert (prediction.label, prediction.scores) == (None, None)
    assert found in prediction.error or "no samples" in prediction.error or "found none" in prediction.error
    with pytest.raises(UserError, match=found):
        load_run(finished).predict(np.zeros(samples, np.float32), sampling_rate=16_000)


def test_silence_has_a_label_where_it_is_a_class(finished: Path) -> None:
    loaded = load_run(finished)
    classes = {"classes": ["low", "middle", "_silence_"]}
    keyword = replace(loaded, expert=loaded.expert.with_vocabulary({**loaded.vocabulary, **classes}))
    assert keyword.predict(np.zeros(16_000, np.float32), sampling_rate=16_000).label in classes["classes"]


def test_an_array_at_another_rate_predicts_as_its_file_does(finished: Path, tmp_path: Path) -> None:
    """By the function that files go through, so that the scores are the same to the last digit."""
    trained = load_run(finished)
    for rate in (8_000, 44_100, 48_000):
        samples = (0.3 * np.sin(2 * np.pi * 700 * np.arange(rate) / rate)).astype(np.float32)
        soundfile.write(tmp_path / "x.wav", samples, rate, subtype="FLOAT")
        expected = trained.predict(tmp_path / "x.wav").scores
        for array in (samples, torch.from_numpy(samples), samples.tolist(), samples.astype(np.float64)):
            assert trained.predict(array, sampling_rate=rate).scores == expected
        assert trained.predict(samples, sampling_rate=16_000).scores != expected


def test_integers_are_scaled_as_those_of_files(finished: Path, tones: Path) -> None:
    trained = load_run(finished)
    samples, rate = soundfile.read(tones.parent / "10.wav", dtype="int16")
    assert trained.predict(samples, sampling_rate=rate).scores == trained.predict(tones.parent / "10.wav").scores


@pytest.mark.parametrize("kind", [list, tuple, np.stack, lambda waves: torch.from_numpy(np.stack(waves))])
def test_a_batch_gives_a_list_of_predictions(finished: Path, kind: Callable[..., Any]) -> None:
    trained = load_run(finished)
    waves = [0.1 * np.random.default_rng(seed).standard_normal(8_000).astype(np.float32) for seed in (0, 1)]
    expected = [trained.predict(wave, sampling_rate=16_000) for wave in waves]
    assert trained.predict(kind(waves), sampling_rate=16_000) == expected


def test_a_list_may_hold_files_beside_arrays(finished: Path, tones: Path) -> None:
    trained, file = load_run(finished), tones.parent / "10.wav"
    samples, rate = soundfile.read(file, dtype="float32")
    assert {str(found.scores) for found in trained.predict([file, samples, str(file)], sampling_rate=rate)} == {
        str(trained.predict(file).scores)
    }
    assert [found.error for found in trained.predict_all([samples, file])] == [NO_RATE, ""]


NO_RATE = "Expected the sampling rate of an array, found none. Call predict(x, sampling_rate=16000)."
WAVE = np.full(8_000, 0.1, np.float32)
ARRAYS: dict[str, tuple[Any, Any, str]] = {
    "no rate": (WAVE, None, NO_RATE),
    "no rate of a list": ([WAVE], None, NO_RATE),
    "no rate of numbers": ([0.1] * 800, None, NO_RATE),
    "no rate of a tensor": (torch.ones(800), None, NO_RATE),
    "a rate of 0": (WAVE, 0, "Expected a sampling rate in Hz, found 0."),
    "a rate that is a word": (WAVE, "16k", "Expected a sampling rate in Hz, found '16k'."),
    "kHz": (WAVE, 16, "Expected a sampling rate in Hz, found 16. 16 kHz is sampling_rate=16000."),
    "a rate of nowhere": (WAVE, 1e9, "Expected a sampling rate in Hz, found a sample rate of 1000000000 Hz."),
    "a rate of a file": ("a.wav", 16_000, "Expected no sampling_rate for a file"),
    "bytes": (b"RIFF", 16_000, "Expected a file, an array or a list of them, found bytes."),
    "nothing": (None, 16_000, "found NoneType"),
    "an empty list": ([], 16_000, "found an empty list"),
    "a mapping in a list": ([{}], 16_000, "found dict"),
    "NaN": (np.array([np.nan] * 800), 16_000, "Expected samples that are numbers, found NaN or infinite ones"),
    "infinity": (torch.full((800,), torch.inf), 16_000, "found NaN or infinite ones"),
    "64-bit integers": ([1] * 800, 16_000, "Expected samples of float, int16 or int32, found int64."),
    "channels": (np.ones((8_000, 2)), 16_000, "found shape (8000, 2), more waveforms than samples"),
    "three dimensions": (np.ones((1, 2, 8_000)), 16_000, "Expected a 1-d waveform, found shape (1, 2, 8000)"),
    "complex numbers": (np.ones(800, np.complex64), 16_000, "found complex64"),
}


@pytest.mark.parametrize("mistake", ARRAYS)
def test_an_array_that_is_no_sound_is_refused_in_one_line(finished: Path, mistake: str) -> None:
    what, rate, message = ARRAYS[mistake]
    with pytest.raises(UserError, match=re.escape(message)) as problem:
        load_run(finished).predict(what, sampling_rate=rate)
    assert len(str(problem.value).splitlines()) == 1


def test_a_text_goes_with_each_item_of_a_list(finished: Path) -> None:
    with pytest.raises(UserError, match="Expected a text for each of 2 items, found one for all"):
        load_run(finished).predict([WAVE, WAVE], "words", sampling_rate=16_000)


def test_other_rates_and_stereo_are_read_as_16_khz_mono(finished: Path, tones: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(tones.parent / "12.wav")
    doubled = np.repeat(samples, 3)  # 48 kHz, crudely
    soundfile.write(tmp_path / "stereo.flac", np.stack([doubled, doubled], axis=1), 3 * rate)
    assert load_run(finished).predict(tmp_path / "stereo.flac").label == load_run(finished).predict(tones.parent / "12.wav").label


def test_the_command_predicts_in_input_order_and_reports_what_is_broken(
    finished: Path, tones: Path, tmp_path: Path, headwater: Command
) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    shutil.copy(tones.parent / "03.wav", folder / "b.wav")
    shutil.copy(tones.parent / "04.wav", folder / "below" / "a.wav")
    (folder / "notes.md").write_text("no audio")
    (tmp_path / "broken.wav").write_bytes(b"RIFFnonsense")
    (tmp_path / "list.csv").write_text("wav_path,who\nfolder/b.wav,me\n")
    names = [tones.parent / "05.wav", tmp_path / "broken.wav", folder, tmp_path / "list.csv"]
    done = headwater("predict", finished, *names)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.returncode == 3
    assert [Path(row["file"]).name for row in rows] == ["05.wav", "broken.wav", "b.wav", "a.wav", "b.wav"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, False, False]
    assert [*rows[0]] == ["file", "start", "end", "label", "score_high", "score_low", "score_middle", "error"]
    assert "passed over" in done.stderr
    out = headwater("predict", finished, *names, "--out", tmp_path / "out.csv")
    assert (out.returncode, out.stdout) == (3, "")
    assert (tmp_path / "out.csv").read_text().splitlines() == [*dict.fromkeys(done.stdout.splitlines())]  # one row a file


def hostile_names(folder: Path) -> list[str]:
    """Names of a list that no sound comes from, each in its own way."""
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    os.mkfifo(folder / "pipe.wav")
    return ["loop.wav", "pipe.wav", "x" * 300 + ".wav", "x/" * 3000 + "a.wav", "~nobody/a.wav", "a\0b.wav", "a\ud800b.wav"]


def test_a_row_that_cannot_be_read_is_passed_over_and_the_others_are_predicted(
    finished: Path, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"audio": str(tones.parent / "05.wav")}
    seconds: list[dict[str, object]] = [{"start": float("nan")}, {"end": float("inf")}, {"start": 1e308}, {"end": 99.0}]
    rows = [good, *({"audio": name} for name in hostile_names(tmp_path)), *({**good, **each} for each in seconds)]
    table = tmp_path / "list.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run_command(dispatch, ["predict", str(finished), str(table)]) == 3
    out, err = capsys.readouterr()
    found = list(csv.DictReader(io.StringIO(out)))
    assert [bool(row["error"]) for row in found] == [False] + [True] * (len(rows) - 1)
    assert err.count("passed over: Expected ") == len(rows) - 1
    for words in (
        "a link that leads back",
        "a pipe, a socket",
        "name that is too long",
        "finite numbers",
        "its end, 99 s, lies outside",
    ):
        assert words in err
    for _ in range(2):  # with --out, and again: what is broken is tried again
        assert run_command(dispatch, ["predict", str(finished), str(table), "--out", str(tmp_path / "out.csv")]) == 3
        with (tmp_path / "out.csv").open(errors="surrogateescape", newline="") as file:
            again = list(csv.DictReader(file))
        assert [row["label"] for row in again if not row["error"]] == [found[0]["label"]]
        assert len(again) == len(rows) - 1  # NaN and infinity are the same stretch, of which nothing is there


def test_a_files_name_is_no_formula_and_no_command_of_a_terminal(
    finished: Path, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.wav", "a\x1b[2J.wav", "@none\x07.wav"]
    for name in names[:2]:
        shutil.copy(tones.parent / "03.wav", tmp_path / name)
    assert run_command(dispatch, ["predict", str(finished), *names]) == 3
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["file"] for row in rows] == ["./=1+1.wav", r"a\x1b[2J.wav", r"./@none\x07.wav"]
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert not {"\x1b", "\x07"} & {*out, *err}


def test_a_folder_with_a_link_to_itself_is_predicted(finished: Path, tones: Path, tmp_path: Path) -> None:
    hostile_names(tmp_path)
    shutil.copy(tones.parent / "03.wav", tmp_path / "a.wav")
    assert files_of([str(tmp_path)]) == [str(tmp_path / name) for name in ("a.wav", "loop.wav", "pipe.wav")]
    labels = [prediction.label for prediction in load_run(finished).predict_all(files_of([str(tmp_path)]))]
    assert [label is None for label in labels] == [False, True, True]


def test_a_pipe_is_no_list_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(UserError, match=r"Expected a table that can be read at .*list\.csv, found a pipe, a socket or a device"):
        files_of([str(tmp_path / "list.csv")])


def test_the_index_that_pandas_writes_is_no_text(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f",audio,start\n0,{tones.parent / '05.wav'},0.1\n")
    (item,) = files_of([str(tmp_path / "list.csv")])
    assert isinstance(item, Utterance)
    assert item.text is None


def test_a_file_cut_short_is_passed_over(finished: Path, tones: Path, tmp_path: Path) -> None:
    whole = (tones.parent / "05.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (prediction,) = load_run(finished).predict_all([str(tmp_path / "cut.wav")])
    assert prediction.label is None
    assert "found a file cut short: the header promises" in prediction.error


def test_scores_that_are_no_numbers_are_no_prediction(finished: Path, tmp_path: Path) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(8000).astype("float32")
    wave[4000] = 3e38  # one bit of the exponent
    soundfile.write(tmp_path / "flip.wav", wave, 16000, subtype="FLOAT")
    (prediction,) = load_run(finished).predict_all([str(tmp_path / "flip.wav")])
    assert (prediction.label, prediction.scores) == (None, None)
    assert "Expected finite scores, found NaN or infinity: " in prediction.error


def test_other_weights_than_the_runs_are_refused(tones: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": (16,) * 7}
    settings = HubertConfig(**shape, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
    for name in ("mine", "other"):
        HubertModel(settings).save_pretrained(tmp_path / name)
    folder = short_run(tones, tmp_path / "run", name=str(tmp_path / "mine"))
    assert load_run(folder).predict(np.ones(4000, dtype=np.float32), sampling_rate=16_000).label
    assert load_run(folder, str(tmp_path / "mine")).predict(np.ones(4000, dtype=np.float32), sampling_rate=16_000).label
    with pytest.raises(UserError, match="found others"):
        load_run(folder, str(tmp_path / "other"))


@pytest.mark.parametrize("kind", ["hubert", "whisper"])
def test_a_finetuned_run_predicts_without_the_model_it_started_from(tones: Path, tmp_path: Path, kind: str) -> None:
    models = {
        "hubert": lambda: HubertModel(
            HubertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, conv_dim=(16,) * 7)
        ),
        "whisper": lambda: WhisperModel(
            WhisperConfig(d_model=16, encoder_layers=3, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16)
        ),
    }
    start = tmp_path / "start"
    models[kind]().save_pretrained(start)
    folder = short_run(tones, tmp_path / "run", name=str(start), trainable=True, keep_layers=2)
    sound = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    before = load_run(folder).predict(sound, sampling_rate=16_000).scores
    shutil.rmtree(start)
    assert load_run(folder).predict(sound, sampling_rate=16_000).scores == before
    upstream = load_upstream(str(folder))
    assert upstream.spec.num_layers == 3
    tensors, _ = load_tensors(folder / "checkpoints" / "best.safetensors")
    for key, value in upstream.state_dict().items():
        assert torch.equal(value, tensors[f"upstreams.audio.{key}"]), key
    pruned = load_upstream(UpstreamConfig(name=str(folder), keep_layers=1))
    assert pruned.spec.num_layers == 2


def test_a_run_of_a_run_is_marked_as_the_first_one_was(tones: Path, tmp_path: Path) -> None:
    first = short_run(tones, tmp_path / "first", name="test_hubert", trainable=True)
    second = short_run(tones, tmp_path / "second", name=str(first))
    assert json.loads((second / "result.json").read_text())["marks"] == ["UNTRAINED"]


def test_a_plans_folder_names_its_runs(finished: Path) -> None:
    with pytest.raises(UserError, match=r"a plan with the runs .*finished"):
        load_run(finished.parent)
