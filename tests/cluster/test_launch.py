"""Plans handed to a cluster: what is submitted, in which order, with what, and what comes back; no Slurm is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_slurm import FakeSlurm

from headwater.commands import downstream, mtl, recipe, status
from headwater.commands.common.shell import run_command
from headwater.core.errors import UserError
from headwater.core.run_folder import RunFolder
from headwater.plans.cluster.job import RunJob, job_of
from headwater.plans.cluster.profile import Profile, read_profile
from headwater.plans.grid import expand
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUICK = {"steps": 2, "eval_every": 2, "save_every": 2, "log_every": 1}
PROFILE = {"partition": "gpu", "account": "speech", "gpus": 1, "cpus": 2, "memory": "8 GB", "time": "1d2h", "at_once": 4}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A cluster that takes notes, and a profile for it; the test works in a folder of its own."""
    cluster = FakeSlurm.make(tmp_path / "cluster")
    monkeypatch.setenv("PATH", cluster.path)
    profile = tmp_path / "cluster.yaml"
    profile.write_text(yaml.safe_dump({"data": {"iemocap": "/nowhere"}, "cluster": {"profiles": {"gpu": PROFILE}}}))
    monkeypatch.setenv("HEADWATER_CONFIG", str(profile))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return cluster


@pytest.fixture
def words(config: RunConfig, tmp_path: Path) -> list[str]:
    """A sweep of two runs."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(to_mapping(config)))
    return ["-c", str(tmp_path / "recipe.yaml"), "--sweep", "optimizer.lr=1e-2,1e-3", "-p", "plan", "--device", "cpu"]


RUNS = ["optimizer.lr=1e-2", "optimizer.lr=1e-3"]


def typed(verb: Callable[[list[str]], int], words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Type a command in this process; return its exit code and what it printed."""
    capsys.readouterr()
    code = run_command(verb, words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def statuses(capsys: pytest.CaptureFixture[str], folder: str = "plan") -> dict[str, dict[str, Any]]:
    """Return the status of each run of a plan, and of its tables."""
    code, out, err = typed(status.main, [folder, "--json"], capsys)
    assert code == 0, err
    found = json.loads(out)
    return {row["name"]: row for row in [*found["runs"], *([found["tables"]] if found["tables"] else [])]}


def test_runs_that_start_from_others_wait_for_these_and_the_tables_for_all(
    slurm: FakeSlurm, rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = {"corpus": {"data": str(rated)}, "batch_size": 4}
    tasks = {"emotion": corpus, "dsd": {**corpus, "labels": {"column": "directed"}}}
    alone = {"training": {**QUICK, "batch_size": 6}}
    joint = {"upstream": {"name": "test_hubert", "trainable": True}, "tasks": tasks, "training": QUICK, "transfer": alone}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(joint))
    words = ["-c", str(tmp_path / "recipe.yaml"), "--scenario", "transfer", "--device", "cpu"]

    code, out, err = typed(mtl.main, [*words, "-p", "plan", "--launch", "slurm"], capsys)
    assert code == 0, err
    assert "submitted 4 of 4 runs to Slurm as jobs 11, 12, 13, profile gpu\ntables    job 14, after the last run" in out
    waits = {job: slurm.option(job, "dependency") for job in slurm.submissions()}
    assert waits == {"11": "", "12": "afterany:11_0", "13": "afterany:11_1", "14": "afterany:11:12:13"}
    assert slurm.elements("11") == ["11_0", "11_1"], "runs that are ready together are one array"
    assert not [*Path("plan").rglob("config.yaml")], "nothing is trained here"
    slurm.write("queue", "11_0|RUNNING|None\n11_1|PENDING|Priority\n12|PENDING|Dependency\n13|PENDING|Dependency\n")
    found = statuses(capsys)
    assert sorted(row["state"] for row in found.values() if row["job"] in ("11_0", "11_1")) == ["running", "waiting"]
    assert found["transfer-emotion/seed1"]["note"] == "starts from without-emotion/seed1; Slurm: Dependency"

    slurm.write("queue", "")
    assert slurm.run_all() == {"11_0": 0, "11_1": 0, "12": 0, "13": 0, "14": 0}, Path("plan/slurm/11_0_0_log.out").read_text()
    code, out, err = typed(mtl.main, [*words, "-p", "local"], capsys)
    assert code == 0, err
    tables = [path for path in Path("local").iterdir() if path.suffix in (".csv", ".md")]
    assert len(tables) > 2
    for path in tables:
        assert (Path("plan") / path.name).read_bytes() == path.read_bytes(), path.name
    assert {row["state"] for row in statuses(capsys).values()} == {"done"}


def test_what_is_finished_or_at_work_is_not_submitted_again(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    launch = [*words, "--launch", "slurm"]
    assert "submitted 2 of 2 runs to Slurm as job 11" in typed(downstream.main, launch, capsys)[1]
    slurm.write("queue", "11_0|RUNNING|None\n11_1|PENDING|Priority\n12|PENDING|Dependency\n")
    _, out, err = typed(downstream.main, launch, capsys)
    assert "submitted 0 of 2 runs to Slurm, profile gpu; 2 at work already (11)" in out, err
    assert [*slurm.submissions()] == ["11", "12"]

    assert slurm.run("11_0") == 0
    slurm.write("queue", "11_1|CANCELLED|None\n12|PENDING|Dependency\n")
    row = statuses(capsys)[RUNS[1]]
    assert (row["state"], row["note"]) == ("failed", "CANCELLED: its log is empty (slurm/11_1_0_log.out)")
    _, out, err = typed(downstream.main, launch, capsys)
    assert "submitted 1 of 2 runs to Slurm as job 13, profile gpu; 1 finished\ntables    job 14" in out, err
    assert (slurm.state / "cancelled").read_text() == "12\n", "tables of before would not wait for the new run"
    slurm.write("queue", "")
    assert slurm.run("13") == 0
    _, out, _ = typed(downstream.main, launch, capsys)
    assert "submitted" not in out, "all is there: only the table is left"
    assert "optimizer.lr=1e-2" in out


def test_tables_wait_for_new_runs_and_for_those_at_work(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    typed(downstream.main, [*words, "--launch", "slurm"], capsys)
    slurm.write("queue", "11_0|RUNNING|None\n11_1|CANCELLED|None\n12|PENDING|Dependency\n")
    _, out, err = typed(downstream.main, [*words, "--launch", "slurm"], capsys)
    assert "submitted 1 of 2 runs to Slurm as job 13, profile gpu; 1 at work already (11)\ntables    job 14" in out, err
    assert slurm.option("14", "dependency") == "afterany:11:13"


def test_the_parts_of_a_recipe_are_submitted_but_those_whose_corpus_is_not_here(
    slurm: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"name": "test_distilhubert", "trainable": True, "keep_layers": 1}
    parts = {
        "frozen": {"upstream": {"name": "part:tuned", "trainable": False}},
        "tuned": {},
        "elsewhere": {"task": "ks", "corpus": {"name": "speech_commands", "demo": False}},
    }
    base = {"task": "emotion", "corpus": {"name": "iemocap", "demo": True}, "upstream": tiny}
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump({"paper": "A paper", "seeds": [1, 2], "base": base, "parts": parts}))
    code, out, err = typed(recipe.main, [str(tmp_path / "paper.yaml"), "--launch", "slurm"], capsys)
    assert "submitted 4 of 6 runs to Slurm as jobs 11, 12, 13, profile gpu; 2 passed over\ntables    job 14" in out, err
    assert "missing   elsewhere: speech_commands is not here" in out
    assert code == 3, "as where the other parts are trained here"
    waits = {job: slurm.option(job, "dependency") for job in slurm.submissions()}
    assert waits == {"11": "", "12": "afterany:11_0", "13": "afterany:11_1", "14": "afterany:11:12:13"}
    found = statuses(capsys, "result/recipes/paper")
    passed = [row for name, row in found.items() if name.startswith("elsewhere/")]
    assert [(row["state"], "is not here" in row["note"]) for row in passed] == [("failed", True)] * 2


def test_a_folder_with_another_run_is_refused_before_anything_is_submitted(
    slurm: FakeSlurm, words: list[str], config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(config, seed=7), Path("plan") / RUNS[0], Runtime("cpu", quiet=True))
    code, _, err = typed(downstream.main, [*words, "--launch", "slurm"], capsys)
    assert (code, f"Expected the same run in 'plan/{RUNS[0]}', found another one there" in err) == (2, True), err
    assert not slurm.submissions()


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_submitted(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = typed(downstream.main, [*words, "-o", "track=wnadb", "--launch", "slurm"], capsys)
    assert (code, "found 'wnadb'. Did you mean 'wandb'?" in err) == (2, True), err
    assert not slurm.submissions()


def test_two_submissions_at_once_do_not_send_the_same_runs(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder(Path("plan/slurm")).locked():
        code, _, err = typed(downstream.main, [*words, "--launch", "slurm"], capsys)
    assert (code, "to be free, found that process" in err) == (2, True), err
    assert not slurm.submissions()


def test_the_profile_stands_in_what_is_submitted(slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    extra = {
        "setup": ["module load cuda"],
        "sbatch": ["--constraint=a100", "--exclusive"],
        "tables": {"partition": "cpu", "gpus": 0},
    }
    profiles = {"default": "b", "profiles": {"a": {}, "b": {**PROFILE, **extra}}}
    Path("../cluster.yaml").write_text(yaml.safe_dump({"cluster": profiles}))
    assert typed(downstream.main, [*words, "--launch", "slurm"], capsys)[0] == 0
    wanted = {"partition": "gpu", "account": "speech", "gpus-per-node": "1", "cpus-per-task": "2", "mem": "8GB", "time": "1560"}
    wanted |= {"constraint": "a100", "exclusive": "yes", "requeue": "yes", "array": "0-1%2", "job-name": "headwater-plan"}
    assert {name: slurm.option("11", name) for name in wanted} == wanted
    text = slurm.submissions()["11"]
    assert text.index("module load cuda") < text.index("export OMP_NUM_THREADS=2") < text.index("srun ")
    assert (slurm.option("12", "partition"), slurm.option("12", "gpus-per-node")) == ("cpu", "")


def test_a_run_that_was_submitted_alone_has_no_tables(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [*words[:2], *words[4:], "--launch", "slurm"]
    _, out, err = typed(downstream.main, alone, capsys)
    assert "submitted 1 of 1 run to Slurm as job 11, profile gpu\nlogs" in out, err
    assert slurm.run("11") == 0
    assert RunFolder(Path("plan")).is_finished
    assert statuses(capsys)["."]["state"] == "done"


def test_a_job_without_its_start_says_so(config: RunConfig, tmp_path: Path) -> None:
    [part] = expand(config, [1], [1], [])
    with pytest.raises(UserError, match=r"Expected the run 'first', from which '\.' starts, found that it is not finished"):
        job_of(replace(part, needs={"stage:first": "first"}), tmp_path, Runtime()).run()


def test_a_job_refuses_code_that_was_edited_since(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("print('other')\n")
    job = RunJob(tmp_path, ".", b"", [(str(code), "0" * 64)], [])
    with pytest.raises(UserError, match=r"as the command began with it \(00000000\), found it edited or gone"):
        job.run()


MISTAKES: Mapping[str, tuple[Any, str]] = {
    "an unknown option": ({"profiles": {"a": {"gpu": 1}}}, "Unknown option 'profiles.a.gpu'. Did you mean 'gpus'?"),
    "an unknown section": ({"profile": {"a": {}}}, "Unknown option 'cluster.profile'"),
    "no profiles": ({"profiles": []}, "Expected a mapping `cluster.profiles`"),
    "none of two": ({"profiles": {"a": {}, "b": {}}}, "Expected --profile with one of a, b"),
    "a default that is not there": ({"default": "c", "profiles": {"a": {}}}, "found 'c'. There: a."),
    "a time as yaml reads 4:00:00": ({"profiles": {"a": {"time": 14400}}}, "found the number 14400. Add a unit."),
    "a time in words": (
        {"profiles": {"a": {"time": "4 hours"}}},
        "such as 30m, 4h or 1d12h at 'profiles.a.time', found '4 hours'",
    ),
    "memory without a unit": ({"profiles": {"a": {"memory": "32"}}}, "Expected memory such as 32GB"),
    "an option of ours": ({"profiles": {"a": {"sbatch": ["--array=0-3"]}}}, "found --array, which each job has of its own"),
    "an option with a name here": ({"profiles": {"a": {"sbatch": ["--mem=3G"]}}}, "Expected 'profiles.a.memory', found --mem"),
    "no option": ({"profiles": {"a": {"sbatch": ["a100"]}}}, "found 'a100'. Begin it with --."),
    "no GPU less": ({"profiles": {"a": {"gpus": -1}}}, "of 0 or more"),
    "tables with another key": ({"profiles": {"a": {"tables": {"gpu": 0}}}}, "Unknown option 'profiles.a.tables.gpu'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_profile_is_one_line(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = MISTAKES[mistake]
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"cluster": content}))
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "cluster.yaml"))
    with pytest.raises(UserError) as problem:
        read_profile(None)
    assert message in str(problem.value)
    assert str(tmp_path / "cluster.yaml") in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_profile_without_options_is_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "headwater.yaml").write_text("cluster: {profiles: {a: null}}\n")
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "headwater.yaml"))
    assert read_profile(None) == ("a", Profile())


def test_what_a_machine_lacks_is_one_line(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = [*words, "--launch", "slurm"]
    slurm.write("refusal", "sbatch: error: invalid partition specified: gpu\nsbatch: error: Batch job submission failed.\n")
    code, _, err = typed(downstream.main, launch, capsys)
    assert code == 2
    assert "Expected sbatch to take 2 jobs, found: invalid partition specified: gpu; Batch job submission failed" in err
    assert not [path for path in Path("plan").rglob("*") if path.suffix in (".pkl", ".sh")], "half a submission"
    monkeypatch.setenv("PATH", "")
    code, _, err = typed(downstream.main, launch, capsys)
    assert (code, "Expected Slurm's sbatch on this machine for --launch slurm, found none" in err) == (2, True), err
    Path("../cluster.yaml").unlink()
    code, _, err = typed(downstream.main, launch, capsys)
    assert (code, "found none. Write them as in docs/guides/clusters.md" in err) == (2, True), err


def test_flags_that_do_not_go_together_are_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "Expected --launch slurm beside --profile a" in typed(downstream.main, [*words, "--profile", "a"], capsys)[2]
    assert "found --jobs 2" in typed(downstream.main, [*words, "--launch", "slurm", "--jobs", "2"], capsys)[2]
    code, _, err = typed(downstream.main, [*words, "--launch", "none"], capsys)
    assert code == 2
    assert f"Expected all of the 2 runs in 'plan' finished for --launch none, found that {RUNS[0]}, {RUNS[1]} are not" in err
    code, _, err = typed(downstream.main, ["-m", "evaluate", "-e", "plan", "--launch", "slurm"], capsys)
    assert (code, "Expected --launch beside -m train" in err) == (2, True)


def test_submitit_is_named_where_it_is_missing(
    slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    code, _, err = typed(downstream.main, [*words, "--launch", "slurm"], capsys)
    assert (code, "Expected submitit for --launch slurm, found none. Run: pip install" in err) == (2, True), err
    assert slurm.submissions() == {}


def test_the_status_of_a_local_plan_needs_no_slurm(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    parts = expand(config, [1], [1], ["optimizer.lr=1e-2,1e-3"])
    run(parts[0].config, Path("plan") / parts[0].name, Runtime("cpu", quiet=True))
    left, lost = Path("plan/second"), Path("plan/third")
    for name in ("config.yaml", "metrics.jsonl"):
        for place in (left, lost):
            place.mkdir(exist_ok=True)
            shutil.copy(Path("plan") / parts[0].name / name, place)
    (lost / "stopped.txt").write_text("Traceback\nMemoryError: too much\n")
    names = [parts[0].name, "second", "third", "fourth", "fifth"]
    runs = [{"name": name, "steps": 12, "needs": ["second"] if name == "fourth" else []} for name in names]
    Path("plan/plan.json").write_text(json.dumps({"runs": runs, "failed": {"fifth": "Expected a corpus, found none."}}))
    with RunFolder(left).locked():
        found = statuses(capsys)
    assert [found[name]["state"] for name in names] == ["done", "running", "failed", "waiting", "failed"]
    assert found["second"]["step"] == 12
    assert (found["third"]["note"], found["fifth"]["note"]) == ("MemoryError: too much", "Expected a corpus, found none.")
    assert found[parts[0].name]["note"].startswith("test ua ")
    assert statuses(capsys)["second"]["state"] == "stopped"
    code, out, _ = typed(status.main, ["plan"], capsys)
    assert (code, "plan      plan: 1 waiting, 1 done, 1 stopped, 2 failed" in out) == (0, True), out


def test_what_slurm_does_not_say_is_not_guessed(slurm: FakeSlurm, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    typed(downstream.main, [*words, "--launch", "slurm"], capsys)
    Path("plan/slurm/11_0_0_log.out").write_text("step 4\nslurmstepd: error: gone\n")
    slurm.write("down", "")
    assert {row["state"] for row in statuses(capsys).values()} == {"unknown"}
    code, out, err = typed(status.main, ["plan"], capsys)
    assert code == 0
    assert "Expected squeue to work, found: slurm_load_jobs error: Unable to contact slurm controller" in err
    assert "step 4 (slurm/11_0_0_log.out)" in out
    (slurm.state / "down").unlink()
    slurm.write("accounts", "11_0|TIMEOUT\n11_0.batch|CANCELLED\n11_1|CANCELLED by 0\n")
    found = statuses(capsys)
    assert [found[name]["note"].partition(":")[0] for name in RUNS] == ["TIMEOUT", "CANCELLED"]
    assert found[RUNS[0]]["note"] == "TIMEOUT: step 4 (slurm/11_0_0_log.out)"


@pytest.mark.parametrize(("folder", "message"), [("none", "found none at 'none'"), ("empty", "in 'empty', found neither")])
def test_a_folder_without_a_plan_is_one_line(
    folder: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    code, _, err = typed(status.main, [folder], capsys)
    assert (code, message in err) == (2, True), err


@pytest.mark.parametrize(
    ("name", "content"),
    [("plan.json", {"runs": [{"called": "a"}], "failed": {}}), ("jobs.json", {"name": "a", "jobs": {}, "tables": "", "more": 1})],
)
def test_a_record_of_another_kind_is_one_line(
    name: str, content: dict[str, Any], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan").mkdir()
    shutil.copytree(finished, tmp_path / "plan" / "run")
    place = RunFolder(tmp_path / "plan")
    path = {"plan.json": place.plan, "jobs.json": place.jobs}[name]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    code, _, err = typed(status.main, [str(tmp_path / "plan")], capsys)
    assert (code, err.count("\n"), str(path) in err) == (2, 1, True), err
