"""Finetuning in less memory and in bf16: what changes, and what must not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headwater.core.errors import UserError
from headwater.core.tensors import load_tensors
from headwater.downstream.answer import OneClass
from headwater.runs.config.schema import RunConfig
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UpstreamConfig

QUIET = Runtime("cpu", quiet=True)
BEST = "checkpoints/best.safetensors"


@pytest.fixture
def finetuned(config: RunConfig) -> RunConfig:
    """Four steps of a tiny HuBERT with its own dropout."""
    training = replace(config.training, steps=4, log_every=1)
    return replace(config, upstream=UpstreamConfig("test_hubert", trainable=True), training=training)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return what the best step's checkpoint holds."""
    return load_tensors(folder / BEST)[0]


def scores(folder: Path) -> torch.Tensor:
    """Return the predicted probabilities (utterance, class) on test."""
    found = read_predictions(folder / "predictions-test.csv", OneClass(()))[0].scores
    assert found is not None
    return found


def test_gradient_checkpointing_trains_to_the_same_weights(finetuned: RunConfig, tmp_path: Path) -> None:
    less = replace(finetuned, training=replace(finetuned.training, gradient_checkpointing=True))
    for name, requested in (("plain", finetuned), ("less", less)):
        run(requested, tmp_path / name, QUIET)
    expected, found = weights(tmp_path / "plain"), weights(tmp_path / "less")
    assert any(key.startswith("upstreams.") for key in expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_of_a_frozen_upstream_is_refused(finetuned: RunConfig, tmp_path: Path) -> None:
    training = replace(finetuned.training, gradient_checkpointing=True)
    frozen = replace(finetuned, upstream=UpstreamConfig("test_hubert"), training=training)
    with pytest.raises(UserError, match=r"Expected -f beside training\.gradient_checkpointing, found a frozen upstream\. Add -f"):
        run(frozen, tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_bf16_finetunes_near_float32_with_finite_gradients_and_float32_weights(finetuned: RunConfig, tmp_path: Path) -> None:
    half = replace(finetuned, training=replace(finetuned.training, precision="bf16"))
    for name, requested in (("float32", finetuned), ("bf16", half)):
        run(requested, tmp_path / name, QUIET)
    lines = [json.loads(line) for line in (tmp_path / "bf16" / "metrics.jsonl").read_text().splitlines()]
    norms = [line["gradient_norm"] for line in lines if line["split"] == "train"]
    assert len(norms) == 4
    assert all(math.isfinite(norm) and norm > 0 for norm in norms)
    assert {value.dtype for value in weights(tmp_path / "bf16").values() if value.is_floating_point()} == {torch.float32}
    difference = (scores(tmp_path / "bf16") - scores(tmp_path / "float32")).abs().max()
    assert 0 < difference < 0.02


def test_features_computed_in_bf16_have_a_space_of_their_own(config: RunConfig, tmp_path: Path) -> None:
    store = replace(config.store, mode=str(tmp_path / "store"))
    for precision in ("float32", "bf16"):
        training = replace(config.training, precision=precision, steps=4)
        requested = replace(config, upstream=UpstreamConfig("test_hubert"), training=training, store=store)
        run(requested, tmp_path / precision, QUIET)
    spaces = [json.loads(path.read_text()) for path in (tmp_path / "store").glob("*/space.json")]
    assert sorted(space["precision"] for space in spaces) == ["bf16", "float32"]
    difference = (scores(tmp_path / "bf16") - scores(tmp_path / "float32")).abs().max()
    assert 0 < difference < 0.02
