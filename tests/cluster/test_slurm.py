"""A real Slurm on loopback: plans as arrays, one job queued again while it runs, and the tables of the local plan to the byte."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typed import Typed, type_command

SCRIPT = Path(__file__).with_name("slurm.sh")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SECONDS = 400.0  # of a machine that others use, too
QUICK = {"steps": 40, "eval_every": 20, "save_every": 10, "log_every": 5, "batch_size": 8, "patience": None}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node with four slots; what the commands need in their environment."""
    if not os.environ.get("HEADWATER_REQUIRE_SLURM"):
        pytest.skip("a cluster is set up where HEADWATER_REQUIRE_SLURM=1 asks for it: it takes minutes")
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    assert not lacking, f"{lacking[0]} is not on this machine: tests/cluster/slurm.sh install"
    folder = tmp_path_factory.mktemp("slurm")
    up = subprocess.run([SCRIPT, "up", folder], capture_output=True, text=True, check=False)
    assert up.returncode == 0, up.stderr
    profile = folder / "cluster.yaml"
    profile.write_text(yaml.safe_dump({"cluster": {"profiles": {"test": {"cpus": 1, "time": "10m"}}}}))
    yield {"SLURM_CONF": str(folder / "slurm.conf"), "HEADWATER_CONFIG": str(profile)}
    subprocess.run([SCRIPT, "down", folder], check=True)


def until(found: Callable[[], Any], what: str, status: Callable[[], str]) -> Any:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline, f"{what}: not after {SECONDS:.0f} s. {status()}"
        time.sleep(0.3)
    return value


