"""Weights that lie in parts on several processes: the numbers of one process, a part of its memory, any number to go on with."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml

from headwater.core.errors import UserError
from headwater.core.tensors import load_tensors
from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.prepare import prepare
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.training.sharding import evened, refuse_unshardable
from headwater.upstream.base import UpstreamConfig

SCRIPTS = Path(__file__).parent
NOISE = "k_proj.bias"  # softmax cancels it: its gradient is rounding, which Adam makes as large as any other


@pytest.fixture
def finetuned(config: RunConfig) -> RunConfig:
    """Twenty steps of a tiny HuBERT, of pieces that no number of processes shares evenly."""
    options = {"steps": 20, "eval_every": 10, "save_every": 6, "log_every": 1, "batch_size": 7, "piece_size": 3, "shard": True}
    upstream = UpstreamConfig("test_hubert", trainable=True, dropout=0.0)
    return replace(config, upstream=upstream, training=replace(config.training, **options))


def start(config: RunConfig, folder: Path, count: int, last_step: int = 0) -> processes.Started:
    """Start a run in several processes; they are killed once the checkpoint of their last step is written."""
    recipe = folder.with_name(f"{folder.name}.yaml")
    recipe.write_text(yaml.safe_dump(to_mapping(config), sort_keys=False))
    words = (SCRIPTS / "sharded_run.py", recipe, folder, str(last_step), folder.with_name(f"held-{folder.name}"))
    return processes.start(*words, processes=count)


def losses(folder: Path) -> dict[tuple[int, str], float]:
    """Return every loss that was logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["split"]): line["loss"] for line in lines}


def largest_difference(folder: Path, other: Path) -> float:
    """Return the largest difference of a loss or of a number in the last checkpoint, which both must have."""
    assert len(losses(folder)) == 22
    assert losses(folder).keys() == losses(other).keys()
    of_losses = max(abs(value - losses(other)[key]) for key, value in losses(folder).items())
    first, second = (load_tensors(place / "checkpoints" / "last.safetensors")[0] for place in (folder, other))
    assert first.keys() == second.keys()
    assert all(first[key].shape == value.shape for key, value in second.items())
    kept = [key for key in first if not key.startswith("optimizer.") and not key.endswith(NOISE)]
    assert any(key.startswith("upstreams.") for key in kept)
    return max(of_losses, *(float((first[key] - second[key]).abs().max()) for key in kept))


