"""Trackers have the numbers of result.json, find their run again, and cost nobody a run."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate import tracking

from headwater.core.errors import UserError
from headwater.plans.execute import run_parts
from headwater.plans.grid import expand
from headwater.runs.config.identity import identity_of
from headwater.runs.config.schema import RunConfig
from headwater.runs.log import trackers as ours
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)
REQUIRED = bool(os.environ.get("HEADWATER_REQUIRE_TRACKERS"))


class Notebook(tracking.GeneralTracker):
    """A tracker that keeps what it was given; `broken_at` has it fail at a step."""

    name, requires_logging_directory = "trackio", False
    kept: ClassVar[list[Notebook]] = []
    broken_at: ClassVar[int | None] = None

    def __init__(self, project: str, **settings: Any) -> None:
        super().__init__(_blank=True)
        self.project, self.settings, self.ended = project, settings, 0
        self.config: dict[str, Any] = {}
        self.lines: list[tuple[int | None, dict[str, Any]]] = []
        self.kept.append(self)

    def start(self) -> None:
        """Nothing to open."""

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Keep the config."""
        self.config = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Keep a line."""
        if self.broken_at is not None and step is not None and step >= self.broken_at:
            raise ConnectionError("the server has gone\nand more")
        self.lines.append((step, values))

    def finish(self) -> None:
        """Note the end."""
        self.ended += 1


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Notebook]]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "trackio", Notebook)
    monkeypatch.setattr(ours, "find_spec", lambda _: object())
    Notebook.kept, Notebook.broken_at = [], None
    yield Notebook
    Notebook.broken_at = None


def scores(result: dict[str, Any]) -> dict[str, float]:
    """Return the numbers that a tracker has to have at the end."""
    found = {"emotion": {"best": result}} if "scores" in result else result["tasks"]
    return {
        f"{kept}/{task}/{split}/{metric}": value
        for task, each in found.items()
        for kept in ("best", "last")
        if kept in each
        for split, values in each[kept]["scores"].items()
        for metric, value in values.items()
    }


def test_a_tracker_has_the_lines_the_scores_and_the_config(config: RunConfig, tmp_path: Path, notebook: type[Notebook]) -> None:
    result = run(replace(config, track="trackio"), tmp_path / "run", QUIET)
    [one] = notebook.kept
    assert (one.project, one.settings["name"], one.settings["group"], one.ended) == ("headwater", "run", None, 1)
    assert (one.config["upstream.name"], one.config["training.steps"]) == ("fbank_no_cmvn", 12)
    step, last = one.lines[-1]
    assert (step, last, len(last)) == (12, scores(result), 8)
    dev = {step: line["emotion/dev/ua"] for step, line in one.lines if "emotion/dev/ua" in line}
    assert dev[result["best_step"]] == result["scores"]["dev"]["ua"]
    assert sorted(dev) == [4, 8, 12]


def test_tracking_is_no_part_of_what_a_run_is(config: RunConfig, tmp_path: Path, notebook: type[Notebook]) -> None:
    followed = replace(config, track="trackio")
    assert identity_of(followed) == identity_of(config)
    alone, beside = run(config, tmp_path / "alone", QUIET), run(followed, tmp_path / "beside", QUIET)
    assert alone["scores"] == beside["scores"]
    assert run(config, tmp_path / "beside", QUIET)["scores"] == alone["scores"], "finished: nothing is trained"
    assert len(notebook.kept) == 1


def test_a_plan_is_a_group(config: RunConfig, tmp_path: Path, notebook: type[Notebook]) -> None:
    run_parts(expand(replace(config, track="trackio"), [1], [1, 2], []), tmp_path / "plan", QUIET)
    assert [(one.settings["group"], one.settings["name"]) for one in notebook.kept] == [("plan", "seed1"), ("plan", "seed2")]


def test_a_tracker_that_fails_costs_no_run(
    config: RunConfig, tmp_path: Path, notebook: type[Notebook], capsys: pytest.CaptureFixture[str]
) -> None:
    notebook.broken_at = 6
    result = run(replace(config, track="trackio"), tmp_path / "run", Runtime("cpu"))
    assert result["scores"] == run(config, tmp_path / "alone", QUIET)["scores"]
    notes = [line for line in capsys.readouterr().err.splitlines() if "trackio" in line]
    assert notes == ["note      trackio is given up for this run, which goes on (the server has gone)"]
    assert notebook.kept[0].ended == 1


def test_one_that_cannot_start_is_said_before_training(
    config: RunConfig, tmp_path: Path, notebook: type[Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Notebook) -> None:
        raise ConnectionError("no api key")

    monkeypatch.setattr(notebook, "start", refuse)
    with pytest.raises(UserError, match=r"^Expected to start track=trackio, found: no api key\. See .*, or leave track out\.$"):
        run(replace(config, track="trackio"), tmp_path / "run", QUIET)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("wandbb", r"Expected trackers in track \(there are aim, .*, wandb\), found 'wandbb'\. Did you mean 'wandb'\?"),
        ("tensorboard", r"Expected trackers in track .* found 'tensorboard'\. TensorBoard is always written"),
        ("swanlab", r"Expected the package of track=swanlab, found none\. Run: pip install swanlab"),
    ],
)
def test_mistakes_are_said_before_anything_is_read(config: RunConfig, tmp_path: Path, track: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(replace(config, track=track), tmp_path / "run", QUIET)
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_the_numbers_of_the_result(finished: Path) -> None:
    assert tensorboard(finished) >= scores(json.loads((finished / "result.json").read_text())).items()


def tensorboard(folder: Path) -> Any:
    """Return the last value of everything in a run's TensorBoard, as pairs, in the precision of the others."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    kept = scores(json.loads((folder / "result.json").read_text()))
    found = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    assert all(abs(found[name] - value) < 1e-6 for name, value in kept.items())  # events are float32
    return {name: kept.get(name, value) for name, value in found.items()}.items()


