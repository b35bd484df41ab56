"""Several runs in memory: a frozen upstream is there once, and each run predicts what it does alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import headwater
from headwater.inference.folds import Folds
from headwater.inference.trained_run import TrainedRun
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream

QUIET = Runtime("cpu", quiet=True)


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """Runs that have been trained, by adapter."""
    return {}


@pytest.fixture
def folders(config: RunConfig, made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with each adapter over the same model, and one on the frozen model alone."""
    for kind in () if made else ("none", "lora", "bitfit"):
        section = UpstreamConfig("test_hubert", trainable=kind != "none", adapter=kind)  # type: ignore[arg-type]
        section = replace(section, normalize_layers=kind == "lora")  # which changes nothing of what is loaded
        training = replace(config.training, steps=3, eval_every=3)
        short = replace(config, upstream=section, training=training, optimizer=replace(config.optimizer, adapter_lr=0.05))
        made[kind] = tmp_path_factory.mktemp("shared") / kind
        run(short, made[kind], QUIET)
    return made


def held(runs: Sequence[TrainedRun | Folds]) -> int:
    """Return how many bytes the weights of runs take together."""
    tensors = [tensor for found in runs if isinstance(found, TrainedRun) for tensor in found.model.state_dict().values()]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def test_runs_with_adapters_hold_their_model_once_and_predict_what_each_does_alone(folders: dict[str, Path], tones: Path) -> None:
    files = [str(tones.with_name(f"0{number}.wav")) for number in range(3)]
    together, alone = headwater.load_runs(*folders.values()), [headwater.load_run(folder) for folder in folders.values()]
    for one, other in zip(together, alone, strict=True):
        found, expected = one.predict(files), other.predict(files)
        assert found == expected, "to the bit"
    trunk = sum(weight.nbytes for weight in load_upstream("test_hubert").state_dict().values())
    own = sum(tensor.nbytes for one in together if isinstance(one, TrainedRun) for tensor in one.model.trained_state().values())
    assert held(together) == trunk + own, "the model once, and what each one's checkpoint holds"
    assert held(alone) > len(alone) * trunk


def test_a_run_of_several_tasks_holds_its_finetuned_model_once(joint: Path, tones: Path) -> None:
    names = ("first", "second")
    together = headwater.load_runs(*((joint, name) for name in names))
    one, two = (run for run in together if isinstance(run, TrainedRun))
    assert one.model.upstream("audio") is two.model.upstream("audio")
    sound = tones.with_name("00.wav")
    for name, found in zip(names, together, strict=True):
        assert found.predict(sound) == headwater.load_run(joint, task=name).predict(sound)


@pytest.fixture(scope="module")
def joint(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetuned run of two tasks."""
    task = {"task": "emotion", "corpus": {"data": str(rated)}}
    values = {
        "tasks": {"first": task, "second": task},
        "upstream": {"name": "test_distilhubert", "trainable": True},
        "training": {"steps": 1, "batch_size": 4, "eval_every": 1},
    }
    folder = tmp_path_factory.mktemp("joint") / "run"
    run(resolve([{**values, "select": "last"}]), folder, QUIET)
    return folder