class Plan:
    """A plan of one command, here and on the cluster, in a folder of the same name."""

    def __init__(self, words: list[str], here: Path, there: Path, environment: Mapping[str, str]) -> None:
        self.words, self.here, self.there, self.environment = words, here, there, environment
        for place in (here, there):
            place.mkdir(parents=True)

    def local(self) -> Typed:
        """Run it here."""
        return type_command(self.words, self.here)

    def launch(self) -> Typed:
        """Submit it."""
        return type_command([*self.words, "--launch", "slurm"], self.there, self.environment)

    def status(self) -> dict[str, Any]:
        """Return what `headwater status` prints."""
        return json.loads(type_command(["status", "plan", "--json"], self.there, self.environment).stdout)

    def run(self, name: str) -> dict[str, Any]:
        """Return the status of a run."""
        return next(row for row in self.status()["runs"] if row["name"] == name)

    def slurm(self, *words: str) -> str:
        """Type a command of Slurm's."""
        done = subprocess.run(words, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def finish(self) -> str:
        """Wait until all jobs have ended, and return the log of the last one."""
        until(lambda: not self.slurm("squeue", "-h").strip(), "an empty queue", lambda: json.dumps(self.status(), indent=1))
        return self.tables_log().read_text()

    def tables_log(self) -> Path:
        """Return the log of the last job."""
        return self.there / "plan" / "slurm" / f"{self.status()['tables']['job']}_0_log.out"

    def compare(self) -> None:
        """Compare what the plan wrote, here and there, byte by byte."""
        found = {
            path.relative_to(place / "plan"): path.read_bytes()
            for place in (self.here,)
            for path in (place / "plan").rglob("*")
            if path.suffix in (".csv", ".md") or (path.parent == place / "plan" and path.name == "result.json")
        }
        assert len(found) > 5, [*found]
        for name, content in found.items():
            assert (self.there / "plan" / name).read_bytes() == content, name


def table_of(text: str) -> list[str]:
    """Return the lines of a command's output from its table on, without what submitit adds, and the time left."""
    lines = [line for line in text.splitlines() if not line.startswith(("submitit ", "note:", "plan ", "hours "))]
    return lines[next(number for number, line in enumerate(lines) if line.startswith(("DEMO", "UNTRAINED", "metric"))) :]


def test_a_plan_of_scenarios_goes_through_one_requeued_job_to_the_same_tables_and_relations(
    slurm: dict[str, str], rated: Path, tmp_path: Path
) -> None:
    tasks = {name: {"corpus": {"data": str(rated)}, "batch_size": 4} for name in ("emotion", "dsd")}
    tasks["dsd"]["labels"] = {"column": "directed"}
    alone = {"training": {**QUICK, "steps": 20}}
    upstream = {"name": "test_hubert", "trainable": True}
    joint = {key: value for key, value in QUICK.items() if key != "batch_size"} | {"steps": 600, "eval_every": 600}
    recipe = {"upstream": upstream, "tasks": tasks, "training": joint, "single": alone, "transfer": alone}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = ["mtl", "-c", str(tmp_path / "recipe.yaml"), "--scenario", "transfer", "-p", "plan", "--device", "cpu"]
    plan = Plan(words, tmp_path / "here", tmp_path / "there", slurm)

    first = plan.launch()
    assert first.code == 0, first.stderr
    assert "submitted 4 of 4 runs to Slurm as jobs" in first.stdout
    name = "without-dsd/seed1"
    saved = plan.there / "plan" / name / "checkpoints" / "last.safetensors"
    until(saved.is_file, "a checkpoint", lambda: json.dumps(plan.status(), indent=1))
    job = plan.run(name)["job"]
    plan.slurm("scontrol", "requeue", job)
    again = plan.launch()
    assert "submitted 0 of 4 runs to Slurm" in again.stdout, again.stderr
    counts = re.findall(r"(\d+) (?:finished|at work already)", again.stdout)
    assert sum(map(int, counts)) == 4, again.stdout
    row = plan.run("transfer-dsd/seed1")
    assert row["state"] == "waiting", row
    assert row["note"].startswith("starts from without-dsd/seed1"), row
    local = plan.local()
    log = plan.finish()

    status = plan.status()
    assert status["counts"] == {"done": 4}, status
    assert status["tables"]["state"] == "done", log
    requeued = (plan.there / "plan" / "slurm" / f"{job}_0_log.out").read_text()
    assert requeued.count("Starting with") == 2, requeued
    assert "going on  at step" in requeued, requeued
    plan.compare()
    assert table_of(log) == table_of(local.stdout)


def test_a_sweep_is_one_array_and_a_cancelled_run_alone_is_submitted_again(
    slurm: dict[str, str], tones: Path, tmp_path: Path
) -> None:
    options = ["solver=adam", *(f"training.{key}={'null' if value is None else value}" for key, value in QUICK.items())]
    words = ["downstream", "-u", "fbank_no_cmvn", "-d", "emotion", "--data", str(tones), "-p", "plan", "--device", "cpu"]
    words += ["--sweep", "optimizer.lr=1e-2,1e-3", "--seeds", "1,2", "-o", *options]
    plan = Plan(words, tmp_path / "here", tmp_path / "there", slurm)

    first = plan.launch()
    assert "submitted 4 of 4 runs to Slurm as job " in first.stdout, first.stderr
    name = "optimizer.lr=1e-3/seed2"
    job = plan.run(name)["job"]
    assert {row["job"].partition("_")[0] for row in plan.status()["runs"]} == {job.partition("_")[0]}, "no array"
    plan.slurm("scancel", job)
    log = plan.finish()
    row = plan.run(name)
    assert (row["state"], "CANCELLED" in row["note"]) == ("failed", True), row
    assert f"found that {name} is not" in log, log
    assert plan.status()["tables"]["state"] == "failed"

    second = plan.launch()
    assert "submitted 1 of 4 runs to Slurm" in second.stdout, second.stderr
    assert "3 finished" in second.stdout
    local = plan.local()
    log = plan.finish()
    assert plan.status()["counts"] == {"done": 4}, plan.status()
    plan.compare()
    assert table_of(log) == table_of(local.stdout)
    third = plan.launch()
    assert table_of(third.stdout) == table_of(local.stdout), "all is finished: tables at once"
