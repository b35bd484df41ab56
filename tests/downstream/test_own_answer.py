"""A task with answers of its own kind edits nothing outside its folder: trained, scored, asked, exported and compared."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import headwater as library

EXAMPLES = Path(library.__file__).parent / "examples"
TASK, CORPUS = str(EXAMPLES / "my_segments"), str(EXAMPLES / "my_segments_corpus.py")
SPEAKERS = {"train": range(6), "dev": range(6, 8), "test": range(8, 16)}
LONG = ((2.0, 4.0), (19.0, 21.0), (25.5, 26.5))  # the second one stands where two windows meet

# one process for all of these: what is typed, by a name
COMMANDS: Mapping[str, str] = {
    "check": "check TASK --corpus CORPUS --data data",
    "check corpus": "check CORPUS --data data",
    "check made up": "check TASK",
    "train": "downstream -d TASK --corpus CORPUS --data data -u fbank_no_cmvn -p one --by speaker QUICK",
    "train again": "downstream -d TASK --corpus CORPUS --data data -u fbank_no_cmvn -p plan --seeds 1,2 QUICK",
    "evaluate": "downstream -d TASK --corpus CORPUS --data data -m evaluate -e one -t dev --by speaker --quiet",
    "predict": "predict one data/test/s8_0.wav long.wav -d TASK",
    "of a corpus": "predict one -d TASK --corpus CORPUS --data data --split test",
    "of a plan": "predict plan data/test/s8_0.wav -d TASK",
    "challenge": "predict one long.wav -d TASK --format msp-challenge",
    "compare": "compare one plan/seed1 --use TASK",
    "export": "export one whole --use TASK",
    "from the export": "predict whole long.wav --use whole/code/task/my_segments",
    "onnx": "export one graph --onnx --use TASK",
}
QUICK = "-o training.steps=30 training.eval_every=15 training.batch_size=12 optimizer.lr=1e-2 --quiet"
DRIVER = """
import contextlib, io, json, shlex, sys, traceback
from headwater.__main__ import dispatch
from headwater.core.errors import UserError
for line in sys.stdin.read().splitlines():
    name, typed = json.loads(line)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = dispatch(shlex.split(typed))
        except UserError as problem:
            code, _ = 2, err.write(f"error: {problem}\\n")
        except BaseException:
            code, _ = 99, err.write(traceback.format_exc())
    print(json.dumps([name, code, out.getvalue(), err.getvalue()]), file=sys.__stdout__)
"""


def sound(stretches: Any, seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Return noise in which a tone sounds now and then."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    on = sum(((time >= start) & (time < end)).astype(float) for start, end in stretches)
    return 0.2 * on * np.sin(2 * np.pi * 440 * time) + 0.1 * generator.standard_normal(len(time))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus in `data`, and a file of 40 seconds."""
    folder, generator = tmp_path_factory.mktemp("segments"), np.random.default_rng(0)
    for split, speakers in SPEAKERS.items():
        (folder / "data" / split).mkdir(parents=True)
        lines = []
        for name in (f"s{speaker}_{number}" for speaker in speakers for number in range(3)):
            seconds, starts = generator.uniform(0.8, 1.4), np.round(generator.uniform(0.05, 0.4, size=2), 2)
            stretches = [(starts[0], round(starts[0] + 0.15, 2)), (0.2 + starts[0], round(0.3 + starts[0] + starts[1] / 2, 2))]
            soundfile.write(folder / "data" / split / f"{name}.wav", sound(stretches, seconds, generator), 16_000)
            lines += [f"SPEAKER {name} 1 {start:.2f} {end - start:.2f}" for start, end in stretches]
        (folder / "data" / f"{split}.rttm").write_text("\n".join(lines) + "\n")
    soundfile.write(folder / "long.wav", sound(LONG, 40.0, generator), 16_000)
    return folder


@pytest.fixture(scope="module")
def done(desk: Path) -> dict[str, tuple[int, str, str]]:
    """What came back of each command: its code, what it printed, and what it told."""
    typed = {
        name: line.replace("TASK", TASK).replace("CORPUS", CORPUS).replace("QUICK", QUICK) for name, line in COMMANDS.items()
    }
    lines = "\n".join(json.dumps([name, line]) for name, line in typed.items())
    command = [sys.executable, "-c", DRIVER]
    back = subprocess.run(
        command, cwd=desk, input=lines, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=True
    )
    return {name: (code, out, err) for name, code, out, err in map(json.loads, back.stdout.splitlines())}


@pytest.fixture
def result(desk: Path, done: Mapping[str, tuple[int, str, str]]) -> dict[str, Any]:
    """What the run says of itself."""
    assert done["train"][0] == 0, done["train"]
    return json.loads((desk / "one" / "result.json").read_text())


