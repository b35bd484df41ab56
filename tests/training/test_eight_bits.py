"""Adam with two moments of a byte each: nearly the same training, a quarter of the memory, resumed to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headwater.core.errors import UserError
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.prepare import prepare
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.runs.state import load_optimizer, make_optimizer, optimizer_tensors
from headwater.training import eight_bits
from headwater.upstream.base import UpstreamConfig

QUIET = Runtime("cpu", quiet=True)


@pytest.fixture
def finetuned(config: RunConfig) -> RunConfig:
    """Six steps of a tiny HuBERT, as AdamW makes them."""
    training = replace(config.training, steps=6, log_every=1, eval_every=3, save_every=3)
    upstream = UpstreamConfig("test_hubert", trainable=True, dropout=0.0)
    optimizer = replace(config.optimizer, name="adamw", weight_decay=0.01, upstream_lr=1e-4)
    return replace(config, upstream=upstream, training=training, optimizer=optimizer)


def in_eight_bits(config: RunConfig) -> RunConfig:
    """Return a config with moments in 8 bits."""
    return replace(config, optimizer=replace(config.optimizer, bits=8))


def size(tensors: dict[str, torch.Tensor], prefix: str) -> int:
    """Return the bytes of what a checkpoint holds under a prefix."""
    return sum(value.numel() * value.element_size() for key, value in tensors.items() if key.startswith(prefix))


def test_training_stays_close_and_states_take_a_quarter(finetuned: RunConfig, tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="the extra `eight-bit` is not installed")
    for name, requested in (("plain", finetuned), ("bits", in_eight_bits(finetuned))):
        run(requested, tmp_path / name, QUIET)
    plain, bits = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("plain", "bits"))
    begin = dict(prepare(finetuned).model.named_parameters())
    keys = [key for key in begin if key in plain and key.startswith("upstreams.") and begin[key].numel() >= 4096]
    assert len(keys) > 10
    moved = torch.cat([(plain[key] - begin[key].detach()).flatten() for key in keys])
    other = torch.cat([(bits[key] - begin[key].detach()).flatten() for key in keys])
    assert 0 < float((moved - other).norm()) <= 0.2 * float(moved.norm())
    assert float(torch.nn.functional.cosine_similarity(moved, other, dim=0)) >= 0.98
    assert size(bits, "optimizer.") <= 0.3 * size(plain, "optimizer.")  # vectors stay in float32


def test_a_resumed_run_equals_one_that_was_not_stopped_to_the_bit(
    finetuned: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchao", reason="the extra `eight-bit` is not installed")
    config = in_eight_bits(finetuned)
    run(config, tmp_path / "whole", QUIET)
    from headwater.runs import run as runs

    save = runs.save_last

    def save_and_stop(*facts: Any) -> None:
        """Save, and be killed."""
        save(*facts)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save_last", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "stopped", QUIET)
    monkeypatch.setattr(runs, "save_last", save)
    run(config, tmp_path / "stopped", QUIET)
    whole, stopped = (load_file(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("whole", "stopped"))
    assert any(value.dtype == torch.uint8 for value in whole.values())
    assert whole.keys() == stopped.keys()
    assert [key for key, value in whole.items() if not torch.equal(value, stopped[key])] == []


def test_states_come_back_from_a_checkpoint_as_they_were(finetuned: RunConfig) -> None:
    pytest.importorskip("torchao", reason="the extra `eight-bit` is not installed")
    config = in_eight_bits(finetuned)
    setup = prepare(config)
    first, second = (make_optimizer(setup.model, config, setup.balancer) for _ in range(2))
    for weight in setup.model.parameters():
        weight.grad = torch.randn_like(weight) if weight.requires_grad else None
    first.step()
    load_optimizer(second, optimizer_tensors(first))
    before, after = optimizer_tensors(first), optimizer_tensors(second)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_where_torchao_is_missing_one_line_says_how_to_get_it(finetuned: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bits.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"Expected torchao for optimizer\.bits=8, found none\. Run: pip install"):
        prepare(in_eight_bits(finetuned))


MISTAKES = {
    "fp16": ({"training": {"precision": "fp16"}}, r"bf16 or float32 beside optimizer\.bits=8, found fp16"),
    "shard": ({"training": {"shard": True}}, r"Expected optimizer\.bits=32 beside --shard"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_has_no_eight_bits_is_refused(finetuned: RunConfig, name: str) -> None:
    pytest.importorskip("torchao", reason="the extra `eight-bit` is not installed")
    options, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        prepare(resolve([to_mapping(in_eight_bits(finetuned)), options]))


def test_bits_are_a_part_of_what_a_run_is_where_they_are_eight(finetuned: RunConfig) -> None:
    assert "bits" not in identity_of(finetuned)["optimizer"]
    assert identity_of(in_eight_bits(finetuned))["optimizer"]["bits"] == 8
