"""The audit of a finished run: each control is a line, planted faults warn, and clean data do not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from headwater.analysis.audit.audit import audit
from headwater.analysis.audit.controls import numbers_finding, shuffled_finding
from headwater.analysis.audit.finding import Scale, printed
from headwater.core.errors import UserError
from headwater.downstream.base import Outcome
from headwater.downstream.emotion.question import QUESTION
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)


def by_name(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The findings by name."""
    return {one["name"]: one for one in content["findings"]}


def audited(folder: Path, table: Path, upstream: str = "fbank_no_cmvn", **over: Any) -> dict[str, dict[str, Any]]:
    """Train the bare command over a table, and audit it."""
    mapping = {"task": "emotion", "upstream": {"name": upstream}, "corpus": {"data": str(table)}, **over}
    run(resolve([task_default("emotion"), mapping]), folder, QUIET)
    return by_name(audit(folder, QUIET))


@pytest.fixture(scope="module")
def content(solved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The audit of a clean run."""
    return audit(shutil.copytree(solved, tmp_path_factory.mktemp("audited") / "run"), QUIET)


def test_every_control_is_a_line_and_splits_of_speakers_share_nothing(content: dict[str, Any]) -> None:
    found = by_name(content)
    assert {"random", "shuffled", "duration", "loudness", "duration and loudness", "speaker mean"} <= {*found}
    assert not [one["line"] for one in content["findings"] if one["warns"] and one["section"] in ("leakage", "labels")]
    assert not found["shuffled"]["warns"]
    assert found["random"]["score"] != content["score"]
    assert re.fullmatch(r"none of \d+ utterances is next to silent .*", found["silence"]["line"])
    assert "with random weights (chance: 0.3" in found["random"]["line"]
    assert "without each speaker's mean (chance: 0.3" in found["speaker mean"]["line"]
    assert "text: not known" not in found["text"]["line"]
    assert json.loads(json.dumps(content)) == json.loads((Path(content["run"]) / "audit.json").read_text())


def test_the_audit_is_the_same_every_time_and_says_why_it_computes_features_again(
    content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(Path(content["run"]), Runtime("cpu")) == content
    assert "random    the same upstream with random weights: its features are computed once too" in capsys.readouterr().err


def test_lines_that_warn_are_marked(content: dict[str, Any]) -> None:
    lines = printed({**content, "findings": [{"section": "audio", "line": "bad", "warns": True}]})
    assert lines[-2:] == ["audio that is not what it seems:", "! bad"]
    assert lines[0].startswith("UNTRAINED: test_hubert: emotion on manifest, test: 12 utterances, 2 speakers: UA ")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of noise whose class is its duration, with a copy of a training file under another label in test."""
    folder, generator = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    rows = ["audio,label,speaker,gender,split"]
    for number in range(120):
        label, speaker = number % 3, number // 10
        count = int(16_000 * (0.25 + 0.1 * label) * generator.uniform(0.9, 1.1))
        noise = (
            0.1 * generator.standard_normal(count) * np.interp(np.arange(count), np.linspace(0, count, 9), generator.random(9))
        )
        soundfile.write(folder / f"{number}.wav", noise, 16_000)
        split = "train" if speaker < 7 else "dev" if speaker < 9 else "test"
        rows.append(f"{number}.wav,{'abc'[label]},s{speaker},{'fm'[speaker % 2]},{split}")
    original, _ = soundfile.read(folder / "4.wav")
    soundfile.write(folder / "copy.wav", 0.5 * original[60:], 16_000)
    shutil.copy(folder / "5.wav", folder / "same.wav")
    soundfile.write(folder / "silent.wav", np.full(4800, 1e-4), 16_000)
    rows += ["copy.wav,a,s11,m,test", "same.wav,c,s1,m,test", "silent.wav,b,s11,m,test"]
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return folder / "table.csv"


def test_planted_faults_are_found(planted: Path, tmp_path: Path) -> None:
    found = audited(tmp_path / "run", planted)
    assert found["duration"]["warns"]
    assert found["duration"]["score"] > 0.8
    assert not found["loudness"]["warns"]
    assert (found["audio"]["rows"], found["near"]["rows"], found["speaker"]["rows"]) == (1, 2, 1)
    assert found["duplicates"]["warns"]
    assert found["torn"]["line"] == "1 pair of one recording has two labels (4.wav: b, copy.wav: a)"
    assert not [one["line"] for one in found.values() if str(planted.parent) in one["line"]]
    assert found["silence"]["ids"]
    assert re.match(r"2 of \d+ utterances repeat a recording of another \(", found["duplicates"]["line"])
    assert "has no weights" in found["random"]["line"]
    assert {*found["by gender"]["groups"]} == {"f", "m"}


def scale_of(speakers: list[str]) -> Scale:
    """UA of three classes."""
    vocabulary = {"classes": ["a", "b", "c"], "merge": {}, "key": "label", "counts": {}}
    return Scale(QUESTION, vocabulary, {}, "ua", speakers)


def outcome_of(predictions: Any, references: Any) -> Outcome:
    """Predictions beside references."""
    names = np.array(["a", "b", "c"])
    return Outcome(tuple(map(str, range(len(references)))), tuple(names[predictions]), tuple(names[references]))


def test_no_shortcut_is_claimed_of_numbers_that_say_nothing() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        truth = generator.integers(0, 3, 120)
        scale = scale_of([f"s{row % 10}" for row in range(120)])
        assert not numbers_finding("duration", outcome_of(generator.integers(0, 3, 120), truth), scale, 0.8).warns
        several = [outcome_of(generator.integers(0, 3, 120), truth) for _ in range(20)]
        assert not shuffled_finding(several, scale, 1 / 3).warns


def test_labels_that_leak_into_shuffled_ones_are_claimed() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 120)
    guesses = [np.where(generator.random(120) < 0.2, truth, generator.integers(0, 3, 120)) for _ in range(20)]
    assert shuffled_finding([outcome_of(one, truth) for one in guesses], scale_of(["s"] * 120), 1 / 3).warns


def test_a_run_that_was_trained_by_steps_is_refused(finished: Path) -> None:
    with pytest.raises(UserError, match=r"Expected a run with solver=exact to audit .* found solver=adam"):
        audit(finished, QUIET)
