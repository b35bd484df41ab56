"""Folds, seeds and sweeps: many runs, one table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from headwater.errors import UserError
from headwater.training.config import RunConfig, resolve, to_mapping
from headwater.training.evaluation import evaluate_run
from headwater.training.plan import expand, run_plan
from headwater.training.results import read_predictions
from headwater.training.run import Runtime

QUIET = Runtime("cpu", quiet=True)
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folds(config: RunConfig) -> RunConfig:
    """The tones in five folds of speakers."""
    return replace(config, corpus=replace(config.corpus, protocol="speaker5"), training=replace(config.training, steps=4))


def test_a_plan_is_the_product_of_settings_seeds_and_folds(config: RunConfig) -> None:
    parts = expand(config, [1], [1, 2], ["optimizer.lr=1e-4,1e-3"])
    assert [(part.config.optimizer.lr, part.seed) for part in parts] == [(1e-4, 1), (1e-4, 2), (1e-3, 1), (1e-3, 2)]
    assert parts[3].name == "optimizer.lr=1e-3/seed2"


def test_one_run_is_no_plan(config: RunConfig) -> None:
    assert [part.name for part in expand(config, [1], [1], [])] == ["."]


def test_folds_are_pooled_and_speakers_resampled(folds: RunConfig, tmp_path: Path) -> None:
    summary = run_plan(expand(folds, [1, 2, 3, 4, 5], [1], []), tmp_path, QUIET)
    assert [row["fold"] for row in summary["runs"]] == [1, 2, 3, 4, 5]
    pooled = summary["pooled"]
    assert (pooled["num_utterances"], pooled["num_speakers"]) == (72, 12)
    assert pooled["intervals"]["ua"][0] <= pooled["scores"]["ua"] <= pooled["intervals"]["ua"][1]
    ids = [name for fold in range(1, 6) for name in read_predictions(tmp_path / f"fold{fold}" / "predictions-test.csv")[0].ids]
    assert len({*ids}) == 72
    assert summary["mean"]["test"]["ua"]["runs"] == 5
    assert json.loads((tmp_path / "result.json").read_text()) == summary


def test_a_plan_skips_what_is_done(folds: RunConfig, tmp_path: Path) -> None:
    run_plan(expand(folds, [1, 2], [1], []), tmp_path, QUIET)
    stamp = (tmp_path / "fold2" / "result.json").stat().st_mtime_ns
    run_plan(expand(folds, [1, 2, 3], [1], []), tmp_path, QUIET)
    assert (tmp_path / "fold2" / "result.json").stat().st_mtime_ns == stamp
    assert (tmp_path / "fold3" / "result.json").is_file()


def test_dev_decides_a_sweep(config: RunConfig, tmp_path: Path) -> None:
    longer = replace(config, training=replace(config.training, steps=30))
    summary = run_plan(expand(longer, [1], [1], ["optimizer.lr=1e-9,1e-2"]), tmp_path, QUIET)
    assert summary["chosen"] == "optimizer.lr=1e-2"
    assert summary["sweep"]["optimizer.lr=1e-2"] == max(summary["sweep"].values())
    assert summary["mean"]["test"]["ua"]["runs"] == 1


def test_several_jobs_give_the_numbers_of_one(folds: RunConfig, tmp_path: Path) -> None:
    parts = expand(folds, [1, 2], [1], [])
    alone, together = run_plan(parts, tmp_path / "alone", QUIET), run_plan(parts, tmp_path / "together", QUIET, jobs=2)
    assert [row["scores"] for row in alone["runs"]] == [row["scores"] for row in together["runs"]]


def test_a_part_that_fails_is_named(folds: RunConfig, tmp_path: Path) -> None:
    broken = replace(folds, corpus=replace(folds.corpus, data=str(tmp_path / "none.csv")))
    with pytest.raises(UserError, match=r"Run 'fold1' stopped:\nerror: Expected"):
        run_plan(expand(broken, [1, 2], [1], []), tmp_path / "run", QUIET, jobs=2)


def test_a_finished_run_is_evaluated_on_another_corpus(finished: Path, tones: Path) -> None:
    rows = [line.split(",") for line in tones.read_text().splitlines()[49:]]  # dev and test: no run may be tested on its train
    other = tones.with_name("other.csv")
    renamed = {"low": "LOW", "middle": "middle", "high": "shrill"}
    other.write_text("path,class\n" + "\n".join(f"{row[0]},{renamed[row[1]]}" for row in rows) + "\n")
    trained = yaml.safe_load((finished / "config.yaml").read_text())
    corpus = {"data": str(other), "protocol": "all_test", "options": {"columns": {"audio": "path", "label": "class"}}}
    config = resolve([{**trained, "corpus": corpus, "labels": {"merge": {"shrill": "high", "LOW": "low"}}}])
    result = evaluate_run(finished, config.corpus, config.labels, "test", QUIET)
    assert result["counts"]["test"] == {"high": 8, "low": 8, "middle": 8}
    assert result["scores"]["test"]["ua"] > 0.7
    assert len(list((finished / "evaluations").glob("manifest-all_test-test-*/predictions-test.csv"))) == 1


def test_what_a_run_has_learnt_from_is_no_test(finished: Path) -> None:
    mapping = yaml.safe_load((finished / "config.yaml").read_text())
    config = resolve([mapping, {"corpus": {"protocol": "speaker5", "fold": 2}}])
    with pytest.raises(UserError, match=r"has not learnt from, found \d+ of \d+ in split 'test'"):
        evaluate_run(finished, config.corpus, config.labels, "test", QUIET)
    assert evaluate_run(finished, config.corpus, config.labels, "train", QUIET)["counts"]["train"]


def test_a_table_without_a_split_is_tested_as_a_whole(finished: Path, tones: Path) -> None:
    other = tones.with_name("unsplit.csv")
    other.write_text("audio,label\n" + "".join(f"{row}.wav,{['low', 'middle', 'high'][row % 3]}\n" for row in range(50, 72)))
    config = resolve([{"task": "emotion", "corpus": {"data": str(other)}}])
    result = evaluate_run(finished, config.corpus, config.labels, "test", QUIET)
    assert (result["protocol"], sum(result["counts"]["test"].values())) == ("all_test", 22)


def test_a_plan_and_a_run_do_not_share_a_folder(config: RunConfig, tmp_path: Path) -> None:
    short = replace(config, training=replace(config.training, steps=2))
    run_plan(expand(short, [1], [1], []), tmp_path / "run", QUIET)
    with pytest.raises(UserError, match="found a single one"):
        run_plan(expand(short, [1], [1, 2], []), tmp_path / "run", QUIET)
    run_plan(expand(short, [1], [1, 2], []), tmp_path / "plan", QUIET)
    with pytest.raises(UserError, match="found a plan of several"):
        run_plan(expand(short, [1], [1], []), tmp_path / "plan", QUIET)


def test_several_seeds_count_an_utterance_once(config: RunConfig, tmp_path: Path) -> None:
    short = replace(config, training=replace(config.training, steps=2))
    assert run_plan(expand(short, [1], [1, 2], []), tmp_path, QUIET)["pooled"]["num_utterances"] == 12


def test_two_processes_train_to_the_numbers_of_one(config: RunConfig, tmp_path: Path, headwater: Command) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(to_mapping(config)))
    arguments = ["-c", str(recipe), "--device", "cpu", "--quiet"]
    one = headwater("downstream", *arguments, "-p", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "headwater"]
    command = [*launch, "downstream", *arguments, "-p", str(tmp_path / "two")]
    two = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ, check=False)
    assert two.returncode == 0, two.stderr[-3000:]
    first, second = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert second["scores"]["test"]["loss"] == pytest.approx(first["scores"]["test"]["loss"], rel=1e-4)
    assert second["confusion"] == first["confusion"]
    assert two.stdout.count("emotion ·") == 1
