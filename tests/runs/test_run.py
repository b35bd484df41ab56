"""A run's folder: whole, held, its own, and the same after any kill."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import processes
import pytest
import torch
import yaml

from headwater.core.errors import UserError
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import load_tensors, save_tensors
from headwater.runs import state as checkpoint
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.run import refuse_tiny_steps, run
from headwater.runs.runtime import Runtime
from headwater.training.config import OptimizerConfig
from headwater.training.schedule import rate_factor
from headwater.training.step import Progress

QUIET = Runtime("cpu", quiet=True)


def numbers(folder: Path) -> dict:
    """A result without what no two runs share: where and how long."""
    result = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in result.items() if key != "environment"}


def test_a_run_folder_is_whole(finished: Path) -> None:
    expected = {
        "config.yaml",
        "vocabulary.json",
        "identity.json",
        "metrics.jsonl",
        "result.json",
        "predictions-test.csv",
        "predictions-dev.csv",
        "outcome-test.safetensors",
        "layer_weights.json",
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "plots/confusion-test.png",
        "plots/curves.png",
    }
    assert {name for name in expected if not (finished / name).is_file()} == set()
    assert list((finished / "tensorboard").glob("events*"))
    assert not list(finished.rglob("*.tmp"))


def test_tones_are_learnt(finished: Path) -> None:
    assert numbers(finished)["scores"]["test"]["ua"] >= 0.75


def test_predictions_name_every_utterance_of_the_split(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "predictions-test.csv").open()))
    assert len(rows) == 12
    assert {row["reference"] for row in rows} == {"low", "middle", "high"}
    assert all(abs(sum(float(row[f"score_{name}"]) for name in ("low", "middle", "high")) - 1) < 1e-3 for row in rows)


def test_a_finished_run_trains_nothing(config: RunConfig, tmp_path: Path) -> None:
    first = run(config, tmp_path, QUIET)
    stamp = (tmp_path / "checkpoints" / "last.safetensors").stat().st_mtime_ns
    assert run(config, tmp_path, QUIET) == first
    assert (tmp_path / "checkpoints" / "last.safetensors").stat().st_mtime_ns == stamp


def test_another_configuration_in_the_same_folder_is_refused(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path, QUIET)
    with pytest.raises(UserError, match=r"optimizer.lr: 0.001 -> 0.01") as caught:
        run(replace(config, optimizer=OptimizerConfig(lr=0.01)), tmp_path, QUIET)
    assert "seed" not in str(caught.value)


def test_a_changed_corpus_in_the_same_folder_is_refused(config: RunConfig, tmp_path: Path, tones: Path) -> None:
    lines = tones.read_text().splitlines()
    shorter = tones.with_name("shorter.csv")
    shorter.write_text("\n".join(lines[:-1]) + "\n")
    run(config, tmp_path, QUIET)
    other = config.with_only(replace(config.only, corpus=replace(config.only.corpus, data=str(shorter))))
    with pytest.raises(UserError, match=r"corpus: .* -> "):
        run(other, tmp_path, QUIET)


def test_a_second_process_is_told_who_holds_the_folder(config: RunConfig, tmp_path: Path) -> None:
    with RunFolder(tmp_path).held():
        script = "from pathlib import Path; from headwater.core.run_folder import RunFolder as R\nwith R(Path('.')).held(): pass"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "holds it" in done.stderr
    assert f"process {__import__('os').getpid()} on " in done.stderr
    run(config, tmp_path, QUIET)


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "a", QUIET)
    torch.manual_seed(99)
    run(config, tmp_path / "b", QUIET)
    run(replace(config, seed=2), tmp_path / "c", QUIET)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
    assert numbers(tmp_path / "a")["scores"] != numbers(tmp_path / "c")["scores"]


MOMENTS = [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98]


def start(recipe: Path, folder: Path) -> processes.Started:
    """A run in a process of its own."""
    return processes.start("-m", "headwater", "downstream", "-c", recipe, "-p", folder, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def undisturbed(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """A finetuned run with dropout, never killed: its recipe, numbers and log."""
    folder = tmp_path_factory.mktemp("undisturbed")
    training = {"steps": 30, "batch_size": 6, "eval_every": 7, "save_every": 4, "log_every": 3, "patience": 5}
    mapping = {
        "task": "emotion",
        "upstream": {"name": "test_hubert", "trainable": True, "dropout": 0.1},
        "emotion": {"dropout": 0.2},
        "corpus": {"data": str(tones)},
        "training": training,
        "optimizer": {"schedule": "cosine", "warmup_steps": 5},
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(mapping))
    start(recipe, folder / "run").finish()
    return recipe, numbers(folder / "run"), (folder / "run" / "metrics.jsonl").read_text().splitlines()


def test_ten_kills_change_no_digit(undisturbed: tuple[Path, dict, list[str]], tmp_path: Path) -> None:
    recipe, expected, log = undisturbed
    folder, killed = tmp_path / "run", 0
    for moment in MOMENTS:
        process = start(recipe, folder)
        wanted = int(moment * len(log))
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            path = folder / "metrics.jsonl"
            if path.is_file() and len(path.read_text().splitlines()) >= max(wanted, 1):
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait(60)
    assert killed >= 8
    start(recipe, folder).finish()
    assert numbers(folder) == expected
    assert (folder / "metrics.jsonl").read_text().splitlines() == log


def test_a_resumed_optimizer_is_the_one_that_was_saved(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    first = torch.optim.Adam([weight])
    weight.grad = torch.arange(3.0)
    first.step()
    save_tensors(tmp_path / "o.safetensors", checkpoint.optimizer_tensors(first), {"progress": Progress(step=1).__dict__})
    tensors, facts = load_tensors(tmp_path / "o.safetensors")
    second = torch.optim.Adam([weight])
    checkpoint.load_optimizer(second, tensors)
    assert facts["progress"]["step"] == 1
    for name, value in first.state_dict()["state"][0].items():
        assert torch.equal(second.state_dict()["state"][0][name], value), name


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 50, 1.0),
        ("linear", 5, 0.6),
        ("linear", 55, 0.5),
        ("cosine", 55, 0.5),
        ("linear", 100, 0.0),
        ("cosine", 9, 1.0),
    ],
)
def test_the_rate_is_a_function_of_the_step(schedule: str, step: int, factor: float) -> None:
    config = OptimizerConfig(schedule=schedule, warmup_steps=10)
    assert rate_factor(config, step, 100) == pytest.approx(factor, abs=1e-9)


def test_a_schedule_may_end_behind_the_last_step() -> None:
    config = OptimizerConfig(schedule="linear", warmup_steps=10, schedule_steps=190)
    assert rate_factor(config, 100, 100) == pytest.approx(0.5)


def test_a_frozen_checkpoint_holds_no_upstream_weight(finished: Path, undisturbed: tuple[Path, dict, list[str]]) -> None:
    frozen, _ = load_tensors(finished / "checkpoints" / "best.safetensors")
    finetuned, _ = load_tensors(undisturbed[0].parent / "run" / "checkpoints" / "best.safetensors")
    assert not any(key.startswith("upstreams.") for key in frozen)
    assert any(key.startswith("upstreams.") for key in finetuned)


def test_finetuning_moves_the_transformer_and_not_the_convolutions(undisturbed: tuple[Path, dict, list[str]]) -> None:
    from headwater import load_upstream

    before = {f"upstreams.audio.{key}": value for key, value in load_upstream("test_hubert").state_dict().items()}
    after, _ = load_tensors(undisturbed[0].parent / "run" / "checkpoints" / "best.safetensors")
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert any("encoder.layers" in key for key in moved)
    assert not any("feature_extractor" in key for key in moved)


def test_a_saved_config_is_what_was_run(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path, QUIET)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == to_mapping(config)


def test_untrained_runs_are_marked_in_every_file(undisturbed: tuple[Path, dict, list[str]]) -> None:
    folder = undisturbed[0].parent / "run"
    assert json.loads((folder / "result.json").read_text())["marks"] == ["UNTRAINED"]
    assert json.loads((folder / "layer_weights.json").read_text())["marks"] == ["UNTRAINED"]
    assert load_tensors(folder / "checkpoints" / "best.safetensors")[1]["marks"] == ["UNTRAINED"]


def test_the_command_and_the_library_agree(finished: Path, headwater: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = headwater("downstream", "-e", finished, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "emotion" in done.stdout


def test_a_finished_run_is_not_answered_for_other_labels(config: RunConfig, tmp_path: Path, tones: Path) -> None:
    table = tones.with_name("edited.csv")
    table.write_text(tones.read_text())
    edited = config.with_only(replace(config.only, corpus=replace(config.only.corpus, data=str(table))))
    first = run(edited, tmp_path, QUIET)
    table.write_text(tones.read_text().replace("low", "tmp").replace("high", "low").replace("tmp", "high"))
    with pytest.raises(UserError, match="corpus: "):
        run(edited, tmp_path, QUIET)
    assert run(edited, tmp_path, replace(QUIET, named=True)) == first


def test_a_head_start_counts_by_what_is_in_it(config: RunConfig, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        run(replace(config, seed=seed), tmp_path / name / "head", QUIET)
    started = [config.with_only(replace(config.only, init_head=str(tmp_path / name / "head"))) for name in ("one", "two")]
    run(started[0], tmp_path / "run", QUIET)
    with pytest.raises(UserError, match="init_head: "):
        run(started[1], tmp_path / "run", QUIET)


def test_a_step_smaller_than_the_launch_is_refused() -> None:
    with pytest.raises(UserError, match=r"each of 4 processes, found training.batch_size=3"):
        refuse_tiny_steps(resolve([{"task": "emotion", "training": {"batch_size": 3}}]), 4)


def test_how_often_is_logged_is_no_identity(config: RunConfig) -> None:
    assert identity_of(config) == identity_of(replace(config, training=replace(config.training, log_every=1)))
