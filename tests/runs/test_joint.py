"""Several tasks on one upstream: the same numbers however they are computed, and after any kill."""

from __future__ import annotations

import gc
import json
import signal
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import yaml
from accelerate import Accelerator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import load_tensors
from headwater.inference.load import load_run
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import to_mapping
from headwater.runs.evaluation import Evaluation, keep_own_best
from headwater.runs.prepare import RunSetup, prepare
from headwater.runs.run import refuse_tiny_steps, refuse_uneven_steps, run
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.training.step import Plan, TaskData, step_batches, take_step

QUIET = Runtime("cpu", quiet=True)


def three_tasks(rated: Path, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without dropout: which tone, how it is rated, and whether the device is meant."""
    corpus = {"data": str(rated)}
    values: dict[str, Any] = {
        "upstream": {"name": "test_hubert", "trainable": True, "dropout": 0.0},
        "tasks": {
            "emotion": {"corpus": corpus, "batch_size": 4},
            "avd": {"corpus": corpus, "batch_size": 4, "avd": {"scale": [1, 7], "dropout": 0.0}},
            "dsd": {"corpus": corpus, "batch_size": 4, "labels": {"column": "directed"}},
        },
        "optimizer": {"lr": 1e-3, "upstream_lr": 1e-4},
        "training": {"steps": 20, "eval_every": 10, "save_every": 5, "log_every": 1, "patience": None},
    }
    for layer in layers:
        values = merge(values, layer)
    if values["upstream"]["name"] == "fbank_no_cmvn":  # has nothing to drop
        values["upstream"].pop("dropout")
    return values


def write_recipe(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a recipe in the order in which it was given."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path


def start(recipe: Path, folder: Path, count: int = 1) -> processes.Started:
    """Start a joint run in a process of its own, or in several as torchrun does."""
    words = ("downstream", "-c", recipe, "-p", folder, "--device", "cpu", "--quiet")
    return processes.start("-m", "headwater", *words, processes=count)


def numbers(folder: Path) -> dict[str, Any]:
    """Return a result without what no two runs share: where and how long."""
    result = json.loads((folder / "result.json").read_text())
    return {key: value for key, value in result.items() if key != "environment"}


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return what was logged."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def gradients(setup: RunSetup, *, names: list[str] | None = None, summed: bool = False) -> dict[str, torch.Tensor]:
    """Return the gradient of step 0: task by task, or of the losses' sum in one backward pass."""
    config, model = setup.config, setup.model
    accelerator = make_accelerator(config, QUIET)
    model.train()
    model.zero_grad()
    plan = Plan(config.training, config.optimizer, config.seed, setup.balancer, cosines_every=config.balance.cosines_every)
    batches = step_batches(setup.tasks, plan, accelerator, dict.fromkeys(names or setup.tasks, 0))
    if summed:
        total = sum(
            (model(name, batch)[0] * share for name, pieces in batches.items() for batch, share in pieces), torch.zeros(())
        )
        total.backward()
    else:
        take_step(model, batches, accelerator, plan, 0)
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def alike(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference, relative to the weight's largest gradient where that is above 1."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / other[name].abs().max().clamp(min=1.0)) for name in one)


@pytest.mark.parametrize("pieces", [None, 2], ids=["whole", "in pieces"])
@pytest.mark.parametrize("shared", [False, True], ids=["sums apart", "one sum"])
def test_backward_task_by_task_gives_the_gradient_of_the_summed_loss(rated: Path, pieces: int | None, shared: bool) -> None:
    values = three_tasks(rated, {"training": {"piece_size": pieces, "piece_overhead": 100.0}, "shared_weights": shared})
    setup = prepare(resolve([values]))
    found = gradients(setup)
    assert any(name.startswith("upstreams.") for name in found)
    assert all(any(name.startswith(f"experts.{task}.") for name in found) for task in setup.tasks)
    assert alike(found, gradients(setup, summed=True)) <= 1e-6


def test_apart_for_cosines_and_together_the_gradient_is_the_same(rated: Path) -> None:
    whole = gradients(prepare(resolve([three_tasks(rated)])))
    looked = gradients(prepare(resolve([three_tasks(rated, {"balance": {"cosines_every": 1}})])))
    unused = {name for name in looked if name not in whole}
    assert all(not looked.pop(name).any() for name in unused)  # weights that no task hears through
    assert alike(looked, whole) <= 1e-6


def test_given_weights_scale_each_tasks_gradient(rated: Path) -> None:
    weights = {"emotion": 0.5, "dsd": 3.0}
    scaled = gradients(prepare(resolve([three_tasks(rated, {"balance": {"method": "fixed", "weights": weights}})])))
    plain = prepare(resolve([three_tasks(rated)]))
    of_task = {task: gradients(plain, names=[task]) for task in plain.tasks}
    for name, found in scaled.items():
        parts = [weights.get(task, 1.0) * grads[name] for task, grads in of_task.items() if name in grads]
        assert (found - sum(parts)).abs().max() <= 1e-6 * found.abs().max().clamp(min=1.0), name


class Live(TorchDispatchMode):
    """Counts the bytes that tensors made under it hold, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0

    def _freed(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        before = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in before:
                storage = leaf.untyped_storage()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._freed, storage.nbytes())
        return made


@pytest.mark.parametrize("balance", ["sum", "fixed", "uncertainty", "dwa"])
def test_a_step_of_several_tasks_holds_little_more_than_the_largest_of_them(balance: str, rated: Path) -> None:
    sizes = {"tasks": {name: {"batch_size": size} for name, size in (("emotion", 16), ("avd", 12), ("dsd", 8))}}
    layers = (sizes, {"balance": {"method": balance}, "training": {"piece_overhead": 100.0}})
    setup = prepare(resolve([three_tasks(rated, *layers)]))
    peaks = {}
    for names in ([*setup.tasks], *([name] for name in setup.tasks)):
        gc.collect()
        with Live() as live:
            found = gradients(setup, names=names)
        peaks[len(names), names[0]] = live.peak
        del found
    largest = max(peak for (count, _), peak in peaks.items() if count == 1)
    assert largest > 2e6  # activations, not only weights
    assert peaks[3, "emotion"] <= 1.2 * largest, peaks
    with Live() as live:
        gradients(setup, summed=True)
    assert live.peak > 1.2 * largest  # one graph over all of them would not fit there


def test_a_step_of_all_seven_tasks_holds_little_more_than_the_largest_of_them() -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    corpus = {"demo": True, "demo_scale": 0.05, "missing_text": "drop"}
    names = ("emotion", "avd", "dsd", "ks", "sid", "asr", "asv")
    tasks: dict[str, Any] = {name: {"batch_size": 4, "corpus": corpus} for name in names}
    setup = prepare(resolve([{"upstream": {"name": "test_hubert", "trainable": True}, "tasks": tasks}]))
    peaks = []
    for chosen in ([*tasks], *([name] for name in tasks)):
        gc.collect()
        with Live() as live:
            found = gradients(setup, names=chosen)
        peaks.append(live.peak)
        del found
    all_tasks, *apart = peaks
    largest = max(apart)
    assert all_tasks - largest <= 0.12 * (sum(apart) - largest), (
        peaks
    )  # gradients; of the other tasks' activations next to nothing


BALANCES = ["sum", "torchjd:PCGrad"]  # uncertainty is that of "one task a step": each pair of processes costs ten seconds


@pytest.fixture(scope="module")
def single_process(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of one process stand, one for each balance; some also draw one task a step."""
    folder = tmp_path_factory.mktemp("single")
    for name, values in cases(rated).items():
        run(resolve([values]), folder / name, QUIET)
    return folder


def cases(rated: Path) -> dict[str, dict[str, Any]]:
    """Return the recipes that one process and two compute alike."""
    found = {method: three_tasks(rated, {"balance": {"method": method}}) for method in BALANCES}
    drawn = {"sampling": {"mode": "temperature"}, "balance": {"method": "uncertainty"}}
    return found | {"one task a step": three_tasks(rated, drawn)}


@pytest.mark.parametrize("case", [*BALANCES, "one task a step"])
def test_two_processes_compute_what_one_does(case: str, rated: Path, single_process: Path, tmp_path: Path) -> None:
    if case.startswith("torchjd"):
        pytest.importorskip("torchjd")
    start(write_recipe(tmp_path / "joint.yaml", cases(rated)[case]), tmp_path / "two", 2).finish()
    one, two = logged(single_process / case), logged(tmp_path / "two")
    assert [(line["step"], line["split"], line["task"]) for line in one] == [
        (line["step"], line["split"], line["task"]) for line in two
    ]
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True) if a["loss"] is not None) <= 1e-5
    weights, others = (load_tensors(RunFolder(place).last)[0] for place in (single_process / case, tmp_path / "two"))
    assert weights.keys() == others.keys()
    # softmax cancels a key's bias: its gradient is rounding noise, which Adam makes as large as any other
    learned = [key for key in weights if not key.startswith("optimizer.") and not key.endswith("k_proj.bias")]
    assert max(float((weights[key] - others[key]).abs().max()) for key in learned) <= 1e-5


