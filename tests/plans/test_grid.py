"""Folds, seeds and sweeps: many runs, one table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from headwater.commands import downstream
from headwater.core import process as children
from headwater.core.errors import UserError
from headwater.core.run_folder import FolderInUse, RunFolder
from headwater.core.trust import CHECKPOINTS
from headwater.downstream.answer import OneClass
from headwater.inference.evaluate import evaluate_run
from headwater.plans.execute import Part, devices_of, run_parts, typed_checkpoints
from headwater.plans.grid import expand, run_plan, summarise
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.results import read_predictions
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folds(config: RunConfig) -> RunConfig:
    """The tones in five folds of speakers."""
    task = replace(config.only, corpus=replace(config.only.corpus, protocol="speaker5"))
    return replace(config.with_only(task), training=replace(config.training, steps=4))


def test_a_plan_is_the_product_of_settings_seeds_and_folds(config: RunConfig) -> None:
    parts = expand(config, [1], [1, 2], ["optimizer.lr=1e-4,1e-3"])
    assert [(part.config.optimizer.lr, part.seed) for part in parts] == [(1e-4, 1), (1e-4, 2), (1e-3, 1), (1e-3, 2)]
    assert parts[3].name == "optimizer.lr=1e-3/seed2"


def test_one_run_is_no_plan(config: RunConfig) -> None:
    assert [part.name for part in expand(config, [1], [1], [])] == ["."]


def test_folds_are_pooled_and_speakers_resampled(folds: RunConfig, tmp_path: Path) -> None:
    summary = run_plan(expand(folds, [1, 2, 3, 4, 5], [1], []), tmp_path, QUIET)
    assert [row["fold"] for row in summary["runs"]] == [1, 2, 3, 4, 5]
    pooled = summary["pooled"]["test"]
    assert (pooled["num_utterances"], pooled["num_speakers"]) == (72, 12)
    assert pooled["intervals"]["ua"][0] <= pooled["scores"]["ua"] <= pooled["intervals"]["ua"][1]
    ids = [
        name
        for fold in range(1, 6)
        for name in read_predictions(tmp_path / f"fold{fold}" / "predictions-test.csv", OneClass(()))[0].ids
    ]
    assert len({*ids}) == 72
    assert summary["mean"]["test"]["ua"]["runs"] == 5
    assert json.loads((tmp_path / "result.json").read_text()) == summary


def test_a_printed_plan_starts_nothing(folds: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, plan = tmp_path / "recipe.yaml", tmp_path / "plan"
    recipe.write_text(yaml.safe_dump(to_mapping(folds)))
    words = ["-c", str(recipe), "-p", str(plan), "--folds", "all", "--device", "cpu", "--plan"]
    assert downstream.main([*words, "--sweep", "optimizer.lr=1e-4,1e-3", "--seeds", "1,2"]) == 0
    printed = capsys.readouterr().out
    for line in ("folds     1, 2, 3, 4, 5", "seeds     1, 2", f"folder    {plan}"):
        assert line in printed.splitlines()
    assert [line.split()[:5] for line in printed.splitlines() if line.startswith("optimizer")] == [
        [f"optimizer.lr={rate}", "10", "0", "10", "40"] for rate in ("1e-4", "1e-3")
    ]
    assert not plan.exists()
    run_plan(expand(folds, [1, 2], [1], []), plan, QUIET)
    assert downstream.main(words) == 0
    assert capsys.readouterr().out.splitlines()[4].split()[:5] == ["emotion", "5", "2", "3", "12"]


def test_a_plan_skips_what_is_done(folds: RunConfig, tmp_path: Path) -> None:
    run_plan(expand(folds, [1, 2], [1], []), tmp_path, QUIET)
    stamp = (tmp_path / "fold2" / "result.json").stat().st_mtime_ns
    run_plan(expand(folds, [1, 2, 3], [1], []), tmp_path, QUIET)
    assert (tmp_path / "fold2" / "result.json").stat().st_mtime_ns == stamp
    assert (tmp_path / "fold3" / "result.json").is_file()


def test_folds_of_a_table_with_its_own_split_are_refused_before_the_first_is_trained(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="whose own column of splits decides"):
        run_plan(expand(config, [1, 2], [1], []), tmp_path / "plan", QUIET)
    assert not (tmp_path / "plan").exists()


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
    broken = folds.with_only(replace(folds.only, corpus=replace(folds.only.corpus, data=str(tmp_path / "none.csv"))))
    with pytest.raises(UserError, match=r"Run 'fold[12]' stopped: Expected"):
        run_plan(expand(broken, [1, 2], [1], []), tmp_path / "run", QUIET, jobs=2)


def test_a_finished_run_is_evaluated_on_another_corpus(finished: Path, tones: Path) -> None:
    rows = [line.split(",") for line in tones.read_text().splitlines()[49:]]  # dev and test: no run may be tested on its train
    other = tones.with_name("other.csv")
    renamed = {"low": "LOW", "middle": "middle", "high": "shrill"}
    other.write_text("path,class\n" + "\n".join(f"{row[0]},{renamed[row[1]]}" for row in rows) + "\n")
    trained = yaml.safe_load((finished / "config.yaml").read_text())
    corpus = {"data": str(other), "protocol": "all_test", "options": {"columns": {"audio": "path", "label": "class"}}}
    config = resolve([{**trained, "corpus": corpus, "labels": {"merge": {"shrill": "high", "LOW": "low"}}}])
    result = evaluate_run(finished, config.only.corpus, config.only.labels, "test", QUIET)
    assert result["counts"]["test"] == {"high": 8, "low": 8, "middle": 8}
    assert result["scores"]["test"]["ua"] > 0.7
    assert len(list((finished / "evaluations").glob("manifest-all_test-test-*/predictions-test.csv"))) == 1


def test_what_a_run_was_trained_on_is_no_test(finished: Path) -> None:
    mapping = yaml.safe_load((finished / "config.yaml").read_text())
    config = resolve([mapping, {"corpus": {"protocol": "speaker5", "fold": 2}}])
    with pytest.raises(UserError, match=r"was not trained on, found \d+ of \d+ in split 'test'"):
        evaluate_run(finished, config.only.corpus, config.only.labels, "test", QUIET)
    assert evaluate_run(finished, config.only.corpus, config.only.labels, "train", QUIET)["counts"]["train"]


def test_a_table_without_a_split_is_tested_as_a_whole(finished: Path, tones: Path) -> None:
    other = tones.with_name("unsplit.csv")
    other.write_text("audio,label\n" + "".join(f"{row}.wav,{['low', 'middle', 'high'][row % 3]}\n" for row in range(50, 72)))
    config = resolve([{"task": "emotion", "corpus": {"data": str(other)}}])
    result = evaluate_run(finished, config.only.corpus, config.only.labels, "test", QUIET)
    assert (result["protocol"], sum(result["counts"]["test"].values())) == ("all_test", 22)


def test_a_plan_and_a_run_do_not_share_a_folder(config: RunConfig, tmp_path: Path) -> None:
    short = replace(config, training=replace(config.training, steps=2))
    run_plan(expand(short, [1], [1], []), tmp_path / "run", QUIET)
    with pytest.raises(UserError, match="found a single one"):
        run_plan(expand(short, [1], [1, 2], []), tmp_path / "run", QUIET)
    run_plan(expand(short, [1], [1, 2], []), tmp_path / "plan", QUIET)
    with pytest.raises(UserError, match="found a plan of several"):
        run_plan(expand(short, [1], [1], []), tmp_path / "plan", QUIET)


@pytest.fixture
def staged(config: RunConfig) -> RunConfig:
    """A tiny model finetuned, then frozen under a new head."""
    first = {"upstream": {"trainable": True}}
    then = {"upstream": {"name": "stage:ft", "trainable": False}, "init_head": "stage:ft"}
    short = {"training": {"steps": 2, "eval_every": 2}, "upstream": {"name": "test_distilhubert", "keep_layers": 1}}
    return resolve([to_mapping(config), short, {"stages": {"ft": first, "frz": then}}])


def test_stages_are_runs_in_order_for_each_seed(staged: RunConfig) -> None:
    parts = expand(staged, [1], [1, 2], ["stages.ft.optimizer.lr=1e-4"])
    assert [part.name.partition("/")[2] for part in parts] == ["seed1/ft", "seed1/frz", "seed2/ft", "seed2/frz"]
    assert dict(parts[3].needs) == {"stage:ft": parts[2].name}
    assert [part.config.optimizer.lr for part in parts[:2]] == [1e-4, 1e-3]


def test_an_upstream_that_is_a_run_keeps_no_option_of_the_model_it_replaces(staged: RunConfig) -> None:
    assert [part.config.upstream.keep_layers for part in expand(staged, [1], [1], [])] == [1, None]


def test_the_last_stage_starts_from_the_first_and_is_what_is_reported(staged: RunConfig, tmp_path: Path) -> None:
    result = run_plan(expand(staged, [1], [1], []), tmp_path / "here", QUIET)
    assert result["trainable"] is False
    before, after = (json.loads((tmp_path / "here" / name / "identity.json").read_text()) for name in ("ft", "frz"))
    assert after["config"]["upstream"]["name"] == after["config"]["init_head"] == "ft"
    assert after["upstreams"]["audio"] != before["upstreams"]["audio"]  # as it was finetuned
    assert json.loads((tmp_path / "here" / "result.json").read_text())["runs"][0]["name"] == "frz"


def test_finished_stages_are_known_again_wherever_their_folder_lies(staged: RunConfig, tmp_path: Path) -> None:
    run_plan(expand(staged, [1], [1], []), tmp_path / "here", QUIET)
    (tmp_path / "here").rename(tmp_path / "there")
    stamp = (tmp_path / "there" / "frz" / "result.json").stat().st_mtime_ns
    run_plan(expand(staged, [1], [1], []), tmp_path / "there", QUIET)
    assert (tmp_path / "there" / "frz" / "result.json").stat().st_mtime_ns == stamp
    assert not (tmp_path / "here").exists()


def test_wrong_stages_are_reported_together(staged: RunConfig) -> None:
    stages = {"ft": {"training": {"stepz": 1}}, "frz": {"upstream": {"name": "stage:fr"}}}
    with pytest.raises(UserError) as caught:
        expand(replace(staged, stages=stages), [1], [1], [])
    assert "Stage 'ft': Unknown option 'training.stepz'. Did you mean 'steps'?" in str(caught.value)
    assert "Expected an earlier stage in stage 'frz', found 'stage:fr'. Before it: none." in str(caught.value)


def test_a_probe_of_stages_is_refused(staged: RunConfig) -> None:
    with pytest.raises(UserError, match="Expected a probe of layers or stages, found both"):
        expand(staged, [1], [1], [], [0, None])


def test_a_part_starts_as_soon_as_what_it_needs_is_there(
    staged: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def starter(*_: object) -> Callable[[Part], dict]:
        return lambda part: order.append(part.name) or {"name": part.name}

    monkeypatch.setattr("headwater.plans.execute.starter", starter)
    results, failed = run_parts(expand(staged, [1], [1, 2], []), tmp_path / "run", QUIET, jobs=2)
    assert ({*results}, failed) == ({"seed1/ft", "seed1/frz", "seed2/ft", "seed2/frz"}, {})
    assert all(order.index(f"seed{seed}/ft") < order.index(f"seed{seed}/frz") for seed in (1, 2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_starts_from_a_part_that_failed_is_passed_over_with_it(
    jobs: int, staged: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_first(part: Part, *_: object) -> dict:
        if part.name == "seed1/ft":
            raise UserError("Expected memory, found none.")
        return {}

    monkeypatch.setattr("headwater.plans.execute.run_here", fail_first)
    monkeypatch.setattr("headwater.plans.execute.starter", lambda *_: fail_first)
    results, failed = run_parts(expand(staged, [1], [1, 2], []), tmp_path / "run", QUIET, jobs, {})
    assert {*results} == {"seed2/ft", "seed2/frz"}
    assert failed["seed1/frz"] == "starts from seed1/ft, which is not there: Expected memory, found none."


def test_parts_at_once_have_a_gpu_each_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices_of("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices_of("cuda:1", 2) == ["cuda:1", "cuda:1"]  # the user has chosen
    assert devices_of("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert devices_of("auto", 2) == ["auto", "auto"]


def test_a_part_that_another_machine_holds_is_passed_by_until_it_is_free(
    staged: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def start(part: Part) -> dict:
        tried.append(part.name)
        if part.name == "seed1/ft" and tried.count(part.name) < 3:
            raise FolderInUse("Expected the run folder to be free.")
        return {"name": part.name}

    monkeypatch.setattr("headwater.plans.execute.starter", lambda *_: start)
    monkeypatch.setattr("headwater.plans.execute.SECONDS_TO_A_FREE_ONE", 0.0)
    results, failed = run_parts(expand(staged, [1], [1, 2], []), tmp_path / "run", QUIET, 2, {})
    assert ({*results}, failed) == ({"seed1/ft", "seed1/frz", "seed2/ft", "seed2/frz"}, {})
    assert tried.count("seed1/ft") == 3


def test_a_part_that_is_held_is_not_requested_again_and_again_while_another_runs(
    staged: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def start(part: Part) -> dict:
        tried.append(part.name)
        if part.name == "seed1/ft" and "seed2/frz" not in tried:
            raise FolderInUse("Expected the run folder to be free.")
        time.sleep(0.3 if part.name == "seed2/ft" else 0.0)
        return {"name": part.name}

    monkeypatch.setattr("headwater.plans.execute.starter", lambda *_: start)
    monkeypatch.setattr("headwater.plans.execute.SECONDS_TO_A_FREE_ONE", 0.1)
    results, _ = run_parts(expand(staged, [1], [1, 2], []), tmp_path / "run", Runtime("cpu"), 2, {})
    assert len(results) == 4
    assert tried.count("seed1/ft") < 9
    assert capsys.readouterr().err.count("passed by") == 1


def test_a_process_of_ours_imports_nothing_from_where_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('executed')\n")
    command = children.command("headwater", "list", "upstreams", "fbank")
    done = subprocess.run(command, cwd=tmp_path, env=children.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "fbank" in done.stdout) == (0, True), done.stderr


def test_a_checkpoint_of_s3prls_is_handed_on_to_a_process_only_where_it_was_typed(
    tmp_path: Path,
) -> None:
    file = str(tmp_path / "hubert.pt")
    named = resolve([{"task": "emotion", "upstream": {"name": "s3prl/hubert_local", "path": file}}])
    with CHECKPOINTS.isolated():
        CHECKPOINTS.suspect({"parts": [{"upstream": {"path": file}}]})
        assert typed_checkpoints(named) == []
        CHECKPOINTS.take(file)
        assert typed_checkpoints(named) == [file]


def test_a_folder_is_found_in_use_without_being_touched(tmp_path: Path) -> None:
    RunFolder(tmp_path / "none").refuse_in_use()
    with RunFolder(tmp_path / "run").locked():
        before = (tmp_path / "run" / ".lock").read_bytes()
        with pytest.raises(FolderInUse, match="found that process"):
            RunFolder(tmp_path / "run").refuse_in_use()
        assert (tmp_path / "run" / ".lock").read_bytes() == before
    RunFolder(tmp_path / "run").refuse_in_use()


def test_every_split_that_was_evaluated_is_summed_up(config: RunConfig, tmp_path: Path) -> None:
    short = replace(config, training=replace(config.training, steps=2))
    parts = expand(short, [1], [1, 2], [])
    run_plan(parts, tmp_path, QUIET)
    results = []
    for part in parts:
        result = json.loads((tmp_path / part.name / "result.json").read_text())
        results.append({**result, "scores": {**result["scores"], "test2": {"ua": 0.25, "macro_f1": None, "loss": 1.0}}})
        shutil.copy(tmp_path / part.name / "predictions-test.csv", tmp_path / part.name / "predictions-test2.csv")
    summary = summarise(parts, results, tmp_path)
    assert [*summary["mean"]] == ["dev", "test", "test2"]
    assert summary["mean"]["test2"] == {"ua": {"mean": 0.25, "spread": 0.0, "runs": 2}}  # what is not defined has no mean
    assert summary["pooled"]["test2"] == summary["pooled"]["test"]


def test_several_seeds_count_an_utterance_once(config: RunConfig, tmp_path: Path) -> None:
    short = replace(config, training=replace(config.training, steps=2))
    assert run_plan(expand(short, [1], [1, 2], []), tmp_path, QUIET)["pooled"]["test"]["num_utterances"] == 12


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
