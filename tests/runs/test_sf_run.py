"""Slot filling as a run on its miniature: scored, asked about files, exported."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.downstream.sf.slots import read, written
from headwater.inference.export.export import export_run
from headwater.inference.load import load_run
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")

SIZES = {"projector_dim": 32, "hidden_dim": 32, "layers": 1, "dropout": 0.0, "downsample": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a tenth of the miniature, long enough to write something; tests only read it."""
    folder = tmp_path_factory.mktemp("sf") / "run"
    training = {"steps": 60, "batch_size": 8, "eval_every": 30, "patience": None}
    mapping = {"task": "sf", "upstream": {"name": "fbank"}, "corpus": {"demo": True, "demo_scale": 0.1}, "training": training}
    run(resolve([{**mapping, "sf": SIZES, "optimizer": {"lr": 1e-2}}]), folder, Runtime("cpu", quiet=True))
    return folder


def test_both_metrics_are_scored_and_predictions_are_texts_with_slots(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["metrics"] == {"slot_type_f1": "higher", "slot_value_cer": "lower"}
    assert {*result["scores"]} == {"dev", "test"}
    with (trained / "predictions-test.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 8
    for row in rows:
        assert written(read(row["reference"], "u")) == row["reference"]
        assert written(read(row["prediction"], "u")) == row["prediction"]
    assert any("[" in row["reference"] for row in rows)


def test_slots_are_those_of_the_corpus_list(trained: Path) -> None:
    vocabulary = json.loads((trained / "vocabulary.json").read_text())["sf"]
    assert vocabulary["slots"] == ["artist", "city", "party_size_number", "service", "timeRange"]
    assert vocabulary["column"] == "iob"


def test_a_finished_run_and_its_export_write_a_text_with_slots_for_a_file(
    trained: Path, tmp_path: Path, headwater: Callable[..., Any]
) -> None:
    with (trained / "predictions-test.csv").open() as file:
        row = next(csv.DictReader(file))
    done = headwater("predict", trained, row["file"])
    _, line = csv.reader(done.stdout.splitlines())
    assert line[3] == row["prediction"]
    export_run(trained, tmp_path / "out")
    assert load_run(tmp_path / "out").predict(row["file"]).label == row["prediction"]
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "its transcript with slots in brackets, spelt with " in readme
