"""The memory plan of finetuning: what it counts without values is what a step takes, and it leaves no trace."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.runs.config.resolve import resolve
from headwater.runs.log import memory_lines, memory_text, planned_memory, show_memory
from headwater.runs.prepare import RunSetup, prepare
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.training import memory
from headwater.training.memory import LiveBytes, MemoryPlan, Way
from headwater.training.step import Plan, take_step

CPU = torch.device("cpu")


def setup_of(rated: Path, name: str, **training: Any) -> RunSetup:
    """Return a finetuning run over the tones."""
    role = "text_upstream" if name == "test_bert" else "upstream"
    values = {"task": "emotion", "corpus": {"data": str(rated)}, role: {"name": name, "trainable": True}, "solver": "adam"}
    return prepare(resolve([{**values, "training": {"batch_size": 8, "piece_overhead": 100.0, **training}}]))


def taken(setup: RunSetup) -> int:
    """Return the most that the first step of the longest utterances takes, counted while it is made."""
    config, [task] = setup.config, setup.tasks.values()
    _, pieces = memory.longest_pieces([task], config.training, 1, config.seed)
    accelerator = make_accelerator(config, Runtime("cpu", quiet=True))
    plan = Plan(config.training, config.optimizer, config.seed, setup.balancer)
    total = sum(map(len, pieces))
    batches = {task.name: [(task.source.batch(piece), len(piece) / total) for piece in pieces]}
    weights = sum(4 * weight.numel() for weight in setup.model.parameters())
    moments = sum(8 * weight.numel() for weight in setup.model.parameters() if weight.requires_grad)
    setup.model.train()
    gc.collect()
    with LiveBytes() as live:
        for weight in setup.model.parameters():
            live.leave_out(weight)
        take_step(setup.model, batches, accelerator, plan, 0)
    return live.peak + moments + weights


WAYS = [("test_hubert", False), ("test_wavlm", True), ("test_whisper", False), ("test_bert", True)]


@pytest.mark.parametrize(("name", "checkpointing"), WAYS)
def test_the_plan_is_what_a_step_takes(name: str, checkpointing: bool, rated: Path) -> None:
    setup = setup_of(rated, name, gradient_checkpointing=checkpointing)
    planned, way = planned_memory(setup, 1, CPU)
    assert way.checkpointing == checkpointing
    assert planned(way).total == pytest.approx(taken(setup), rel=0.2)


@pytest.fixture
def hubert(rated: Path) -> RunSetup:
    """A finetuning run of a tiny HuBERT."""
    return setup_of(rated, "test_hubert")


def test_a_plan_leaves_model_and_random_state_as_they_were(hubert: RunSetup) -> None:
    model = hubert.model.eval()
    state, before = torch.get_rng_state(), {name: value.clone() for name, value in model.state_dict().items()}
    planned, way = planned_memory(hubert, 1, CPU)
    planned(replace(way, checkpointing=True, bf16=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert model.upstream("audio").recomputes is False
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_each_way_takes_what_it_is_known_for(hubert: RunSetup) -> None:
    planned, way = planned_memory(hubert, 1, CPU)
    plain = planned(way)
    assert (
        planned(replace(way, checkpointing=True)).activations <= plain.activations
    )  # of so short clips, most is the convolutions'
    assert planned(replace(way, bf16=True)).activations < plain.activations
    assert planned(replace(way, bits=8)).states < 0.26 * plain.states
    lora = planned(replace(way, lora=True))
    ranks = 4 * 2 * 4 * memory.LORA_RANK * (64 + 64)  # blocks, targets, bytes
    heads = 4 * sum(weight.numel() for part in (hubert.model.experts, hubert.model.sums) for weight in part.parameters())
    assert lora.gradients == ranks + heads
    assert lora.total < plain.total
    parted = planned(replace(way, processes=4, shard=True))
    assert parted.weights - heads == pytest.approx((plain.weights - heads) / 4, rel=0.01)
    assert parted.gradients - heads == pytest.approx((plain.gradients - heads) / 4, rel=0.01)


def plan(way: Way, total: int, activations: int | None = 5) -> MemoryPlan:
    """Return a plan of a total alone."""
    return MemoryPlan(way, 1, 1, 1, activations, total, "1 utterance of up to 2.0 s")


def test_where_too_little_is_free_one_line_says_what_would_fit(hubert: RunSetup) -> None:
    def planned(way: Way) -> MemoryPlan:
        return plan(way, 10**9 if way.checkpointing or way.shard else 9 * 10**9)

    way = Way("as set")
    assert len(memory_lines(planned, way, hubert.model, None)) == 1
    assert len(memory_lines(planned, way, hubert.model, 9 * 10**9)) == 1
    line, note = memory_lines(planned, way, hubert.model, 4 * 10**9)
    assert line.startswith("memory    about 9.00 GB a process at most: weights")
    assert "4.00 GB are free on the device: that is too little" in note
    assert "Would fit: training.gradient_checkpointing=true (1.00 GB)" in note
    assert "--shard, 2 processes (1.00 GB)" in note
    [_, note] = memory_lines(lambda way: plan(way, 9), way, hubert.model, 1)
    assert "lower training.piece_seconds" in note


def test_what_cannot_be_counted_is_said(hubert: RunSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "count", lambda *_: None)
    planned, way = planned_memory(hubert, 1, CPU)
    [line] = memory_lines(planned, way, hubert.model, None)
    assert "and activations, which could not be counted" in line


def test_the_table_has_a_row_for_each_way(hubert: RunSetup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "count", lambda *_: memory.Counted(10**9, 10**9))
    lines = memory_text(hubert)
    assert lines[0].split() == ["memory", "of", "a", "process", "weights", "gradients", "optimizer", "activations", "at", "most"]
    names = "\n".join(lines)
    for name in ("as set", "gradient_checkpointing=true", "precision=bf16", "bits=8", "--shard, 4 processes", "adapter=lora"):
        assert name in names, name


def test_a_large_model_is_planned_before_it_is_trained(
    hubert: RunSetup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accelerator = make_accelerator(hubert.config, Runtime("cpu"))
    show_memory(hubert, accelerator, Runtime("cpu"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("headwater.runs.log.memory.PLANNED_FROM", 1000)
    show_memory(hubert, accelerator, Runtime("cpu", quiet=True))
    assert capsys.readouterr().err == ""
    show_memory(hubert, accelerator, Runtime("cpu"))
    assert "memory    about" in capsys.readouterr().err