def test_mlflow_and_wandb_have_the_numbers_of_the_result(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("mlflow", "wandb"):
        if not REQUIRED:
            pytest.importorskip(package, reason="the packages of trackers are no part of the extra `test`")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    followed, plan = replace(config, track="mlflow,wandb"), tmp_path / "plan"
    results, _ = run_parts(expand(followed, [1], [1, 2], []), plan, QUIET)
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("headwater")
    assert experiment is not None
    runs = {each.info.run_name: each for each in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["seed1", "seed2"]
    for name, each in runs.items():
        metrics = each.data.metrics
        assert metrics.items() >= scores(results[name]).items()
        assert (each.info.status, each.data.tags["plan"], each.data.params["upstream.name"]) == (
            "FINISHED",
            "plan",
            "fbank_no_cmvn",
        )
        history = client.get_metric_history(each.info.run_id, "emotion/dev/ua")
        assert [point.step for point in history] == [4, 8, 12]
        listed = client.download_artifacts(each.info.run_id, "scores.csv")
        rows = [*csv.DictReader(Path(listed).read_text().splitlines())]
        wanted = results[name]["scores"]["test"]["ua"]
        assert [float(row["value"]) for row in rows if (row["split"], row["metric"]) == ("test", "ua")] == [wanted]
        assert {picture.path for picture in client.list_artifacts(each.info.run_id, "plots")} >= {"plots/confusion-test.png"}
        assert offline(plan / name).items() >= scores(results[name]).items()


def offline(folder: Path) -> dict[str, float]:
    """Return the last value of everything that W&B keeps of a run until it is synced."""
    from wandb.proto.wandb_internal_pb2 import Record

    [path] = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    found = {}
    for data in records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        for item in record.history.item:
            found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format: blocks of 32 KiB, each piece behind a checksum, a length and a type."""
    place, parts = 7, b""  # behind W&B's own header
    while place + 7 <= len(content):
        left = 32_768 - place % 32_768
        if left < 7:  # no room for a head: the block's end is filled up
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield parts
            parts = b""


def test_a_resumed_run_goes_on_in_its_tracker(
    config: RunConfig, tmp_path: Path, notebook: type[Notebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.runs import run as module

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "evaluate_task", stop)
        with pytest.raises(KeyboardInterrupt):
            run(replace(config, track="trackio"), tmp_path / "run", QUIET)
    kept = json.loads((tmp_path / "run" / "trackers.json").read_text())
    run(replace(config, track="trackio"), tmp_path / "run", QUIET)
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == kept
    first, second = notebook.kept
    assert (first.ended, second.ended, second.settings["resume"]) == (1, 1, "allow")
    assert [bool(one.config) for one in notebook.kept] == [True, False], "the config is kept once"
