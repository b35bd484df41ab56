"""A run as an ONNX graph: the same answers at any length, or no graph at all."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from headwater.commands.use import export as command
from headwater.core.options import merge
from headwater.inference.export import onnx as onnx_export
from headwater.inference.export.export import export_run
from headwater.inference.export.onnx import (
    LARGEST_DIFFERENCE,
    NEEDED,
    Compared,
    compare,
    difference,
    reference_output,
    speech_like,
    traced,
)
from headwater.inference.load import load_run
from headwater.inference.trained_run import TrainedRun
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(lacking), reason=f"the extra onnx is not installed: no {', '.join(lacking)}")

# shape and norms of each: the waveform normalised, relative positions, a spectrogram of 30 s, frames beside each other
KINDS: dict[str, Mapping[str, Any]] = {
    "hears_normalised": {"upstream": {"name": "test_hubert_large", "trainable": True, "layer": 1, "keep_layers": 1}},
    "places_relative": {
        "task": "avd",
        "avd": {"scale": [1, 7], "modality_dropout": 0.3},
        "upstream": {"name": "test_wavlm", "keep_layers": 1, "normalize_layers": True},
        "text_upstream": {"name": "hashed_words"},
    },
    "biases_by_distance": {"upstream": {"name": "test_emotion2vec", "keep_layers": 1}},
    "hears_30_seconds": {"upstream": {"name": "test_whisper", "keep_layers": 1}},
    "writes": {
        "task": "asr",
        "upstream": {"name": "fbank"},
        "asr": {"projector_dim": 8, "hidden_dim": 8, "layers": 1, "downsample": 3, "zero_infinity": True},
    },
    "writes_phones": {
        "task": "pr",
        "upstream": {"name": "fbank"},
        "labels": {"column": "label"},
        "pr": {"projector_dim": 8, "zero_infinity": True},
    },
    "compares": {
        "task": "asv",
        "upstream": {"name": "fbank_no_cmvn"},
        "asv": {"dim": 8, "pooled_dim": 8, "min_seconds": 0.0},
    },
}


def trained(rated: Path, folder: Path, difference: Mapping[str, Any]) -> Path:
    """A run of one step."""
    training = {"steps": 1, "batch_size": 8, "eval_every": 1}
    usual = {"task": "emotion", "corpus": {"data": str(rated)}, "training": training, "store": {"mode": "off"}}
    run(resolve([merge(usual, difference)]), folder, Runtime("cpu", quiet=True))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_computes_as_the_run_does_at_any_length(kind: str, rated: Path, tmp_path: Path) -> None:
    import onnxruntime

    folder = trained(rated, tmp_path / "run", KINDS[kind])
    report = export_run(folder, tmp_path / "out", onnx=True).graph
    trained_run = load_run(tmp_path / "out")
    assert isinstance(trained_run, TrainedRun)
    listens = trained_run if trained_run.expert.roles == ("audio",) else trained_run.without_text()
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads((tmp_path / "out" / "model.json").read_text()) == report
    for samples in (report["input"]["fewest_samples"], 6001, 16_319, 90_000):
        waveform = 0.3 * np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
        (found,) = session.run([report["output"]["name"]], {"waveform": waveform[None]})
        assert np.abs(found - reference_output(listens, waveform)).max() <= LARGEST_DIFFERENCE, samples
    assert report["compared"]["worst_difference"] <= LARGEST_DIFFERENCE
    assert (min(report["compared"]["seconds"]), max(report["compared"]["seconds"])) == (0.5, 20.0)
    assert "silence" in report["compared"]["sounds"]
    assert "made-up speech" in (tmp_path / "out" / "README.md").read_text()
    places = (str(tmp_path), str(Path.home()), str(Path(onnx_export.__file__).parents[1]), "site-packages")
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert not [place for place in places if place.encode() in path.read_bytes()], path.name


def test_a_graph_says_how_likely_each_speaker_is_active(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * generator.standard_normal(16_000), 16_000)
        (tmp_path / f"{number}.rttm").write_text(f"SPEAKER {number} 1 0.2 0.5 <NA> <NA> a <NA> <NA>\n")
    corpus = {"name": "rttm", "data": str(tmp_path)}
    folder = trained(
        tmp_path, tmp_path / "run", {"task": "sd", "upstream": {"name": "fbank"}, "corpus": corpus, "sd": {"speakers": 2}}
    )
    report = export_run(folder, tmp_path / "out", onnx=True).graph
    assert report["output"] == {"name": "activity", "shape": [1, "frames", 2]}
    # all of the turn lies in the collar, so that there is no speech to divide by
    assert "| test | der_collar | none | none |" in (tmp_path / "out" / "README.md").read_text()
    assert report["compared"]["worst_difference"] <= LARGEST_DIFFERENCE


def test_without_an_equal_graph_the_folder_is_whole(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnx_export, "traced", lambda _, path: path.write_bytes(b"a graph"))
    monkeypatch.setattr(onnx_export, "compare", lambda *_: Compared((0.5, 2.0), (0.0, float("nan"))))
    assert command.main([str(finished), str(tmp_path / "out"), "--onnx"]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "no model.onnx: Expected an ONNX graph that computes what the run does (within 0.0001), found a difference"
    )
    assert "of inf at 2 s. Use the folder without one" in last
    assert load_run(tmp_path / "out")
    assert not [*(tmp_path / "out").glob("model.*")]
    assert "model.onnx" not in (tmp_path / "out" / "README.md").read_text()


def test_a_prediction_that_is_no_number_or_of_another_shape_differs(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_run = load_run(finished)
    assert isinstance(trained_run, TrainedRun)
    traced(trained_run, tmp_path / "model.onnx")
    assert compare(trained_run, tmp_path / "model.onnx").worst <= LARGEST_DIFFERENCE  # of silence too
    for prediction in (np.zeros((1, 4)), np.full((1, 3), np.nan)):
        monkeypatch.setattr(onnx_export, "reference_output", lambda *_, prediction=prediction: prediction)
        assert compare(trained_run, tmp_path / "model.onnx").worst == np.inf


def test_large_logits_may_differ_by_as_much_as_they_are_rounded() -> None:
    expected = np.linspace(-500, 400, 12, dtype=np.float32).reshape(1, 3, 4)
    found = expected + np.float32(2e-3)
    assert difference(found, expected, logits=True) == pytest.approx(4e-6, rel=0.1)
    assert difference(found, expected, logits=True) < LARGEST_DIFFERENCE
    assert difference(found, expected, logits=False) > LARGEST_DIFFERENCE
    assert difference(found / 1000, expected / 1000, logits=True) == difference(found / 1000, expected / 1000, logits=False)
    assert difference(found[:, :2], expected, logits=True) == np.inf
    assert np.isnan(difference(found * np.nan, expected, logits=True))


def test_what_is_compared_sounds_like_speech() -> None:
    sound = speech_like(2.0)
    assert (sound == speech_like(2.0)).all()
    assert 0.02 < np.abs(sound).mean() < 0.3
    assert np.abs(sound).max() <= 1.0
    loudness = np.abs(sound).reshape(-1, 800).mean(axis=1)
    assert loudness.max() > 3 * loudness.min()  # syllables and pauses
