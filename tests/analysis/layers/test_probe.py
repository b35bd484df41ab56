"""What a probe's folder gives: scores by layer beside weights, and what is said of a folder that is none."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from headwater.__main__ import dispatch
from headwater.analysis.layers.probe import probe, read_probe
from headwater.core.errors import UserError

WEIGHTS, NORMS = [0.5, 0.3, 0.2], [1.0, 2.0, 7.0]


def write_probe(folder: Path, scores: dict[str, Sequence[float]], **changes: Any) -> Path:
    """Write a plan's folder: dev UA by setting, one number for each seed; test is 0.1 lower."""
    runs, splits = [], changes.pop("splits", ("dev", "test"))
    for setting, values in scores.items():
        for seed, value in enumerate(values, 1):
            name = f"{setting}/seed{seed}" if len(values) > 1 else setting
            of_run = {split: {"ua": value - 0.1 * (split == "test"), "wa": 1 - value} for split in splits}
            runs.append({"name": name, "setting": setting, "seed": seed, "fold": 1, "scores": of_run})
            (folder / name).mkdir(parents=True)
            for file in ("config.yaml", "result.json"):
                (folder / name / file).write_text("{}", encoding="utf-8")
            layers = {"emotion/audio": {"weights": WEIGHTS, "norms": NORMS}}
            content = {"upstream": "hubert", "marks": ["DEMO"], "layers": layers}
            (folder / name / "layer_weights.json").write_text(json.dumps(content), encoding="utf-8")
    sweep = {setting: sum(values) / len(values) for setting, values in scores.items()}
    summary = {"task": "emotion", "select_by": "ua", "runs": runs, "sweep": sweep} | changes
    (folder / "result.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


ONE = {"layer0": [0.5], "layer1": [0.7], "layer2": [0.6], "sum": [0.65]}
TWO = {"layer0": [0.5, 0.5], "layer2": [0.6, 0.8], "sum": [0.6, 0.7]}


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "probe.csv").open(encoding="utf-8", newline="") as file:
        return {row["layer"]: row for row in csv.DictReader(file)}


def test_scores_of_layers_stand_beside_weights_and_the_sum_has_a_row_of_its_own(tmp_path: Path) -> None:
    text = probe(write_probe(tmp_path / "probe", ONE)).splitlines()
    rows = rows_of(tmp_path / "probe" / "plots")
    assert (rows["1"]["dev_mean"], rows["1"]["test_mean"], rows["1"]["weight_mean"]) == ("0.7", "0.6", "0.3")
    assert (rows["2"]["weight_x_norm_share_mean"], rows["2"]["dev_std"]) == ("0.56", "")
    assert (rows["sum"]["dev_mean"], rows["sum"]["weight_mean"], rows["sum"]["marks"]) == ("0.65", "", "DEMO")
    assert text[0] == "DEMO · emotion: layers of hubert (0 = input of block 1)"
    assert text[3].split() == ["1", "0.700", "0.600", "0.300", "0.240", "best", "on", "dev"]
    assert text[5].split() == ["sum", "0.650", "0.550"]
    assert text[6] == "best on dev: layer 1; largest weight: layer 0; largest weight × norm: layer 2"


def test_pictures_are_drawn_where_they_are_wanted(tmp_path: Path) -> None:
    probe(write_probe(tmp_path / "probe", ONE), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"probe.csv", "probe.png", "probe.pdf"}


def test_markers_lie_on_their_ticks_beside_chance_and_the_intervals_of_single_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_probe(tmp_path / "probe", ONE)
    result = {"classes": ["a", "b", "c", "d"], "intervals": {"dev": {"ua": None}, "test": {"ua": [0.2, 0.9]}}}
    for name in ONE:
        (folder / name / "result.json").write_text(json.dumps(result), encoding="utf-8")
    figures: list[Figure] = []
    monkeypatch.setattr("headwater.analysis.layers.probe.save_figure", lambda figure, _: figures.append(figure))
    probe(folder)
    top = figures[0].axes[0]
    marked = [line for line in top.lines if line.get_marker() in ("o", "s")]
    assert [[*line.get_xdata()] for line in marked] == [[0, 1, 2], [0, 1, 2]]
    words = [text.get_text() for text in top.get_legend().get_texts()]
    assert "chance" in words
    assert any([*line.get_ydata()] == [0.25, 0.25] for line in top.lines)
    bars = [segment.tolist() for bar in top.collections for segment in bar.get_segments()]
    assert bars == [[[layer, 0.2], [layer, 0.9]] for layer in (0.0, 1.0, 2.0)]  # of test: dev has none
    assert top.get_ylabel() == "UA"


