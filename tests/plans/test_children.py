"""The processes of a plan end with the one that started them, and leave nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from processes import start

from headwater.core.errors import UserError
from headwater.core.files import is_alive
from headwater.core.run_folder import RunFolder
from headwater.plans.execute import run_parts
from headwater.plans.grid import expand
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.runtime import Runtime

SECONDS = 20.0  # for processes on a busy machine to end


def until(found: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, and return whether it is."""
    deadline = time.monotonic() + seconds
    while not found() and time.monotonic() < deadline:
        time.sleep(0.05)
    return found()


def holders(plan: Path) -> list[int]:
    """Return the processes that train the runs of a plan."""
    texts = [path.read_text() for path in plan.glob("seed*/.lock") if (path.parent / "metrics.jsonl").is_file()]
    return [int(number) for text in texts for number in re.findall(r"process (\d+)", text)]


@pytest.fixture
def long(config: RunConfig) -> RunConfig:
    """A run that nobody waits for."""
    return replace(config, training=replace(config.training, steps=1_000_000, eval_every=1_000_000))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])  # TERM and HUP end it as KILL does
def test_the_runs_of_a_plan_end_with_it_and_leave_no_recipe(number: signal.Signals, long: RunConfig, tmp_path: Path) -> None:
    recipe, plan = tmp_path / "recipe.yaml", tmp_path / "plan"
    recipe.write_text(yaml.safe_dump(to_mapping(long)))
    parent = start("-m", "headwater", "downstream", "-c", recipe, "-p", plan, "--device", "cpu", "--seeds", "1,2", "--jobs", "2")
    assert until(lambda: len(holders(plan)) == 2, 120), parent.message()
    children = holders(plan)
    parent.send_signal(number)
    assert until(lambda: not any(map(is_alive, children)), SECONDS), "they go on without it"
    with pytest.raises(AssertionError):
        parent.finish()
    with RunFolder(plan).recipes():
        pass
    assert {path.name for path in plan.iterdir()} == {"seed1", "seed2", "plan.json"}


def test_recipes_of_a_plan_that_is_at_work_stay(tmp_path: Path) -> None:
    begin = f".recipes.{socket.gethostname()}"
    finished = subprocess.Popen(["true"])
    finished.wait()
    others = [tmp_path / f"{begin}.{os.getppid()}", tmp_path / ".recipes.elsewhere.1"]
    for folder in (*others, tmp_path / f"{begin}.{finished.pid}"):
        folder.mkdir(parents=True)
    with RunFolder(tmp_path).recipes() as own:
        assert {*tmp_path.iterdir()} == {*others, own}
    assert {*tmp_path.iterdir()} == {*others}


def test_a_plan_that_starts_nothing_leaves_no_folder(config: RunConfig, tmp_path: Path) -> None:
    broken = config.with_only(replace(config.only, corpus=replace(config.only.corpus, data=str(tmp_path / "none.csv"))))
    with pytest.raises(UserError, match="stopped: Expected"):
        run_parts(expand(broken, [1], [1, 2], []), tmp_path / "plan", Runtime("cpu", quiet=True), jobs=2)
    assert not (tmp_path / "plan").exists()
