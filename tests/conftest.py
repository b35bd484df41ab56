"""What every test stands on: one thread, no network, a cache of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pictures
import pytest
import soundfile
import torch

from headwater.corpus.base import CORPORA
from headwater.downstream.base import TASKS
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UPSTREAMS

torch.set_num_threads(1)
FIRST = ("runs/test_joint.py", "plans/test_scenario.py", "runs/test_run.py", "inference/test_onnx.py", "runs/test_features.py")
DRAWN = (
    "analysis/",
    "core/test_figures.py",
    "downstream/test_geometry.py",
    "downstream/test_dsd_plot.py",
    "runs/test_pictures.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: at the end no worker is alone with one."""
    items.sort(key=lambda item: not place_of(item).startswith(FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draw pictures for the tests that look at them."""
    pictures.draw(place_of(item).startswith(DRAWN))


def place_of(item: pytest.Item) -> str:
    """Return a test's file below this folder."""
    return item.path.relative_to(Path(__file__).parent).as_posix()


signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started with `&` would pass on that Ctrl-C is ignored


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that no other suite shares, for this process and those it starts."""
    folder, base = tmp_path_factory.mktemp("cache"), tmp_path_factory.getbasetemp()
    spoken = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "spoken"  # demos: once for all workers
    spoken.mkdir(exist_ok=True)
    (folder / "demo").symlink_to(spoken)
    os.environ["HEADWATER_CACHE"] = str(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    return folder


CLASSES = {"low": 200.0, "middle": 700.0, "high": 2500.0}  # label -> Hz


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of short tones: three classes that anybody can hear apart, twelve speakers, all three splits."""
    folder = tmp_path_factory.mktemp("tones")
    generator = np.random.default_rng(0)
    rows = ["audio,label,speaker,split"]
    for number in range(72):
        label = [*CLASSES][number % 3]
        speaker = number // 6
        seconds = generator.uniform(0.2, 0.6)
        time = np.arange(int(16_000 * seconds)) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * CLASSES[label] * (1 + 0.02 * speaker) * time) * np.hanning(len(time))
        soundfile.write(folder / f"{number:02d}.wav", tone + 0.01 * generator.standard_normal(len(time)), 16_000)
        split = "train" if speaker < 8 else "dev" if speaker < 10 else "test"
        rows.append(f"{number:02d}.wav,{label},spk{speaker},{split}")
    (folder / "tones.csv").write_text("\n".join(rows) + "\n")
    return folder / "tones.csv"


@pytest.fixture(scope="session")
def rated(tones: Path) -> Path:
    """The tones with words, ratings from 1 to 7 and whether the device is meant; sound and words each tell a part of it."""
    generator = np.random.default_rng(1)
    lines = tones.read_text().splitlines()
    rows = [f"{lines[0]},text,arousal,valence,dominance,directed"]
    for line in lines[1:]:
        pitch = [*CLASSES].index(line.split(",")[1])  # heard
        mood, meant = generator.integers(3), generator.integers(2)  # read
        text = " ".join([("sad", "so", "glad")[mood], ("they say", "computer please")[meant], f"word{generator.integers(9)}"])
        values = 2 + 2 * np.array([pitch, mood, (pitch + mood) / 2]) + generator.uniform(-0.9, 0.9, 3)
        rows.append(",".join([line, text, *(f"{value:.3f}" for value in values), "yes" if meant else "no"]))
    path = tones.with_name("rated.csv")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def config(tones: Path) -> RunConfig:
    """A run over the tones that takes a second."""
    training = {"steps": 12, "batch_size": 8, "eval_every": 4, "save_every": 3, "log_every": 2, "patience": None}
    return resolve(
        [{"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(tones)}, "training": training}]
    )


@pytest.fixture(scope="session")
def finished(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder over the tones, trained to the end; tests only read it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    training = {"steps": 60, "batch_size": 16, "eval_every": 20, "patience": None}
    mapping = {"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(tones)}, "training": training}
    run(resolve([mapping, {"optimizer": {"lr": 1e-2}}]), folder, Runtime("cpu", quiet=True))
    return folder


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `headwater …` as a user does, and return what came back."""
    return subprocess.run(
        [sys.executable, "-m", "headwater", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=240,
        check=False,
    )


@pytest.fixture
def headwater() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, in a process of its own."""
    return command


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """What makes the next command a process of its own; the test begins as one: nothing was typed yet."""
    with ExitStack() as stack:

        def clear() -> None:
            stack.close()
            for registry in (TASKS, UPSTREAMS, CORPORA):
                stack.enter_context(registry.isolated())

        clear()
        yield clear
