"""Mistakes with runs of several tasks."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from headwater.commands import mtl
from headwater.commands.common.shell import run_command
from headwater.core.errors import UserError
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

TYPED = "-u fbank_no_cmvn --tasks emotion,dsd --data emotion=tones/rated.csv --data dsd=tones/rated.csv -p mine --device cpu"
QUICK = "-o upstream.trainable=false tasks.dsd.labels.column=directed training.steps=2 training.eval_every=2"
GOOD = f"{TYPED} {QUICK}"
FINETUNED = f"{TYPED.replace('fbank_no_cmvn', 'test_hubert')} {QUICK.replace('trainable=false', 'trainable=true')}"

ALONE = "-u fbank_no_cmvn --tasks emotion --data emotion=tones/rated.csv -p mine"

# the mistake in words: what is typed, what the answer must say
MISTAKES_OF_FLAGS = {
    "a scenario nobody knows": (f"{GOOD} --scenario leave-one-in", "found 'leave-one-in'", "Did you mean 'leave-one-out'?"),
    "a task nobody knows": (f"{ALONE} --tasks emotion,kws", "task 'kws'"),
    "no task": ("-u fbank_no_cmvn -p mine", "Expected tasks, found none", "Add --tasks emotion,ks"),
    "no upstream": ("--tasks emotion,dsd -p mine", "Expected an upstream, found none", "-u hubert"),
    "a seed that is a date": (f"{ALONE} -o seed=2020-01-01", "'seed' to be a whole number, found datetime.date(2020, 1, 1)"),
    "an upstream that is a list": (f"{ALONE} -o upstream=[fbank]", "a mapping at 'upstream', found ['fbank']"),
    "a task that is a number": (f"{ALONE} -o tasks.emotion=5", "a mapping at 'tasks.emotion', found 5"),
    "tasks that are a number": (f"{ALONE} -o tasks=5", "a mapping at 'tasks', found 5"),
    "baselines that are a number": (f"{ALONE} -o baselines=5", "a mapping at 'baselines', found 5"),
    "a choice that is a number": (f"{ALONE} -o select=5", "'select' to be one of last, gain, found 5"),
    "the solver of one task": (f"{GOOD} -o solver=exact", "solver=adam of several tasks, found exact", "Leave it out"),
    "a corpus that is a word": (f"{ALONE} -o tasks.emotion.corpus=mine", "a mapping at 'tasks.emotion.corpus', found 'mine'"),
    "one task to leave out": (f"{ALONE} --scenario transfer", "at least two tasks", "found one", "Add more"),
    "a balance nobody knows": (f"{GOOD} --balance uncertain", "found 'uncertain'", "Did you mean 'uncertainty'?"),
    "a surgery nobody knows": (f"{FINETUNED} --balance torchjd:PCGard", "no aggregator 'PCGard'", "Did you mean 'PCGrad'?"),
    "weights of a task that is not there": (f"{GOOD} --balance kws=2", "found 'kws'", "balance.weights"),
    "weights that are no numbers": (f"{GOOD} --balance dsd=much", "--balance ks=2,asr=0.5", "found 'dsd=much'"),
    "surgery where nothing is shared": (
        f"{GOOD} --balance torchjd:PCGrad",
        "a frozen upstream and a weighted sum for each task",
        "upstream.trainable=true",
    ),
    "surgery of one task a step": (
        f"{FINETUNED} --balance torchjd:PCGrad --sampling round_robin",
        "all tasks in every step for --balance torchjd:PCGrad, found sampling round_robin",
        "Use --sampling all",
    ),
    "advice on one task": (
        f"{TYPED.replace('dsd', 'avd')} -o upstream.trainable=false tasks.avd.avd.scale='[7, 1]'",
        "avd: Expected avd.scale='[LOWEST, HIGHEST]'",
        "For instance: -o tasks.avd.avd.scale='[1, 7]'",
    ),
    "a sampling nobody knows": (f"{GOOD} --sampling proportionally", "'sampling.mode'", "found 'proportionally'"),
    "data for nobody": (f"{GOOD} --data ks=tones", "found 'ks'", "The tasks are emotion, dsd"),
    "heads of a task that is not there": (f"{GOOD} --init-heads kws=run", "--init-heads, found 'kws'", "They are emotion, dsd"),
    "a part that is not there": (f"{GOOD} --only without-dsd", "found 'without-dsd'", "There: emotion, dsd, all"),
    "a task of another plan": (f"{GOOD} --only emotion,dsd,ks", "tasks or parts of the plan after --only, found 'ks'"),
    "the plan of one task": (
        f"{GOOD} --only dsd --scenario paper",
        "at least two tasks",
        "found one",
        "Add more to --tasks or --only",
    ),
    "two folders": (f"{GOOD} -n a", "found both -n and -p", "Leave one out"),
    "no jobs": (f"{GOOD} --jobs 0", "--jobs of 1 or more, found 0"),
    "an option of a task that is not there": (
        f"{GOOD} tasks.ks.batch_size=2",
        "a task of the plan in -o tasks.ks",
        "They are emotion, dsd",
    ),
    "an option of no task": (f"{GOOD} -o tasks.dsd.optimizer.lr=1", "Unknown option 'tasks.dsd.optimizer'", "A task has:"),
    "a list of options": ("-c list.yaml -u fbank_no_cmvn -p mine", "a mapping 'tasks'", "Write `tasks: {ks: {}}`"),
}


@pytest.fixture
def mtl_error_of(
    desk: Path, rated: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Type a mistake after `run_mtl.py`; one line comes back before anything is trained, and nothing is left behind."""
    assert (desk / "tones" / rated.name).is_file()
    (desk / "list.yaml").write_text("tasks: {emotion: [1, 2]}\n")
    real = "headwater.runs.run.train"

    def train(*_: object) -> None:
        """Stand where the training would begin."""
        raise AssertionError("training began")

    def run(typed: str, *, lines: int = 1, trains: bool = False) -> str:
        """Type it."""
        if not trains:
            monkeypatch.setattr(real, train)
        before = set(desk.rglob("*"))
        capsys.readouterr()
        try:
            code = run_command(lambda words: mtl.main(words, prog="python run_mtl.py"), shlex.split(typed))
        except SystemExit as end:  # argparse leaves so
            code = int(end.code or 0)
        err = capsys.readouterr().err
        message = "\n".join(line for line in err.splitlines() if not line.startswith(("run ", "passed over: ")))
        assert code == 2, err
        assert message.startswith("error: "), err
        assert len(message.splitlines()) <= lines, err
        left = {str(path.relative_to(desk)) for path in set(desk.rglob("*")) - before}
        assert not left or trains, f"left behind: {sorted(left)}"
        return message

    return run