def test_a_head_that_no_step_used_keeps_its_weights_and_the_optimizers_state(rated: Path, tmp_path: Path) -> None:
    # round robin: emotion, avd, emotion …; the third task's turn never comes
    training = {"steps": 2, "eval_every": 2, "save_every": 2}
    config = resolve([three_tasks(rated, {"sampling": {"mode": "round_robin"}, "training": training})])
    before = prepare(config).model.trained_state()
    before = {key: value.clone() for key, value in before.items()}
    run(config, tmp_path / "one", QUIET)
    start(write_recipe(tmp_path / "joint.yaml", to_mapping(config)), tmp_path / "two", 2).finish()
    heads = [*prepare(config).model.experts.named_parameters()]
    for folder in (tmp_path / "one", tmp_path / "two"):
        after, facts = load_tensors(RunFolder(folder).last)
        assert facts["progress"]["drawn"] == {"emotion": 1, "avd": 1}
        for place, (name, _) in enumerate(heads):  # the optimizer's first group
            used = not name.startswith("dsd.")
            assert (f"optimizer.{place}.exp_avg" in after) == used, name
            assert used != torch.equal(after[f"experts.{name}"], before[f"experts.{name}"]), name


MOMENTS = [0.15, 0.5, 0.85]  # of what is logged
HARD = {
    "upstream": {"dropout": 0.1},
    "tasks": {"avd": {"avd": {"dropout": 0.2}}},
    "sampling": {"mode": "proportional"},
    "balance": {"method": "uncertainty"},
    "training": {"steps": 24, "eval_every": 8, "save_every": 5},
}


