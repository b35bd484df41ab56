"""What runs and plans print while they are at work."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from headwater.core.run_folder import RunFolder
from headwater.plans.grid import expand, run_plan
from headwater.plans.progress import PlanProgress, scores_text
from headwater.runs.config.schema import RunConfig
from headwater.runs.log import lines as log
from headwater.runs.run import run
from headwater.runs.runtime import PlanPlace, Runtime

LOUD = Runtime("cpu")
TIME = r"(\d+ s|\d+ min \d+ s)"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_plan_prints_a_score_when_each_fold_ends_and_the_time_that_is_left(
    jobs: int, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = replace(config.only, corpus=replace(config.only.corpus, protocol="speaker5"))
    folds = replace(config.with_only(task), training=replace(config.training, steps=4))
    summary = run_plan(expand(folds, [1, 2, 3], [1], []), tmp_path, LOUD, jobs)
    lines = [line for line in capsys.readouterr().err.splitlines() if re.match(r"fold\d, \d of 3: ", line)]
    assert len(lines) == 3
    for place, line in enumerate(lines, 1):
        fold = int(line[4])
        found = re.fullmatch(rf"fold\d, {fold} of 3: test ua (\S+)( \[.*\])? \({TIME}(; about {TIME} left for \d runs?)?\)", line)
        assert found, line
        assert found[1] == f"{summary['runs'][fold - 1]['scores']['test']['ua']:.3f}"
        assert (found[4] is None) == (place == 3), line


def test_a_run_of_a_plan_tells_the_time_of_the_whole_plan(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_plan(expand(config, [1], [1, 2], []), tmp_path, LOUD)
    err = capsys.readouterr().err
    first, second = err.split("run 2 of 2: seed2")
    assert re.search(rf"step 4 of 12: dev ua .*; at most {TIME} left, about {TIME} for the 2 runs left", first)
    assert "runs left" not in second
    assert "step 12 of 12: dev ua" in first


def test_a_quiet_plan_prints_nothing(config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_plan(expand(config, [1], [1, 2], []), tmp_path, replace(LOUD, quiet=True))
    assert capsys.readouterr().err == ""


def test_runs_of_another_kind_are_counted_and_not_guessed(config: RunConfig, tmp_path: Path) -> None:
    trained = replace(config, upstream=replace(config.upstream, trainable=True))
    progress = PlanProgress({"a": config, "b": config, "c": trained}, tmp_path, LOUD)
    assert progress.begin("a").place == PlanPlace(1, 3, 2, steps=12, unknown=1)
    progress.began["a"] -= 100.0
    progress.end("a", {})
    assert re.fullmatch(r"about 1 min 40 s left for 1 run \(and 1 that nobody has timed yet\)", progress.time_left())
    place = progress.begin("b").place
    assert (place.number, place.left, place.unknown, place.timed) == (2, 1, 1, True)
    progress.lose("c")
    assert progress.place("b").left == 0


def test_runs_at_once_share_the_time_but_for_the_longest(config: RunConfig, finished: Path) -> None:
    result = RunFolder(finished).read().result()
    for count, expected in ((1, "5 min 0 s left for 1 run"), (4, "10 min left for 4 runs")):
        names = [finished.name, *map(str, range(count))]
        progress = PlanProgress(dict.fromkeys(names, config), finished.parent, replace(LOUD, quiet=True), jobs=2)
        progress.end(finished.name, {**result, "environment": {"seconds": 300.0}})
        assert progress.time_left() == f"about {expected}"


def test_runs_in_processes_of_their_own_are_looked_at(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = PlanProgress({"a": config, "b": config}, tmp_path, LOUD, jobs=2)
    progress.begin("a")
    (tmp_path / "a").mkdir()
    RunFolder(tmp_path / "a").metrics.write_text('{"step": 2, "split": "train"}\n{"step": 6, "split": "dev"}\n{"st')
    progress.begin("b")
    progress.look()
    assert capsys.readouterr().err == "", "too early"
    progress.wait = 0.0
    progress.look()
    progress.look()
    assert capsys.readouterr().err == "plan      a at step 6 of 12, b at step 0 of 12\n"


def test_what_was_done_before_says_how_long_the_others_take(config: RunConfig, finished: Path) -> None:
    progress = PlanProgress({finished.name: config, "next": config}, finished.parent, LOUD)
    result = RunFolder(finished).read().result()
    progress.end(finished.name, {**result, "environment": {"seconds": 300.0}})
    assert progress.time_left() == "about 5 min 0 s left for 1 run"


def test_a_score_stands_beside_its_interval(config: RunConfig, finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    result = {**result, "scores": {**result["scores"], "test": {"ua": 0.5}}, "intervals": {"test": {"ua": [0.25, 0.75]}}}
    assert scores_text(config, result) == "test ua 0.500 [0.250, 0.750]"


def test_the_first_line_does_not_wait_for_an_evaluation(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(log, "LONG_SECONDS", 0.0)
    rare = replace(config, training=replace(config.training, eval_every=12))
    run(rare, tmp_path / "loud", LOUD)
    err = capsys.readouterr().err
    assert re.search(rf"^step 1 of 12: at most {TIME} left$", err, re.MULTILINE)
    assert err.count("note      this run takes up to") == 1
    assert "on this CPU. Quicker: fewer steps (-o training.steps=" in err
    assert "cached features" not in err, "they are cached"
    run(rare, tmp_path / "quiet", replace(LOUD, quiet=True))
    assert capsys.readouterr().err == ""


def test_a_run_that_takes_a_cpu_long_says_what_is_quicker(config: RunConfig) -> None:
    long = replace(config, training=replace(config.training, steps=50_000))
    [line] = log.slow_notes(long, is_stored=False, step=10, pace=2.0)
    assert line == (
        "note      this run takes up to 27.8 h on this CPU. Quicker: fewer steps (-o training.steps=1800); "
        "cached features (--store on); a smaller upstream or task; a GPU"
    )
    finetuned = replace(long, upstream=replace(config.upstream, trainable=True))
    assert "a frozen upstream, whose features are cached;" in log.slow_notes(finetuned, is_stored=False, step=10, pace=2.0)[0]
    assert log.slow_notes(long, is_stored=True, step=49_000, pace=2.0) == []


@pytest.mark.parametrize(("rate", "every", "is_said"), [(1e-2, 4, True), (1e-2, 6, False), (1e-12, 4, False)])
def test_a_run_whose_last_evaluation_is_its_best_says_that_more_steps_may_help(
    rate: float, every: int, is_said: bool, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer, training = replace(config.optimizer, lr=rate), replace(config.training, eval_every=every)
    result = run(replace(config, optimizer=optimizer, training=training), tmp_path, LOUD)
    note = "dev ua was still improving at step 12: more steps may score higher"
    assert ((result["best_step"] == 12), result["notes"]) == (is_said or every == 6, [note] * is_said)
    assert (f"note      {note}" in capsys.readouterr().err) is is_said
