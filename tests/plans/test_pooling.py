"""What the runs of a plan give together: predictions, confusion and pictures in the plan's own folder."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.core.run_folder import RunFolder
from headwater.downstream.answer import OneClass
from headwater.plans.grid import expand, run_plan
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.results import read_predictions
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)


@pytest.fixture(scope="module")
def folds(tones: Path) -> RunConfig:
    """The tones in five folds of speakers, trained for a moment."""
    training = {"steps": 4, "batch_size": 8, "eval_every": 2}
    corpus = {"data": str(tones), "protocol": "speaker5"}
    return resolve([{"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": corpus, "training": training}])


@pytest.fixture(scope="module")
def plan(folds: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folds of two seeds; tests only read it."""
    folder = tmp_path_factory.mktemp("plan")
    run_plan(expand(folds, [1, 2, 3], [1, 2], []), folder, QUIET)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return a table's rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def test_a_plan_holds_the_predictions_of_its_runs_with_their_folds(plan: Path) -> None:
    rows = rows_of(RunFolder(plan).predictions("test"))
    expected = [
        {**row, "fold": str(fold), "seed": str(seed)}
        for seed in (1, 2)
        for fold in (1, 2, 3)
        for row in rows_of(plan / f"seed{seed}" / f"fold{fold}" / "predictions-test.csv")
    ]
    assert rows == expected
    outcome, speakers = read_predictions(RunFolder(plan).predictions("test"), OneClass(("high", "low", "middle")))
    assert len(outcome.ids) == len(speakers) == len(rows)


def test_a_plan_holds_the_confusion_of_all_its_predictions(plan: Path) -> None:
    rows = rows_of(RunFolder(plan).predictions("test"))
    pooled = json.loads((plan / "result.json").read_text())["pooled"]["test"]
    counts = Counter((row["reference"], row["prediction"]) for row in rows)
    names = pooled["classes"]
    assert pooled["confusion"] == [[counts[reference, name] for name in names] for reference in names]
    drawn = rows_of(RunFolder(plan).confusion("test").with_suffix(".csv"))
    assert {(row["reference"], row["prediction"]): int(row["count"]) for row in drawn if int(row["count"])} == dict(counts)


def test_a_plan_draws_the_curves_and_scores_of_all_its_runs(plan: Path) -> None:
    there, names = RunFolder(plan), [f"seed{seed}/fold{fold}" for seed in (1, 2) for fold in (1, 2, 3)]
    assert all(path.is_file() for path in (there.curves, there.run_scores, there.confusion("test")))
    curves = rows_of(there.curves.with_suffix(".csv"))
    assert {(row["run"], row["name"], row["step"]) for row in curves} == {
        (name, what, step) for name in names for what in ("loss", "ua") for step in ("2", "4")
    }
    scores = {row["run"]: row for row in rows_of(there.run_scores.with_suffix(".csv"))}
    assert [*scores] == [*names, "pooled"]
    summary = json.loads((plan / "result.json").read_text())
    assert float(scores["pooled"]["value"]) == pytest.approx(summary["pooled"]["test"]["scores"]["ua"], rel=1e-5)
    assert float(scores["pooled"]["low"]) == pytest.approx(summary["pooled"]["test"]["intervals"]["ua"][0], rel=1e-5)
    assert scores[names[0]]["low"] == "", "three speakers have no interval"


def test_of_a_sweep_the_runs_that_dev_chose_are_taken_together(folds: RunConfig, tmp_path: Path) -> None:
    summary = run_plan(expand(folds, [1, 2], [1], ["optimizer.lr=1e-9,1e-2"]), tmp_path, QUIET)
    rows = rows_of(RunFolder(tmp_path).predictions("test"))
    assert len(rows) == sum(
        len(rows_of(tmp_path / summary["chosen"] / f"fold{fold}" / "predictions-test.csv")) for fold in (1, 2)
    )


def test_a_plan_of_several_tasks_keeps_each_apart(tones: Path, rated: Path, tmp_path: Path) -> None:
    emotion = {"corpus": {"data": str(tones)}, "batch_size": 4}
    dsd = {"corpus": {"data": str(rated)}, "batch_size": 4, "labels": {"column": "directed"}}
    upstream, tasks = {"name": "fbank_no_cmvn", "trainable": False}, {"emotion": emotion, "dsd": dsd}
    config = resolve([{"upstream": upstream, "tasks": tasks, "training": {"steps": 2, "eval_every": 2}}])
    run_plan(expand(config, [None], [1, 2], []), tmp_path, QUIET)
    there = RunFolder(tmp_path)
    for name in tasks:
        assert len(rows_of(there.task("best", name).predictions("test"))) == 24, name
        assert there.confusion("test", name).is_file(), name
    assert {row["task"] for row in rows_of(there.run_scores.with_suffix(".csv"))} == {*tasks}


@pytest.mark.parametrize("problem", ["no log", "a damaged log", "no picture"])
def test_a_picture_that_fails_costs_no_result(
    problem: str,
    plan: Path,
    folds: RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = Path(shutil.copytree(plan, tmp_path / "plan"))
    (copy / "result.json").unlink()
    log = copy / "seed1" / "fold1" / "metrics.jsonl"
    if problem == "no log":
        log.unlink()
    elif problem == "a damaged log":
        log.write_text("{\n")
    else:

        def fail(*_: Any, **__: Any) -> None:
            raise ValueError("no such colour")

        monkeypatch.setattr("headwater.plans.pooling.draw_score", fail)
    run_plan(expand(folds, [1, 2, 3], [1, 2], []), copy, replace(QUIET, quiet=False))
    assert "note      no picture" in capsys.readouterr().err
    assert json.loads((copy / "result.json").read_text()) == json.loads((plan / "result.json").read_text())
