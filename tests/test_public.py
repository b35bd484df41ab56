"""The public names: a run, a comparison and a table of scores from Python, and a head in a loop of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import headwater
from headwater.corpus import load_corpus, read_audio
from headwater.downstream import load_task
from headwater.upstream import WeightedSum, load_upstream

OPTIONS = {"training.steps": 20, "training": {"eval_every": 10, "batch_size": 8}, "optimizer.lr": 1e-2}


@pytest.fixture(scope="module")
def two(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs trained from Python."""
    folder = tmp_path_factory.mktemp("api")
    places = [folder / "one", folder / "two"]
    for place, upstream in zip(places, ("fbank_no_cmvn", "mfcc"), strict=True):
        headwater.train("emotion", upstream, data=tones, folder=place, options=OPTIONS)
    return places


def test_a_run_is_trained_and_its_result_is_returned_again(two: list[Path], tones: Path) -> None:
    result = headwater.train("emotion", "fbank_no_cmvn", data=tones, folder=two[0], options=OPTIONS)
    assert result["steps"] == 20
    assert headwater.load_run(two[0]).predict(str(tones.with_name("00.wav"))).label in {"low", "middle", "high"}


def test_results_are_a_row_for_each_metric_of_each_split(two: list[Path]) -> None:
    rows = headwater.results(two[0].parent)
    assert {row["upstream"] for row in rows} == {"fbank_no_cmvn", "mfcc"}
    assert {(row["split"], row["metric"]) for row in rows} >= {("test", "ua"), ("dev", "loss")}
    assert all(row["low"] is None or row["low"] <= row["value"] <= row["high"] for row in rows)


def test_results_of_a_folder_without_runs_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        headwater.UserError, match=r"Expected finished runs in the folders given, found none in '.*'\. Train a run"
    ):
        headwater.results(tmp_path)


def test_two_runs_are_compared(two: list[Path]) -> None:
    assert headwater.compare([str(place) for place in two]).metric == "ua"


def test_a_joint_run_is_trained_from_python(rated: Path, tmp_path: Path) -> None:
    options = {"training.steps": 4, "training.eval_every": 4, "training.batch_size": 8, "tasks.avd.avd.scale": [1, 7]}
    result = headwater.train(["emotion", "avd"], "fbank_no_cmvn", data=rated, folder=tmp_path, options=options)
    assert {*result["tasks"]} == {"emotion", "avd"}
    assert {row["task"] for row in headwater.results(tmp_path)} == {"emotion", "avd"}


def test_class_names_alone_make_a_head_that_trains_in_a_loop_of_the_user(tones: Path) -> None:
    rows = load_corpus("manifest", str(tones)).splits["train"][:24]
    names = ["low", "middle", "high"]
    upstream = load_upstream("fbank_no_cmvn")
    mix, head = WeightedSum(upstream.spec.num_layers), load_task("emotion").head(names, upstream)
    optimizer = torch.optim.Adam([*mix.parameters(), *head.parameters()], lr=1e-2)
    layers = upstream([read_audio(row.audio) for row in rows])
    targets = torch.tensor([names.index(row.labels["label"]) for row in rows])
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(head({"audio": mix(layers)}).values, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_head_without_an_upstream_is_one_line() -> None:
    with pytest.raises(headwater.UserError, match="Expected an upstream beside the classes, found none"):
        load_task("emotion").head(["a", "b"])
