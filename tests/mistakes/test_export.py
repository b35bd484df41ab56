"""Mistakes with exporting: one clear line each, and nothing is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.inference.export import onnx as onnx_export
from headwater.inference.export.code import copy_user_code
from headwater.plans.grid import expand, run_plan
from headwater.plugins.code import UserCode
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)

# the mistake in words: what is typed, what the answer must say
TYPED = {
    "a folder that is not empty": (
        "headwater export run full",
        "a new folder to export to, found one that is not empty",
        "remove it",
    ),
    "a file in the way": ("headwater export run full/a.txt", "a new folder to export to, found a file", "Choose another name"),
    "into the run": ("headwater export run run/out", "a folder outside the run 'run'", "Choose another place"),
    "below a file": ("headwater export run full/a.txt/out", "a file stands in the way", "Choose another place"),
    "what is no run": ("headwater export tones out", "a run folder at 'tones', found no config.yaml", "check the path"),
    "a run that is not finished": ("headwater export begun out", "a finished run in 'begun'", "Repeat the command"),
    "a fold of one run": ("headwater export run out --fold 3", "a plan of several folds for --fold 3", "Leave --fold out"),
    "a task of one run": ("headwater export run out --task avd", "task 'emotion' of 'run', found 'avd'", "Leave --task out"),
    "weights of what reads": ("headwater export run out -o text_upstream.path=full", "an upstream of text", "Leave them out"),
    "no folder": ("headwater export run", "Expected DIR, found none. For instance: headwater export result/"),
    "a plan": ("headwater export plan out", "found a plan of 2 in 'plan'. Add --fold 1", "-o split=all"),
    "a fold that is not there": (
        "headwater export plan out --fold 4",
        "a fold of 'plan' after --fold, found 4. There are: 1, 2.",
    ),
    "several tasks": ("headwater export joint out", "one task of the run 'joint', found none", "--task emotion or dsd"),
    "a graph of what reads": ("headwater export reading out --onnx", "a run on audio only for --onnx", "Leave --onnx out"),
    "a graph of rounded lengths": ("headwater export rounded out --onnx", "exact padding for --onnx, found padding: s3prl"),
}


@pytest.fixture(scope="module")
def others(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that no export, or no graph, can hold; a plan; a run of several tasks."""
    folder, training = tmp_path_factory.mktemp("others"), {"steps": 1, "batch_size": 4, "eval_every": 1}
    corpus = {"data": str(rated)}
    usual = {"task": "emotion", "upstream": {"name": "fbank"}, "corpus": corpus, "training": training, "store": {"mode": "off"}}
    reads = {"task": "dsd", "upstream": {"name": ""}, "labels": {"column": "directed"}, "text_upstream": {"name": "hashed_words"}}
    run(resolve([merge(usual, reads)]), folder / "reading", QUIET)
    run(resolve([merge(usual, {"upstream": {"padding": "s3prl"}})]), folder / "rounded", QUIET)
    folds = merge(usual, {"corpus": {"protocol": "speaker5"}})
    run_plan(expand(resolve([folds]), [1, 2], [1], []), folder / "plan", QUIET)
    tasks = {
        "emotion": {"corpus": corpus, "batch_size": 4},
        "dsd": {"corpus": corpus, "batch_size": 4, "labels": {"column": "directed"}},
    }
    joint = {"upstream": {"name": "fbank"}, "tasks": tasks, "training": {"steps": 1, "eval_every": 1}}
    run(resolve([joint]), folder / "joint", QUIET)
    return folder


@pytest.fixture
def full_desk(desk: Path, others: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desk with what else a user may name."""
    (desk / "full").mkdir()
    (desk / "full" / "a.txt").write_text("mine")
    shutil.copytree(finished, desk / "begun", ignore=shutil.ignore_patterns("result.json"))
    for path in others.iterdir():
        (desk / path.name).symlink_to(path)
    monkeypatch.setattr(onnx_export, "NEEDED", ("json",))  # refused before a graph is traced
    return desk


@pytest.mark.usefixtures("full_desk")
@pytest.mark.parametrize("mistake", TYPED)
def test_a_mistake_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = TYPED[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message


def test_user_code_is_required_as_it_is_typed_here(desk: Path, finished: Path, error_of: Callable[..., str]) -> None:
    (desk / "run").unlink()
    shutil.copytree(finished, desk / "run")
    identity = json.loads((desk / "run" / "identity.json").read_text())
    (desk / "run" / "identity.json").write_text(json.dumps({**identity, "code": {"task": "0" * 64}}))
    assert error_of("headwater export run out").endswith("only a path that you type is executed. Add --use PATH.")


@pytest.mark.usefixtures("desk")
def test_files_beside_no_code_are_refused(error_of: Callable[..., str]) -> None:
    message = error_of("headwater export run out --with tones/00.wav")
    assert message.endswith("Expected a run with code of your own for --with, found none of it in the run. Leave --with out.")


@pytest.mark.parametrize(("extra", "found"), [("gone.pt", "nothing at "), ("up.py", "'up.py' twice. Rename one of them")])
def test_extra_files_that_cannot_go_along_are_refused(extra: str, found: str, tmp_path: Path) -> None:
    code = tmp_path / "up.py"
    code.write_text("mine = 1")
    with pytest.raises(UserError, match=f"after --with, found {found}"):
        copy_user_code(tmp_path / "out", {"audio": UserCode("upstream", "mine", code, "")}, [tmp_path / extra])


@pytest.mark.usefixtures("desk")
def test_without_the_extra_the_command_that_installs_it_is_named(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("json", "no_such_package"))
    message = error_of("headwater export run out --onnx")
    assert re.search(r"found no no_such_package\. Run: pip install -e /\S+'\[onnx\]'", message)


def test_an_upstream_that_only_s3prl_can_build_is_refused(
    desk: Path, finished: Path, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (finished / "config.yaml").read_text().replace("name: fbank_no_cmvn", "name: s3prl/apc")
    (desk / "run").unlink()
    shutil.copytree(finished, desk / "run")
    (desk / "run" / "config.yaml").write_text(config)
    from headwater.upstream.load import load_upstream

    monkeypatch.setattr("headwater.inference.trained_run.load_upstream", lambda *_: load_upstream("fbank_no_cmvn"))
    message = error_of("headwater export run out")
    assert "an upstream that a folder can hold, found 's3prl/apc' in 'run', which only s3prl can build" in message
    assert "predict with the run itself" in message