def test_several_seeds_give_means_and_spreads_and_layers_left_out_stay_empty(tmp_path: Path) -> None:
    text = probe(write_probe(tmp_path / "probe", TWO))
    row = rows_of(tmp_path / "probe" / "plots")["2"]
    assert (row["runs"], row["dev_mean"], row["dev_std"], row["weight_std"]) == ("2", "0.7", "0.141421", "0")
    assert rows_of(tmp_path / "probe" / "plots")["1"]["dev_mean"] == ""
    assert "0.700 ± 0.141" in text


def test_another_metric_may_be_requested(tmp_path: Path) -> None:
    found = read_probe(write_probe(tmp_path / "probe", ONE), "wa")
    assert (found.metric, found.best_on_dev) == ("wa", 0)


def test_dev_chooses_a_setting_for_each_layer_of_a_sweep(tmp_path: Path) -> None:
    scores = {
        "layer0,optimizer.lr=1": [0.5],
        "layer0,optimizer.lr=2": [0.6],
        "sum,optimizer.lr=1": [0.7],
        "sum,optimizer.lr=2": [0.4],
    }
    found = read_probe(write_probe(tmp_path / "probe", scores))
    assert found.scores["dev"] == {0: [0.6], None: [0.7]}


def test_a_corpus_without_test_split_shows_dev_alone(tmp_path: Path) -> None:
    *table, written = probe(write_probe(tmp_path / "probe", ONE, splits=("dev",))).splitlines()
    assert "test" not in "\n".join(table)
    assert written == f"written to {tmp_path}/probe/plots/probe.png, .pdf and .csv"


def unfinished(folder: Path) -> None:
    (folder / "layer1" / "result.json").unlink()


def stopped_before_the_end(folder: Path) -> None:
    (folder / "result.json").unlink()


def without_the_sum(folder: Path) -> None:
    shutil.rmtree(folder / "sum")


def with_a_layer_more(folder: Path) -> None:
    shutil.copytree(folder / "layer1", folder / "layer3")


def with_a_layer_less(folder: Path) -> None:
    shutil.rmtree(folder / "layer1")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (
            shutil.rmtree,
            "Expected a probe's folder (layer0, layer1, …, sum) at '{}', found no layers there. Check the path, or make",
        ),
        (empty, "Expected a probe's folder (layer0, layer1, …, sum) at '{}', found no layers there. Check the path, or make"),
        (
            without_the_sum,
            "Expected the weighted sum beside the layers in '{}', found no folder 'sum'. Type the command of the probe",
        ),
        (unfinished, "Expected a finished probe in '{}', found parts that are not in its result: layer1. Type the command"),
        (stopped_before_the_end, "found parts that are not in its result: layer0, layer1, layer2, sum. Type the command"),
        (with_a_layer_more, "found parts that are not in its result: layer3. Type the command"),
        (with_a_layer_less, "found parts that are not in its result: layer1. Type the command"),
    ],
)
def test_what_is_no_finished_probe_is_named_in_one_line(tmp_path: Path, spoil: Any, found: str) -> None:
    folder = write_probe(tmp_path / "probe", ONE)
    spoil(folder)
    with pytest.raises(UserError) as caught:
        probe(folder, tmp_path / "out")
    assert found.format(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--probe", "probe", "--metric", "usa"],
            "Expected --metric wa, ua, macro_f1, found 'usa'. Did you mean 'ua'? Leave it out.",
        ),
        (["--probe", "probe", "other"], "Expected one folder after --probe, found 2. Draw each with a command of its own."),
        (["probe", "--metric", "ua"], "Expected --probe beside --metric ua, found none: weights have no metric. Add --probe."),
    ],
)
def test_a_wrong_question_about_a_probe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    write_probe(tmp_path / "probe", ONE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        dispatch(["plot", "layers", *arguments])
    assert str(caught.value) == message


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["plot", "layers", "--probe", str(write_probe(tmp_path / "probe", ONE))]) == 0
    assert "best on dev: layer 1" in capsys.readouterr().out
