"""Mistakes with `headwater compare`: each is one line, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def other(desk: Path) -> Path:
    """A copy of the finished run, for a test to change."""
    return shutil.copytree(desk / "run", desk / "other")


def change(path: Path, **values: Any) -> None:
    """Change what a json file says."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rows_of(folder: Path) -> tuple[Path, list[str]]:
    """Return the test's predictions, line by line, the header first."""
    path = folder / "predictions-test.csv"
    return path, path.read_text().splitlines()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("run", ["Expected at least two runs to compare, found 'run' alone. Name another."]),
        ("run nowhere", ["Expected the folder of a run or a plan at 'nowhere', found nothing. Check the path."]),
        ("run run/config.yaml", ["at 'run/config.yaml', found a file"]),
        ("run tones", ["in 'tones', found no result.json and no run. Check the path."]),
        ("run run --metric uaa", ["Expected a metric of emotion (wa, ua, macro_f1), found 'uaa'. Did you mean 'ua'?"]),
        ("run run --split test2", ["Expected split 'test2' in all runs, found dev, test (not in 'run'). Choose with --split"]),
        ("run run --weights own", ["Expected runs of several tasks for --weights, found 'run' with one. Leave it out."]),
        ("run run --task ks", ["Expected task 'emotion' of 'run', found 'ks'"]),
        (
            "run run --json run/result.json",
            ["Expected a file of its own after --json, found 'run/result.json', which is a run's."],
        ),
        ("run run --json run/config.yaml/x", ["Expected to write 'run/config.yaml/x', found that a file stands in the way."]),
    ],
)
def test_what_cannot_be_compared_is_reported(error_of: Callable[..., str], typed: str, expected: list[str]) -> None:
    message = error_of(f"headwater compare {typed}")
    assert all(words in message for words in expected), message


def test_another_test_set_says_how_many_are_missing_and_names_one(error_of: Callable[..., str], other: Path) -> None:
    path, (header, *lines) = rows_of(other)
    path.write_text("\n".join([header, *lines[2:]]) + "\n")
    name = lines[0].split(",")[0]
    message = error_of("headwater compare run other")
    assert "the same utterances in split 'test' of 'run' and 'other', found 2 missing in the second and 0 in the first" in message
    assert f"'{name}' for one. Test both on one set: -m evaluate" in message
    assert "found 0 missing in the second and 2 in the first" in error_of("headwater compare other run")


@pytest.mark.parametrize(("column", "what", "now"), [("reference", "labels", "middle"), ("speaker", "speakers", "nobody")])
def test_another_label_or_speaker_is_named(error_of: Callable[..., str], other: Path, column: str, what: str, now: str) -> None:
    path, (header, *lines) = rows_of(other)
    place = header.split(",").index(column)
    cells = [line.split(",") for line in lines]
    row = next(row for row, of_line in enumerate(cells) if of_line[place] != now)
    before, cells[row][place] = cells[row][place], now
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    message = error_of("headwater compare run other")
    assert (
        f"Expected the same {what} in 'run' and 'other', found 1 that differ: '{cells[row][0]}' has {before} and {now}" in message
    )


def test_an_utterance_that_stands_there_twice_is_named(error_of: Callable[..., str], other: Path) -> None:
    path, lines = rows_of(other)
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    assert f"found '{lines[1].split(',')[0]}' twice" in error_of("headwater compare other run")


@pytest.mark.parametrize("marks", [["DEMO"], ["DEMO", "UNTRAINED"]])
def test_a_demo_does_not_stand_beside_a_real_run(error_of: Callable[..., str], other: Path, marks: list[str]) -> None:
    change(other / "result.json", marks=marks)
    message = error_of("headwater compare run other")
    assert "Expected the same marks in 'run' and 'other', found none and DEMO. Demos are compared among themselves." in message


def test_a_final_model_has_nothing_to_compare(error_of: Callable[..., str], other: Path) -> None:
    change(other / "result.json", split="all", trained_on_all=9, scores={})
    message = error_of("headwater compare run other")
    assert "Expected runs with a score, found the final model 'other'" in message
    assert "Compare the run or plan that chose its steps." in message


def test_another_corpus_is_refused(error_of: Callable[..., str], other: Path) -> None:
    change(other / "result.json", corpus="emodb")
    assert "Expected the same corpus in 'run' and 'other', found manifest and emodb" in error_of("headwater compare run other")


def test_another_task_is_refused(error_of: Callable[..., str], other: Path) -> None:
    config = yaml.safe_load((other / "config.yaml").read_text())
    del config["emotion"]
    (other / "config.yaml").write_text(yaml.safe_dump(config | {"task": "sid", "select_by": "acc"}))
    vocabulary = json.loads((other / "vocabulary.json").read_text())
    (other / "vocabulary.json").write_text(json.dumps({"sid": vocabulary["emotion"]}))
    assert "Expected the same task in 'run' and 'other', found emotion and sid" in error_of("headwater compare run other")


def test_other_classes_are_refused(error_of: Callable[..., str], other: Path) -> None:
    vocabulary = json.loads((other / "vocabulary.json").read_text())["emotion"]
    change(other / "vocabulary.json", emotion=vocabulary | {"classes": [*vocabulary["classes"], "loud"]})
    message = error_of("headwater compare run other")
    assert "Expected the same classes in 'run' and 'other', found" in message
    assert ", loud. Train both with the same labels." in message


def test_a_run_that_is_not_finished_is_refused(error_of: Callable[..., str], other: Path) -> None:
    (other / "result.json").unlink()
    assert "Expected a finished run in 'other', found one that is not" in error_of("headwater compare run other")


def test_a_plan_that_is_not_finished_names_its_runs(error_of: Callable[..., str], desk: Path, other: Path) -> None:
    (desk / "plan").mkdir()
    other.rename(desk / "plan" / "fold1")
    message = error_of("headwater compare run plan")
    assert "in 'plan', found no result.json and the runs fold1. Finish the plan by its command, or name one of them." in message


def test_predictions_that_are_gone_are_missed(error_of: Callable[..., str], other: Path) -> None:
    (other / "predictions-test.csv").unlink()
    assert "Expected 'predictions-test.csv' in 'other', found none. Test the run there" in error_of("headwater compare run other")


def test_other_seeds_are_not_paired(error_of: Callable[..., str], desk: Path, other: Path) -> None:
    runs = []
    for seed in (1, 2):
        shutil.copytree(other, desk / "plan" / f"seed{seed}")
        runs.append({"name": f"seed{seed}", "setting": "", "seed": seed, "fold": 1, "scores": {}})
    (desk / "plan" / "result.json").write_text(json.dumps({"marks": [], "runs": runs}))
    assert "Expected as many seeds in 'run' and 'plan', found 1 and 2" in error_of("headwater compare run plan")
