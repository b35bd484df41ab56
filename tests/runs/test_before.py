"""Run folders of before: made by an earlier version, they are read, gone on with and compared to the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.analysis.comparison.compare import compare
from headwater.analysis.comparison.text import as_json
from headwater.analysis.layers.weights import find_files
from headwater.analysis.report.report import report
from headwater.analysis.table import result_table, summary_table
from headwater.core.run_folder import RunFolder
from headwater.inference.export.export import export_run
from headwater.inference.load import load_run
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)
BEFORE = Path(__file__).parents[1] / "fixtures" / "runs_before"
SINGLE, JOINT = BEFORE / "plan" / "seed1", BEFORE / "joint"
EXPECTED = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
TRAINING = {"steps": 12, "eval_every": 4, "save_every": 3, "log_every": 4, "patience": None}
HEAD = {"projector_dim": 4}
ASKED = {
    "single": (SINGLE, None),
    "plan": (BEFORE / "plan", None),
    "joint emotion": (JOINT, "emotion"),
    "joint dsd": (JOINT, "dsd"),
}


def sound() -> np.ndarray:
    """Half a second of two tones."""
    time = np.arange(8000) / 16_000
    return (0.3 * np.sin(2 * np.pi * 700.0 * time) + 0.05 * np.sin(2 * np.pi * 2500.0 * time)).astype(np.float32)


def single(tones: Path) -> RunConfig:
    """The options of the run of one task."""
    training = {"batch_size": 8, **TRAINING}
    mapping = {"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(tones)}, "training": training}
    return resolve([{**mapping, "optimizer": {"lr": 1e-2}, "emotion": HEAD}])


def joint(tones: Path, rated: Path) -> RunConfig:
    """The options of the joint run."""
    emotion = {"corpus": {"data": str(tones)}, "batch_size": 8, "emotion": HEAD}
    dsd = {"corpus": {"data": str(rated)}, "batch_size": 8, "labels": {"column": "directed"}, "dsd": HEAD}
    upstream, tasks = {"name": "fbank_no_cmvn", "trainable": False}, {"emotion": emotion, "dsd": dsd}
    return resolve([{"upstream": upstream, "tasks": tasks, "optimizer": {"lr": 1e-2}, "training": TRAINING}])


def copied(name: str, folder: Path) -> Path:
    """A folder of before that may be written to."""
    return Path(shutil.copytree(BEFORE / name, folder / name))


def numbers(folder: Path) -> dict[str, Any]:
    """What a result says, without what no two runs share."""
    return {key: value for key, value in RunFolder(folder).read().result().items() if key != "environment"}


def logged(folder: Path) -> list[dict[str, Any]]:
    """What was logged."""
    return [json.loads(line) for line in RunFolder(folder).metrics.read_text(encoding="utf-8").splitlines()]


LATER = ("resampled",)  # what a result says since: the scores that were written before lack it


def refuse_other_numbers(found: Any, expected: Any) -> None:
    """Stop at a number that is another one by more than rounding, or at anything else that is not the same."""
    if isinstance(expected, Mapping):
        expected = {key: value for key, value in expected.items() if key in found or key not in LATER}
        assert {*found} == {*expected}
        for key, value in expected.items():
            refuse_other_numbers(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            refuse_other_numbers(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


def test_the_folders_say_nothing_of_the_machine_that_made_them() -> None:
    files = [path for path in BEFORE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    assert not [path for path in files for place in (b"/tmp", b"/home", b"/root", b"/work") if place in path.read_bytes()]


@pytest.mark.parametrize("name", ASKED)
def test_a_run_of_before_predicts_what_it_predicted(name: str) -> None:
    folder, task = ASKED[name]
    found, expected = load_run(folder, task=task).predict(sound(), sampling_rate=16_000), EXPECTED["predictions"][name]
    assert found.label == expected["label"]
    assert found.scores == pytest.approx(expected["scores"], abs=1e-6)


def test_a_run_of_before_is_exported(tmp_path: Path) -> None:
    export_run(JOINT, tmp_path / "out", task="emotion")
    assert RunFolder(tmp_path / "out").is_finished
    found = load_run(tmp_path / "out").predict(sound(), sampling_rate=16_000)
    assert found.scores == pytest.approx(EXPECTED["predictions"]["joint emotion"]["scores"], abs=1e-6)


def test_the_tables_of_before_are_shown() -> None:
    assert "0.833 ± 0.236" in summary_table(RunFolder(BEFORE / "plan").read().result("runs", "mean"))
    assert "0.407" in result_table(RunFolder(SINGLE).read().result())
    assert [row["name"] for row in RunFolder(BEFORE / "plan").runs() or ()] == ["seed1", "seed2"]


def test_runs_of_before_are_compared_as_they_were() -> None:
    found = as_json(compare([SINGLE, BEFORE / "plan" / "seed2"]))
    assert {row["name"]: row["scores"] for row in found["runs"]} == EXPECTED["compare"]["scores"]
    refuse_other_numbers(found["comparisons"][0]["metrics"], EXPECTED["compare"]["metrics"])


def test_a_joint_run_of_before_is_compared_with_a_single_one() -> None:
    found = as_json(compare([SINGLE, JOINT], task="emotion"))
    scores = RunFolder(JOINT).read().result("tasks")["tasks"]["emotion"]["best"]["scores"]["test"]
    assert found["runs"][1]["scores"] == {key: scores[key] for key in found["metrics"]}


def test_the_layer_weights_of_before_are_read() -> None:
    files = find_files(BEFORE)
    assert [file.parent for file in files] == [JOINT, SINGLE, BEFORE / "plan" / "seed2"]
    assert [[*RunFolder(file.parent).read().layer_weights("layers")["layers"]] for file in files] == [
        ["emotion/audio", "dsd/audio"],
        ["emotion/audio"],
        ["emotion/audio"],
    ]


def test_a_report_shows_the_runs_of_before(tmp_path: Path) -> None:
    assert "3 runs" in report([BEFORE], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "left out, not finished: half, half_joint" in page
    assert "another format" not in page


def test_a_finished_run_of_before_is_not_trained_again(tones: Path, rated: Path, tmp_path: Path) -> None:
    folder, several = copied("plan", tmp_path) / "seed1", copied("joint", tmp_path)
    before = [RunFolder(place).best.read_bytes() for place in (folder, several)]
    assert run(single(tones), folder, QUIET) == RunFolder(SINGLE).read().result()
    assert run(joint(tones, rated), several, QUIET) == RunFolder(JOINT).read().result()
    assert [RunFolder(place).best.read_bytes() for place in (folder, several)] == before


def test_a_run_that_was_stopped_before_goes_on_to_the_same_numbers(tones: Path, tmp_path: Path) -> None:
    resumed, config = copied("half", tmp_path), single(tones)
    run(config, resumed, QUIET)
    run(config, tmp_path / "whole", QUIET)
    refuse_other_numbers(numbers(resumed), numbers(tmp_path / "whole"))
    refuse_other_numbers(logged(resumed), logged(tmp_path / "whole"))
    refuse_other_numbers(logged(resumed), logged(SINGLE))
    refuse_other_numbers(numbers(resumed)["scores"], numbers(SINGLE)["scores"])


def test_a_joint_run_that_was_stopped_before_goes_on_to_the_same_numbers(tones: Path, rated: Path, tmp_path: Path) -> None:
    resumed, config = copied("half_joint", tmp_path), joint(tones, rated)
    run(config, resumed, QUIET)
    run(config, tmp_path / "whole", QUIET)
    refuse_other_numbers(numbers(resumed)["tasks"], numbers(tmp_path / "whole")["tasks"])
    refuse_other_numbers(logged(resumed), logged(tmp_path / "whole"))
    refuse_other_numbers(logged(resumed), logged(JOINT))
    for task, found in numbers(JOINT)["tasks"].items():
        for kept in ("last", "best", "own"):
            refuse_other_numbers(numbers(resumed)["tasks"][task][kept]["scores"], found[kept]["scores"])
