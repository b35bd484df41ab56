"""Several tasks over one frozen upstream, each with an adapter of its own: as if each were trained alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import headwater
from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import load_tensors
from headwater.corpus.batch import make_batch
from headwater.downstream.answer import OneClass
from headwater.inference.export.export import export_run
from headwater.inference.trained_run import TrainedRun
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, alone
from headwater.runs.evaluation import task_place
from headwater.runs.prepare import prepare
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.runs.state import weights_in
from headwater.training import loop
from headwater.training.model import weights_of_task
from headwater.upstream.adapters import belongs_to_adapter
from headwater.upstream.load import load_upstream

QUIET = Runtime("cpu", quiet=True)
TASKS = ("emotion", "dsd")


def config_of(rated: Path, **layer: Any) -> RunConfig:
    """Return a run of two tasks, each of which trains an adapter fast enough to be seen."""
    corpus = {"data": str(rated)}
    values = {
        "upstream": {"name": "test_hubert", "trainable": True, "adapter": "lora"},
        "own_adapters": True,
        "tasks": {"emotion": {"corpus": corpus}, "dsd": {"corpus": corpus, "labels": {"column": "directed"}, "batch_size": 6}},
        "optimizer": {"lr": 1e-3, "adapter_lr": 0.02},
        "training": {"steps": 4, "batch_size": 4, "eval_every": 4, "save_every": 2, "log_every": 1, "patience": None},
        "store": {"mode": "off"},
    }
    return resolve([merge(values, layer)])


@pytest.fixture(scope="module")
def joint(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("own") / "joint"
    run(config_of(rated), folder, QUIET)
    return folder


def last(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a run's last step."""
    return weights_in(load_tensors(RunFolder(folder).last)[0])


def loaded(folder: Path, task: str | None = None) -> TrainedRun:
    """Return a single run, ready to predict."""
    found = headwater.load_run(folder, task=task)
    assert isinstance(found, TrainedRun)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_trained_as_if_it_were_alone(task: str, joint: Path, rated: Path, tmp_path: Path) -> None:
    run(alone(config_of(rated), task), tmp_path / "alone", QUIET)
    expected, found = last(tmp_path / "alone"), weights_of_task(last(joint), task, task)
    assert {*found} == {*expected}
    assert any(".lora_" in key for key in found)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-5, msg=key)


def test_a_gradient_of_a_task_never_comes_to_the_adapter_of_another(rated: Path) -> None:
    setup = prepare(config_of(rated))
    task = setup.tasks["dsd"]
    loss, _ = setup.model("dsd", make_batch(task.splits["train"][:4]))
    loss.backward()
    reached = {name.split(".")[1] for name, weight in setup.model.named_parameters() if weight.grad is not None}
    assert reached == {"dsd"}, "head, layer weights and adapter"
    assert all(weight.requires_grad == (".lora_" in name) for name, weight in setup.model.own.named_parameters())
    base = {id(weight) for weight in setup.upstreams["audio"].parameters()}
    for name in TASKS:
        own = setup.model.upstream("audio", name).named_parameters()
        assert all((id(weight) in base) != belongs_to_adapter(key, "lora") for key, weight in own), "over the very same weights"


def test_a_checkpoint_holds_adapters_and_heads_alone(joint: Path) -> None:
    tensors, whole = last(joint), sum(weight.numel() for weight in load_upstream("test_hubert").parameters())
    of_adapters = {key: value for key, value in tensors.items() if key.startswith("own.")}
    assert {key.split(".")[1] for key in of_adapters} == {*TASKS}
    assert all(".lora_" in key for key in of_adapters)
    assert {key.split(".")[0] for key in tensors} == {"own", "experts", "sums"}
    assert sum(value.numel() for value in of_adapters.values()) < 0.1 * whole
    assert RunFolder(joint).read().result()["adapters"] == {"audio": "lora"}


def test_a_killed_run_goes_on_to_the_same_digits(
    joint: Path, rated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, steps = loop.take_step, 0

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return made(*arguments, **named)

    monkeypatch.setattr(loop, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config_of(rated), tmp_path / "run", QUIET)
    monkeypatch.undo()
    run(config_of(rated), tmp_path / "run", QUIET)
    expected, found = load_tensors(RunFolder(joint).last)[0], load_tensors(RunFolder(tmp_path / "run").last)[0]
    assert {*found} == {*expected}
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.parametrize("task", TASKS)
def test_each_task_predicts_and_is_exported_by_itself(task: str, joint: Path, rated: Path, tmp_path: Path) -> None:
    classes = OneClass(loaded(joint, task).answer.classes)
    expected, _ = read_predictions(task_place(joint, "best", task) / "predictions-test.csv", classes)
    export_run(joint, tmp_path / "whole", task=task)
    assert expected.scores is not None
    for one in (loaded(joint, task), loaded(tmp_path / "whole")):
        for row in (0, 5):
            found = one.predict(rated.parent / expected.ids[row]).scores
            assert found is not None
            torch.testing.assert_close(torch.tensor([*found.values()]), expected.scores[row].float(), rtol=0, atol=1e-5)
    together = headwater.load_runs(*((joint, name) for name in TASKS))
    sound = rated.parent / expected.ids[0]
    assert together[TASKS.index(task)].predict(sound) == loaded(joint, task).predict(sound)


def test_what_own_adapters_cannot_be_beside_is_refused(joint: Path, rated: Path) -> None:
    with pytest.raises(UserError, match=r"Expected an adapter beside own_adapters, found none"):
        config_of(rated, upstream={"adapter": "none"})
    with pytest.raises(UserError, match=r"found an adapter and a weighted sum for each task.* Leave own_adapters out"):
        prepare(config_of(rated, balance={"cosines_every": 1}))
    with pytest.raises(UserError, match=r"Expected a run whose tasks share an upstream in .* found an adapter for each"):
        load_upstream(str(joint))


def test_a_joint_run_without_them_is_what_it_was(rated: Path) -> None:
    assert "own_adapters" not in identity_of(config_of(rated, own_adapters=False))
    assert identity_of(config_of(rated))["own_adapters"] is True