@pytest.mark.parametrize("mistake", MISTAKES_OF_FLAGS)
def test_a_wrong_plan_is_reported_in_one_line(mistake: str, mtl_error_of: Callable[..., str]) -> None:
    typed, *parts = MISTAKES_OF_FLAGS[mistake]
    line_shown = mtl_error_of(typed)
    assert all(part in line_shown for part in parts), line_shown


def test_jobs_in_a_launch_are_refused_with_the_two_commands_that_work(
    mtl_error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    line_shown = mtl_error_of(f"{GOOD} --jobs 2")
    assert "`torchrun --nproc_per_node N run_mtl.py …` without --jobs" in line_shown
    assert "`python run_mtl.py … --jobs 2`" in line_shown


def test_a_gain_without_its_baselines_is_refused(error_of: Callable[..., str], desk: Path) -> None:
    corpus = {"name": "manifest", "data": "tones/rated.csv"}
    recipe = {"select": "gain", "baselines": {"dsd": 0.5}, "tasks": {"emotion": {"corpus": corpus}, "dsd": {"corpus": corpus}}}
    (desk / "joint.yaml").write_text(yaml.safe_dump({"upstream": {"name": "fbank_no_cmvn"}, **recipe}))
    assert error_of("headwater downstream -c joint.yaml").endswith(
        "Expected baselines of all tasks for select=gain, found none of emotion. Run --scenario single first."
    )


def test_without_torchjd_the_command_that_brings_it_is_named(
    mtl_error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    assert mtl_error_of(f"{FINETUNED} --balance torchjd:PCGrad").rstrip(".").endswith("'[mtl]'")


@pytest.mark.skipif(importlib.util.find_spec("quadprog") is not None, reason="the solver is here")
def test_a_surgery_that_misses_its_solver_says_so_before_the_first_step(mtl_error_of: Callable[..., str]) -> None:
    pytest.importorskip("torchjd")
    line_shown = mtl_error_of(f"{FINETUNED} --balance torchjd:UPGrad")
    assert "the solver of torchjd's UPGrad, found none" in line_shown
    assert "'[mtl-solvers]'" in line_shown


def test_a_head_of_another_task_is_refused(mtl_error_of: Callable[..., str]) -> None:
    line_shown = mtl_error_of(f"{GOOD} --init-heads dsd=run")
    assert "a mismatch at 'experts.dsd" in line_shown
    assert "Name a run of the same upstream, task" in line_shown


def test_a_head_that_is_no_run_is_refused(mtl_error_of: Callable[..., str]) -> None:
    assert "found no checkpoint in 'tones'" in mtl_error_of(f"{GOOD} --init-heads dsd=tones")


def test_an_upstream_without_weights_is_not_finetuned(mtl_error_of: Callable[..., str]) -> None:
    line_shown = mtl_error_of(GOOD.replace("upstream.trainable=false", "seed=1"))
    assert "an upstream with weights for -f, found that 'fbank_no_cmvn' has none" in line_shown


def test_a_layer_that_is_not_there_is_refused(mtl_error_of: Callable[..., str]) -> None:
    assert "from 0 to 4" in mtl_error_of(f"{FINETUNED} upstream.layer=99")


def test_only_what_was_typed_is_refused_where_nothing_is_shared(
    mtl_error_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo's own recipe logs cosines of gradients: a frozen demo does without."""
    frozen = "-u test_hubert --tasks emotion,ks --demo -p mine --plan -o upstream.trainable=false"
    assert mtl.main(shlex.split(frozen)) == 0
    assert "emotion" in capsys.readouterr().out
    message = mtl_error_of(f"{frozen} balance.cosines_every=5")
    assert "weights that the tasks share for balance.cosines_every, found a frozen upstream" in message


@pytest.fixture
def joint(desk: Path, rated: Path) -> Path:
    """A finished joint run on the desk, and its recipe."""
    corpus = {"data": str(rated)}
    tasks = {"emotion": {"corpus": corpus}, "dsd": {"corpus": corpus, "labels": {"column": "directed"}}}
    training = {"steps": 2, "eval_every": 2}
    values = {"upstream": {"name": "fbank_no_cmvn"}, "tasks": tasks, "training": training}
    (desk / "joint.yaml").write_text(yaml.safe_dump(values))
    run(resolve([values]), desk / "joint", Runtime("cpu", quiet=True))
    return desk / "joint"


def test_another_configuration_in_the_same_folder_is_refused_with_each_difference(joint: Path, desk: Path) -> None:
    values = yaml.safe_load((desk / "joint.yaml").read_text())
    values["balance"] = {"method": "uncertainty"}
    values["tasks"]["dsd"]["batch_size"] = 3
    with pytest.raises(UserError) as caught:
        run(resolve([values]), joint, Runtime("cpu", quiet=True))
    assert "balance.method: sum -> uncertainty" in str(caught.value)
    assert "tasks.dsd.batch_size: 32 -> 3" in str(caught.value)
    assert "Choose another folder with -n or -p" in str(caught.value)


def test_asking_a_joint_run_without_a_task_names_its_tasks(joint: Path, error_of: Callable[..., str]) -> None:
    assert joint.is_dir()
    line_shown = error_of("headwater predict joint tones/00.wav")
    assert "one task of the run 'joint'" in line_shown
    assert "Add --task emotion or dsd" in line_shown
    assert "found 'ks'" in error_of("headwater predict joint tones/00.wav --task ks")


def test_a_damaged_single_run_is_named_before_the_joint_run_starts(mtl_error_of: Callable[..., str], desk: Path) -> None:
    place = desk / "mine"
    plan = f"{GOOD} single.training.steps=2 single.training.eval_every=2 --scenario all --select gain --quiet"
    run_command(lambda words: mtl.main(words), shlex.split(f"{plan} --only single-emotion,single-dsd"))
    path = place / "single-dsd" / "seed1" / "result.json"
    path.write_text(path.read_text()[:40])
    line_shown = mtl_error_of(plan, trains=True, lines=2)
    assert f"{os.sep}single-dsd{os.sep}seed1{os.sep}result.json'" in line_shown
    assert "Remove the file" in line_shown
