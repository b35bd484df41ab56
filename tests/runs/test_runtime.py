"""Where a run computes: the device that is typed, and what a Mac's GPU cannot do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.checks.machine import device
from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.training.model import check_device


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that has found a Mac's GPU, and no other."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "")
    monkeypatch.delenv("ACCELERATE_TORCH_DEVICE")


def recipe(tones: Path, **others: Any) -> RunConfig:
    """A run that trains."""
    usual = {"task": "emotion", "corpus": {"data": str(tones)}, "upstream": {"name": "fbank"}, "solver": "adam"}
    return resolve([merge(usual, others)])


@pytest.mark.usefixtures("mac")
def test_mps_is_taken_where_it_is_typed_and_not_by_itself(tones: Path) -> None:
    config = recipe(tones)
    assert make_accelerator(config, Runtime("mps", quiet=True)).device.type == "mps"
    assert make_accelerator(config, Runtime("cpu", quiet=True)).device.type == "cpu"
    assert "ACCELERATE_TORCH_DEVICE" not in os.environ
    assert make_accelerator(config, Runtime("auto", quiet=True)).device.type == "cpu"
    assert [row.name for row in device()] == ["cpu", "mps"]


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"solver": "exact"}, r"found solver=exact\. Add -o solver=adam, or use --device cpu"),
        ({"training": {"precision": "bf16"}}, r"found training\.precision=bf16\. Add -o training\.precision=float32"),
    ],
)
def test_what_float32_cannot_compute_is_refused_on_mps(others: dict[str, Any], message: str, tones: Path) -> None:
    with pytest.raises(UserError, match=message):
        make_accelerator(recipe(tones, **others), Runtime("mps", quiet=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", "Expected a Mac's GPU that torch can use for --device mps, found none. Leave it out"),
        ("mps:0", "Expected --device cpu, cuda, cuda:N or mps, found 'mps:0'"),
        ("tpu", "Expected --device cpu, cuda, cuda:N or mps, found 'tpu'"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError) as problem:
        check_device(name)
    assert str(problem.value).startswith(message)
