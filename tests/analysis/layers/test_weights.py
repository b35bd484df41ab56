"""Layer weights over runs: means and spreads by hand, and what may not be mixed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from headwater.analysis.layers.weights import layer_weights
from headwater.core.errors import UserError


def write_run(folder: Path, weights: list[float], norms: list[float], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    layers = {"emotion/audio": {"weights": weights, "norms": norms}}
    content = {"upstream": "hubert", "marks": ["DEMO"], "layers": layers, "identity": "0"} | changes
    (folder / "layer_weights.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "layer-weights.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_one_run_gives_weight_and_weight_times_norm_without_spread(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.25, 0.75], [3.0, 1.0])
    text = layer_weights([run])
    first, second = rows_of(run / "plots")
    assert (first["weight_mean"], first["norm_mean"], first["weight_x_norm_mean"]) == ("0.25", "3", "0.75")
    assert (first["weight_x_norm_share_mean"], second["weight_x_norm_share_mean"]) == ("0.5", "0.5")
    assert {first["weight_std"], first["weight_x_norm_share_std"]} == {""}
    assert (first["task"], first["role"], first["layer"], first["runs"], first["marks"]) == ("emotion", "audio", "0", "1", "DEMO")
    assert text.splitlines()[0].startswith("DEMO · layers of hubert")
    assert text.splitlines()[-2].split() == ["1", "0.750", "1.000", "0.500"]
    assert text.splitlines()[-1].startswith("written to ")
    assert {path.name for path in (run / "plots").iterdir()} == {"layer-weights.csv", "layer-weights.png", "layer-weights.pdf"}


def test_a_plans_folder_gives_mean_and_sample_deviation_over_its_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "plan" / "seed1" / "fold1", [0.2, 0.8], [1.0, 1.0])
    write_run(tmp_path / "plan" / "seed2" / "fold1", [0.4, 0.6], [1.0, 1.0], marks=["UNTRAINED"])
    text = layer_weights([tmp_path / "plan"], tmp_path / "out")
    first = rows_of(tmp_path / "out")[0]
    assert (first["weight_mean"], first["weight_std"], first["runs"]) == ("0.3", "0.141421", "2")
    assert first["marks"] == "DEMO UNTRAINED"
    assert "0.300 ± 0.141" in text
    assert "mean ± std of 2 runs" in text


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [0.25, 0.75], [3.0, 1.0])
    layer_weights([run, tmp_path], tmp_path / "out")
    assert rows_of(tmp_path / "out")[0]["runs"] == "1"


def test_each_weighted_sum_has_rows_of_its_own(tmp_path: Path) -> None:
    layers = {f"{task}/audio": {"weights": [0.5, 0.5], "norms": [1.0, 2.0]} for task in ("emotion", "dsd")}
    run = write_run(tmp_path / "run", [], [], layers=layers)
    text = layer_weights([run])
    assert [row["task"] for row in rows_of(run / "plots")] == ["emotion", "emotion", "dsd", "dsd"]
    assert "dsd/audio" in text


@pytest.mark.parametrize(
    ("changes", "weights", "message"),
    [
        ({"upstream": "wavlm"}, [0.5, 0.5], "Expected runs of one upstream, found hubert, wavlm. Draw each"),
        ({}, [0.2, 0.3, 0.5], "Expected as many layers in every run for 'emotion/audio', found 2 and 3."),
        ({"layers": {}}, [1.0], "Expected a run with a weighted sum of layers, found one without in"),
        ({"layers": {"emotion/audio": {}}}, [1.0], "Expected upstream, and weights and norms of layers in"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path, changes: dict, weights: list[float], message: str) -> None:
    one = write_run(tmp_path / "one", [0.25, 0.75], [3.0, 1.0])
    two = write_run(tmp_path / "two", weights, [1.0] * len(weights), **changes)
    with pytest.raises(UserError) as caught:
        layer_weights([one, two], tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_run_of_one_layer_has_nothing_to_show(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [1.0], [1.0])
    with pytest.raises(UserError, match="found that hubert has one layer: there are no weights to show") as caught:
        layer_weights([run])
    assert "-l" not in str(caught.value)  # nobody typed it
    (run / "config.yaml").write_text("upstream: {name: hubert, layer: 5}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"found layer 5 of hubert alone \(-l 5\).* Train a run without -l"):
        layer_weights([run])


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected layer_weights\.json in '.*' or in runs below it, found none"):
        layer_weights([tmp_path])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "layer_weights.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"Expected a run's json in '.*layer_weights\.json'"):
        layer_weights([tmp_path])