def test_two_and_four_processes_equal_one_also_after_kills_and_with_other_numbers(finetuned: RunConfig, tmp_path: Path) -> None:
    four, two, changing = (tmp_path / name for name in ("four", "two", "changing"))
    less = replace(finetuned, training=replace(finetuned.training, gradient_checkpointing=True))
    started = [start(finetuned, four, 4), start(less, two, 2), start(finetuned, changing, 4, last_step=6)]
    run(finetuned, tmp_path / "one", Runtime("cpu", quiet=True))
    assert started[2].wait() == -signal.SIGKILL
    assert start(finetuned, changing, 2, last_step=12).wait() == -signal.SIGKILL
    start(finetuned, changing, 1).finish()
    for process in started[:2]:
        process.finish()
    found = {folder.name: largest_difference(tmp_path / "one", folder) for folder in (two, four, changing)}
    assert max(found.values()) <= 1e-5, found
    scores = [json.loads((folder / "result.json").read_text())["scores"]["test"] for folder in (tmp_path / "one", two, four)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
    assert scores[2] == pytest.approx(scores[0], abs=1e-5)
    upstream = prepare(finetuned).model.upstream("audio")
    trained = 4 * sum(weight.numel() for weight in upstream.parameters() if weight.requires_grad)
    expected = {
        "weights": 4 * sum(weight.numel() for weight in upstream.parameters()),
        "gradients": trained,
        "states": 2 * trained,
    }
    for name, count in (("two", 2), ("four", 4)):
        held = [json.loads((tmp_path / f"held-{name}-{rank}.json").read_text()) for rank in range(count)]
        for kind, size in expected.items():
            assert max(process[kind] for process in held) <= 1.05 * size / count, (name, kind, held, size)
        # nothing lies anywhere twice; the mask's embedding is in no pass, and has no gradient
        assert sum(process["gradients"] for process in held) == pytest.approx(expected["gradients"], rel=1e-3)


def test_every_family_in_parts_has_the_gradients_of_a_whole_one(tmp_path: Path) -> None:
    processes.start(SCRIPTS / "sharded_families.py", tmp_path / "found.json", processes=2).finish()
    found: Mapping[str, Mapping[str, float]] = json.loads((tmp_path / "found.json").read_text())
    assert len(found) > 20
    assert {name for name, of_family in found.items() if not of_family["apart"] <= (1e-5 if "float32" in name else 0.05)} == set()
    for name, of_family in found.items():
        # half, and what bf16 leaves whole: norms, biases, tables of positions
        assert of_family["share"] <= 0.55, (name, of_family)


def test_one_process_says_that_it_shares_nothing_out(
    finetuned: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(finetuned, training=replace(finetuned.training, steps=1)), tmp_path / "run", Runtime("cpu"))
    shown = capsys.readouterr()
    assert "note      one process holds the whole model: --shard shares it out among those that torchrun" in shown.out + shown.err


def examples(count: int) -> list[Example]:
    """Return examples that only their names tell apart."""
    return [Example(Utterance(id=str(number), audio=Path("none.wav")), 1.0) for number in range(count)]


def test_pieces_are_cut_until_there_are_enough_or_the_last_comes_again_for_nothing() -> None:
    rows = examples(5)
    cut = evened([rows[:4], rows[4:]], 4)
    assert [len(piece) for piece, _ in cut] == [2, 1, 1, 1] or sorted(len(piece) for piece, _ in cut) == [1, 1, 1, 2]
    assert [row for piece, _ in cut for row in piece] == rows
    assert all(counts for _, counts in cut)
    again = evened([rows[:1]], 3)
    assert again == [(rows[:1], True), (rows[:1], False), (rows[:1], False)]
    assert evened([rows], 1) == [(rows, True)]


def test_adapters_of_each_task_are_refused(finetuned: RunConfig) -> None:
    with pytest.raises(UserError, match=r"Expected one adapter for all tasks beside --shard, found own_adapters=true"):
        refuse_unshardable(finetuned.training, {"audio": finetuned.upstream}, own_adapters=True)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "frozen": ({"upstream": {"trainable": False}}, r"Expected -f beside --shard .*found a frozen upstream\. Add -f"),
    "fp16": ({"training": {"precision": "fp16"}}, r"Expected training\.precision=bf16 or float32 beside --shard, found fp16"),
    "layerdrop": ({"upstream": {"layerdrop": 0.1}}, r"Expected upstream\.layerdrop=0 beside --shard .*found 0\.1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_shared_out_is_refused(finetuned: RunConfig, name: str) -> None:
    options, message = MISTAKES[name]
    with pytest.raises(UserError, match=message):
        prepare(resolve([to_mapping(finetuned), options]))


def test_a_balance_by_whole_gradients_is_refused(rated: Path) -> None:
    tasks = {
        "emotion": {"corpus": {"data": str(rated)}},
        "dsd": {"corpus": {"data": str(rated)}, "labels": {"column": "directed"}},
    }
    values = {"upstream": {"name": "test_hubert", "trainable": True}, "tasks": tasks, "balance": {"method": "gradnorm"}}
    with pytest.raises(UserError, match=r"Expected a balance of the tasks' losses .* beside --shard, found one that needs"):
        prepare(resolve([{**values, "training": {"shard": True}}]))


def test_where_weights_lie_is_no_part_of_what_a_run_is(finetuned: RunConfig) -> None:
    from headwater.runs.config.identity import identity_of

    apart = replace(finetuned, training=replace(finetuned.training, shard=False))
    assert identity_of(finetuned) == identity_of(apart)
