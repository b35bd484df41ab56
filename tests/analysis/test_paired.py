"""Two runs side by side: the difference is one of the same utterances, and its interval of the same speakers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headwater.analysis.paired import paired_difference
from headwater.errors import UserError

CLASSES = ["a", "b"]


def run_of(folder: Path, right: dict[str, bool]) -> Path:
    """A finished run's files, as far as a comparison reads them: who was answered rightly."""
    folder.mkdir()
    (folder / "config.yaml").write_text("task: emotion\nupstream: {name: fbank}\ncorpus: {name: iemocap}\n")
    vocabulary = {"emotion": {"classes": CLASSES, "merge": {}, "key": "emotion", "counts": {}}}
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary))
    lines = ["id,file,start,duration,speaker,reference,prediction"]
    for number, (name, is_right) in enumerate(right.items()):
        truth = CLASSES[number % 2]
        lines.append(f"{name},x.wav,0,1,s{number % 10},{truth},{truth if is_right else CLASSES[1 - number % 2]}")
    (folder / "predictions-test.csv").write_text("\n".join(lines) + "\n")
    return folder


def answers(share: float, count: int = 200) -> dict[str, bool]:
    draws = np.random.default_rng(0).random(count)
    return {f"u{number}": bool(draw < share) for number, draw in enumerate(draws)}


def test_a_run_differs_from_itself_by_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "one", answers(0.7))
    found = paired_difference(run, run, "wa")
    assert (found.value, found.interval, found.utterances) == (0.0, (0.0, 0.0), 200)


def test_a_better_run_is_better_by_what_it_answers_more(tmp_path: Path) -> None:
    one, other = run_of(tmp_path / "one", answers(0.6)), run_of(tmp_path / "other", answers(0.9))
    found = paired_difference(one, other, "wa")
    assert found.value == pytest.approx(sum(answers(0.9).values()) / 200 - sum(answers(0.6).values()) / 200)
    assert found.interval is not None
    assert 0 < found.interval[0] < found.value < found.interval[1]


def test_only_utterances_that_both_have_answered_count(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", answers(0.7))
    fewer = run_of(tmp_path / "fewer", dict(list(answers(0.7).items())[:60]))
    assert paired_difference(one, fewer, "wa").utterances == 60
    assert paired_difference(one, fewer, "wa").value == 0.0


def test_runs_of_other_utterances_or_an_unknown_metric_are_refused(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", answers(0.7))
    other = run_of(tmp_path / "other", {f"v{number}": True for number in range(20)})
    with pytest.raises(UserError, match=r"Expected the same utterances in .* found none in common"):
        paired_difference(one, other, "wa")
    with pytest.raises(UserError, match=r"Expected a metric of emotion .* found 'eer'"):
        paired_difference(one, one, "eer")
