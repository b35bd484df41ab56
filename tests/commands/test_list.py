"""`headwater list`: the names that flags take."""

from __future__ import annotations

import pytest

from headwater.commands.list_ import main
from headwater.downstream.load import built_in_tasks
from headwater.runs.config.recipes import RECIPES


def test_each_line_says_whether_an_upstream_takes_audio_or_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upstreams", "*bert"]) == 0
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert {rows[name] for name in ("hubert", "test_hubert", "distilhubert")} == {"audio"}
    assert {rows[name] for name in ("bert", "tinybert", "test_bert", "distilbert")} == {"text"}


def test_every_task_is_listed_with_its_usual_corpus_and_its_own_metric_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert {*rows} == {*built_in_tasks()}
    assert rows["emotion"].split() == ["emotion", "iemocap", "Headwater", "ua,", "wa,", "macro_f1"]


def test_every_recipe_is_listed_below_the_command_that_runs_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    command, found = "", {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("headwater"):
            command = line.split(":")[0]
        else:
            found[line.split()[0]] = command
    assert {*found} == {str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.yaml")}
    assert found["turbo/paper"] == "headwater recipe NAME --plan"
    assert found["superb/emotion"] == "headwater downstream -u UPSTREAM -c NAME"
    assert found["mtl/paper"] == "headwater mtl -u UPSTREAM -c NAME"