def test_it_holds_its_contract(done: Mapping[str, tuple[int, str, str]]) -> None:
    assert "task 'my_segments': all 14 contract tests hold" in done["check"][1], done["check"]
    assert "corpus 'my_segments_corpus': all 8 contract tests hold" in done["check corpus"][1]


def test_labels_that_are_none_of_its_kind_are_refused(done: Mapping[str, tuple[int, str, str]]) -> None:
    assert "Expected stretches in made-up (labels['segments']), found none. Use --corpus" in done["check made up"][2]


def test_it_is_trained_and_scored_with_the_table_of_the_split(result: Mapping[str, Any], desk: Path) -> None:
    assert 0 < result["scores"]["test"]["error"] < 0.4
    low, high = result["intervals"]["test"]["error"]
    assert low <= result["scores"]["test"]["error"] <= high
    kept = json.loads((desk / "one" / "tables-test.json").read_text())
    assert {*kept["rttm"]} == {path.stem for path in (desk / "data" / "test").glob("*.wav")}
    assert {*result["by"]["test"]["speaker"]} == {f"s{speaker}" for speaker in SPEAKERS["test"]}


def test_what_does_not_apply_is_left_out(result: Mapping[str, Any], desk: Path) -> None:
    assert not {"classes", "counts", "confusion"} & {*result}
    assert not [*(desk / "one" / "plots").glob("confusion*")]
    header, *rows = csv.reader((desk / "one" / "predictions-test.csv").read_text().splitlines())
    assert header == ["id", "file", "start", "duration", "speaker", "reference", "prediction"]
    assert all(row[5].count("-") in (1, 2) and row[6] for row in rows)


def test_a_plan_pools_its_answers_with_their_tables(done: Mapping[str, tuple[int, str, str]], desk: Path) -> None:
    assert done["train again"][0] == 0, done["train again"]
    summary = json.loads((desk / "plan" / "result.json").read_text())
    scores = [run["scores"]["test"]["error"] for run in summary["runs"]]
    assert summary["pooled"]["test"]["scores"]["error"] == pytest.approx(np.mean(scores))


def test_it_is_evaluated_on_another_split(done: Mapping[str, tuple[int, str, str]], desk: Path) -> None:
    assert done["evaluate"][0] == 0, done["evaluate"]
    (path,) = (desk / "one" / "evaluations").glob("*/result.json")
    trained = json.loads((desk / "one" / "result.json").read_text())
    assert json.loads(path.read_text())["scores"]["dev"]["error"] == trained["scores"]["dev"]["error"]


def test_a_file_is_asked_about_and_a_long_one_is_joined_from_its_windows(done: Mapping[str, tuple[int, str, str]]) -> None:
    code, out, err = done["predict"]
    assert code == 0, err
    header, short, long = csv.reader(out.splitlines())
    assert header == ["file", "start", "end", "segments", "error"]
    assert short[3].count("-") in (1, 2)
    found = [tuple(map(float, stretch.split("-"))) for stretch in long[3].split(";")]
    assert np.allclose(found, LONG, atol=0.06), found


def test_a_corpus_is_asked_about(done: Mapping[str, tuple[int, str, str]], desk: Path) -> None:
    assert done["of a corpus"][0] == 0, done["of a corpus"]
    asked = {Path(row["file"]).stem: row["segments"] for row in csv.DictReader(done["of a corpus"][1].splitlines())}
    with (desk / "one" / "predictions-test.csv").open() as file:
        assert asked == {row["id"]: row["prediction"] for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("of a plan", "since predictions of my_segments have no scores to average, found 2."),
        ("challenge", "for --format msp-challenge, found one on segments. Leave --format out."),
        ("onnx", "a task that predicts classes, ratings or a text for --onnx, found"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(done: Mapping[str, tuple[int, str, str]], name: str, told: str) -> None:
    code, _, err = done[name]
    assert (code, len(err.splitlines())) == (2, 1), err
    assert told in err


def test_nothing_is_left_of_a_graph_that_is_refused(done: Mapping[str, tuple[int, str, str]], desk: Path) -> None:
    assert done["onnx"][0] == 2
    assert not (desk / "graph").exists()


def test_two_runs_are_compared(done: Mapping[str, tuple[int, str, str]]) -> None:
    code, out, err = done["compare"]
    assert code == 0, err
    assert "my_segments · my_segments_corpus · test: 24 utterances, 8 speakers" in out
    assert "error ↓" in out
    assert "McNemar" not in out  # stretches are no answers that are right or wrong
    assert "cannot be told apart in ERROR" in out or "is better than" in out


def test_an_exported_folder_answers_as_the_run_does(done: Mapping[str, tuple[int, str, str]], desk: Path) -> None:
    assert done["export"][0] == 0, done["export"]
    readme = (desk / "whole" / "README.md").read_text()
    assert "From the sound of a file, the stretches in which it sounds, in seconds." in readme
    assert done["from the export"][1].splitlines()[1] == done["predict"][1].splitlines()[2]