def test_three_kills_change_no_digit(rated: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "joint.yaml", three_tasks(rated, HARD))
    start(recipe, tmp_path / "whole").finish()
    log = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    folder, killed = tmp_path / "killed", 0
    for moment in MOMENTS:
        process, path, deadline = start(recipe, folder), folder / "metrics.jsonl", time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if path.is_file() and len(path.read_text().splitlines()) >= moment * len(log):
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.005)
        process.wait(60)
    assert killed == len(MOMENTS)
    start(recipe, folder).finish()
    assert numbers(folder) == numbers(tmp_path / "whole")
    assert path.read_text().splitlines() == log
    one, other = (load_tensors(RunFolder(place).last)[0] for place in (folder, tmp_path / "whole"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    moved = [value for key, value in one.items() if key.startswith("balancer.")]
    assert len(moved) == 3
    assert all(abs(float(value)) > 1e-3 for value in moved)  # the variances were learnt, and kept


FROZEN = {"upstream": {"name": "fbank_no_cmvn", "trainable": False}}


def test_the_last_step_is_kept_where_patience_ends_a_run(rated: Path, tmp_path: Path) -> None:
    gain = {"select": "gain", "baselines": {"emotion": 0.5, "avd": 0.5, "dsd": 0.5}}
    training = {"steps": 50, "eval_every": 2, "save_every": 50, "patience": 1}
    slow = {"upstream": {"name": "fbank_no_cmvn", "trainable": False}, "optimizer": {"lr": 1e-30}}  # nothing gets better
    result = run(resolve([three_tasks(rated, slow, gain, {"training": training})]), tmp_path, QUIET)
    assert result["steps"] == 4
    assert load_tensors(RunFolder(tmp_path).last)[1]["progress"]["step"] == 4
    assert {"last", "best", "own"} <= {*result["tasks"]["dsd"]}


def test_what_dev_decides_on_the_way_is_no_part_of_training(rated: Path, tmp_path: Path) -> None:
    # a resumed run starts without it: with it, its dev scores would be others than those of a run that was never killed
    task = prepare(resolve([three_tasks(rated, FROZEN)])).tasks["dsd"]

    def evaluate(task: TaskData) -> Evaluation:
        """Place the operating point, as a test on dev does."""
        placed = task.with_vocabulary({**task.expert.vocabulary, "threshold": 0.9})
        return Evaluation(placed, {}, {})

    keep_own_best(tmp_path, (), evaluate, Accelerator(cpu=True), task)
    assert task.expert.vocabulary["threshold"] == 0.5


def test_one_task_of_a_joint_run_predicts_by_its_name(rated: Path, tmp_path: Path) -> None:
    small = {"upstream": {"name": "fbank_no_cmvn", "trainable": False}, "training": {"steps": 4, "eval_every": 4}}
    run(resolve([three_tasks(rated, small)]), tmp_path, QUIET)
    sound = str(rated.with_name("00.wav"))
    assert load_run(tmp_path, task="emotion").predict(sound).label in {"low", "middle", "high"}
    assert load_run(tmp_path, task="dsd").predict(sound).label in {"other", "directed"}
    with pytest.raises(UserError, match="Add --task emotion or avd or dsd"):
        load_run(tmp_path)


def test_a_step_that_the_processes_cannot_share_is_refused(rated: Path) -> None:
    config = resolve([three_tasks(rated, FROZEN)])
    with pytest.raises(UserError, match="one utterance of 'emotion' in a step for each of 5 processes, found batch_size=4"):
        refuse_tiny_steps(config, 5)
    refuse_tiny_steps(config, 4)
    setup = prepare(config)
    with pytest.raises(UserError, match=r"batch_size of 'avd' that 3 processes share evenly .* -o tasks.avd.batch_size=3"):
        refuse_uneven_steps(setup, 3)
    refuse_uneven_steps(setup, 2)
