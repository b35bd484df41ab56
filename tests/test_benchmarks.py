"""Scripts that need what no test machine has: they refuse without it, and work at a tiny size."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script for a GPU, which finds its neighbours as when it is started."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_script_says_so_and_writes_nothing(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert gpu.main(["--to", str(tmp_path / "made")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("Expected a CUDA device, found none.")
    assert "--tiny" in message
    assert not (tmp_path / "made").exists()


def test_at_a_tiny_size_it_measures_everything_on_a_cpu(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main(["--to", str(tmp_path), "--tiny"]) == 0
    facts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    found = {(row["what"], row["way"], row["precision"]): row for row in facts["rows"]}
    assert len(found) == len(facts["rows"]) == 13
    assert {way for what, way, _ in found if what == "finetuning"} == {
        *("transformers' Trainer", "ours", "ours, DDP, 1 process, gloo")
    }
    assert all(row["audio_seconds_a_second"] > 0 for row in found.values())
    assert found["finetuning", "ours, DDP, 1 process, gloo", "float32"]["note"] in {"losses within 0e+00", "losses within 1e-07"}
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "A trial: publish none of it." in table
    assert table.count("\n| ") == 14
    assert table.strip() in capsys.readouterr().out
