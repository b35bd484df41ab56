"""Speaker verification as a run: from a table to an error rate, compared, asked about pairs of files, and in folds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from headwater.analysis.comparison.compare import compare
from headwater.analysis.comparison.text import compared_text
from headwater.commands.use.predict import main as predict
from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.core.run_folder import RunFolder
from headwater.downstream.asv.question import QUESTION
from headwater.inference.export.export import export_run
from headwater.inference.load import load_run
from headwater.plans.grid import pooled
from headwater.runs.config.recipes import find_recipe, read_yaml
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig
from headwater.runs.results import read_predictions, read_tables
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

SPEAKERS = {"train": 6, "dev": 3, "test": 9}
RATE = 16_000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speakers who hum, each at a pitch of their own, in a table with splits."""
    folder, generator = tmp_path_factory.mktemp("voices"), np.random.default_rng(0)
    lines = [["audio", "speaker", "split"]]
    pitches = iter(generator.permutation(np.geomspace(120, 900, sum(SPEAKERS.values()))))
    for split, count in SPEAKERS.items():
        for number in range(count):
            pitch = next(pitches)
            for take in range(3):
                name = f"{split}{number}_{take}.wav"
                time = np.arange(int(RATE * generator.uniform(0.5, 0.7))) / RATE
                tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3))
                soundfile.write(folder / name, 0.1 * tone + 0.01 * generator.normal(size=len(time)), RATE)
                lines.append([name, f"{split}{number}", split])
    with (folder / "voices.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return folder / "voices.csv"


def config_of(table: Path, over: dict[str, Any] | None = None) -> RunConfig:
    training = {"steps": 20, "batch_size": 8, "eval_every": 10, "patience": None}
    asv = {"dim": 16, "pooled_dim": 16, "min_seconds": 0.4}
    mapping = {
        "task": "asv",
        "upstream": {"name": "fbank_no_cmvn"},
        "corpus": {"data": str(table)},
        "training": training,
        "asv": asv,
    }
    return resolve([merge({**mapping, "optimizer": {"lr": 1e-2}}, over or {})])


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the hums; tests only read it."""
    folder = tmp_path_factory.mktemp("asv") / "run"
    run(config_of(table), folder, Runtime("cpu", quiet=True))
    return folder


@pytest.fixture(scope="module")
def normalised(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with another head, whose scores are normalised by training speakers."""
    folder = tmp_path_factory.mktemp("asv") / "normalised"
    run(config_of(table, {"asv": {"dim": 12, "s_norm": 3}, "seed": 2}), folder, Runtime("cpu", quiet=True))
    return folder


def test_a_table_of_audio_and_speakers_trains(trained: Path) -> None:
    result = RunFolder(trained).read().result()
    scores, interval = result["scores"]["test"], result["intervals"]["test"]["eer"]
    assert 0 <= scores["eer"] < 0.5
    assert 0 <= scores["min_dcf"] <= 1
    assert interval[0] <= scores["eer"] <= interval[1]
    assert result["intervals"]["dev"]["eer"] is None  # three speakers
    assert scores["loss"] is None  # of speakers whom training has none of
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {"loss" in line for line in lines if line["split"] == "train"} == {True}
    assert {"loss" in line for line in lines if line["split"] == "dev"} == {False}


def test_no_speaker_of_dev_is_in_the_vocabulary(trained: Path) -> None:
    vocabulary = json.loads((trained / "vocabulary.json").read_text())["asv"]
    assert vocabulary["speakers"] == [f"train{number}" for number in range(6)]
    assert vocabulary["threshold"] != 0.5


def test_the_predictions_of_a_run_score_what_the_run_scored(normalised: Path) -> None:
    place, stored = RunFolder(normalised), RunFolder(normalised).read()
    vocabulary = stored.vocabulary("asv")["asv"]
    outcome, speakers = read_predictions(place.predictions("test"), QUESTION.answer(vocabulary))
    found = QUESTION.score(vocabulary, outcome, read_tables([place], "test"))
    expected = stored.result()["scores"]["test"]
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-3)
    assert len({*speakers}) == 9


@pytest.mark.parametrize("which", ["trained", "normalised"])
def test_a_loaded_run_predicts_what_the_run_itself_predicted(which: str, table: Path, request: pytest.FixtureRequest) -> None:
    loaded = load_run(request.getfixturevalue(which))
    outcome, _ = read_predictions(RunFolder(request.getfixturevalue(which)).predictions("test"), loaded.answer)
    scores = loaded.predict(str(table.parent / outcome.ids[0])).scores
    assert scores is not None
    assert [*scores.values()] == pytest.approx(outcome.predictions[0].tolist(), abs=1e-4)


def test_two_runs_are_compared_by_their_interval_and_the_level_at_which_it_ends_at_0(trained: Path, normalised: Path) -> None:
    compared = compare([trained, normalised])
    difference = compared.comparisons[0].differences["eer"]
    scores = [RunFolder(place).read().result()["scores"]["test"]["eer"] for place in (trained, normalised)]
    assert (difference.first, difference.second) == pytest.approx(scores, abs=1e-3)
    assert difference.interval is not None
    assert difference.p is not None
    assert difference.holds_0 == (difference.p >= 0.05)
    winner = compared.comparisons[0].winner("eer", "lower")
    assert winner == (0 if difference.holds_0 else -1 if difference.value > 0 else 1)
    assert "p: the level at which that interval ends at 0, since embeddings cannot change sides" in compared_text(compared)


def test_several_comparisons_of_embeddings_are_corrected(trained: Path, normalised: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    one, other = compare([trained, normalised, copy]).comparisons
    alone = compare([trained, normalised]).comparisons[0].differences["eer"].p
    assert alone is not None
    assert one.corrected["eer"] == pytest.approx(min(1.0, 2 * alone))
    assert other.differences["eer"].p == 1.0


def test_a_run_and_its_copy_cannot_be_told_apart(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    assert "they score alike for every speaker" in compared_text(compare([trained, copy]))


def test_two_seeds_pooled_make_their_trials_apart(trained: Path) -> None:
    config = config_of(Path("voices.csv")).only
    vocabulary = RunFolder(trained).read().vocabulary("asv")["asv"]
    once, twice = (pooled([trained] * count, "test", config, vocabulary) for count in (1, 2))
    assert twice["scores"] == pytest.approx(once["scores"])
    assert twice["num_utterances"] == once["num_utterances"] == 27
    assert twice["intervals"]["eer"] == pytest.approx(once["intervals"]["eer"])


@pytest.mark.parametrize("which", ["trained", "normalised"])
def test_two_files_are_of_one_speaker_where_their_score_reaches_the_threshold(
    which: str, table: Path, request: pytest.FixtureRequest
) -> None:
    loaded = load_run(request.getfixturevalue(which))
    one, other = (str(table.parent / name) for name in ("test0_0.wav", "test0_1.wav"))
    pair = loaded.predict_pair(one, other)
    assert pair.score is not None
    assert pair.label == ("same" if pair.score >= loaded.vocabulary["threshold"] else "different")
    assert loaded.predict_pair(one, one).label == "same"
    assert loaded.predict_pair(other, one).score == pytest.approx(pair.score)


def test_pairs_are_printed_with_what_cannot_be_read(trained: Path, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(table.parent / "test0_0.wav")
    assert predict([str(trained), "--pair", here, here, "--pair", here, "gone.wav"]) == 3
    lines = [*csv.DictReader(capsys.readouterr().out.splitlines())]
    assert [(line["label"], line["score"]) for line in lines] == [("same", "1.000000"), ("", "")]
    assert "found no such file: gone.wav" in lines[1]["error"]


def test_a_file_alone_has_its_embedding(trained: Path, table: Path) -> None:
    found = load_run(trained).predict(str(table.parent / "test0_0.wav"))
    assert found.label is None
    assert found.scores is not None
    assert np.linalg.norm([*found.scores.values()]) == pytest.approx(1.0, abs=1e-5)


def test_a_pair_of_files_means_nothing_to_another_task(finished: Path) -> None:
    with pytest.raises(UserError, match=r"in pairs \(asv\) for --pair, found one that predicts classes\. Leave --pair out"):
        predict([str(finished), "--pair", "a.wav", "b.wav"])


def test_a_graph_of_normalised_scores_is_refused(normalised: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"asv without a cohort for --onnx, .* found asv\.s_norm\. Leave --onnx out"):
        export_run(normalised, tmp_path / "out", onnx=True)


def test_pairs_and_files_at_once_are_refused(trained: Path) -> None:
    with pytest.raises(UserError, match=r"Expected --pair A B alone, found files beside it\. Leave one out\."):
        predict([str(trained), "c.wav", "--pair", "a.wav", "b.wav"])


def test_the_miniature_trains_to_the_end(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    training = {"steps": 4, "batch_size": 8, "eval_every": 2, "patience": None}
    over = {"corpus": {"demo": True, "demo_scale": 0.05}, "upstream": {"name": "fbank"}, "training": training}
    result = run(resolve([read_yaml(find_recipe("demo/asv")), over]), tmp_path / "run", Runtime("cpu", quiet=True))
    assert (result["marks"], result["protocol"]) == (["DEMO"], "veri")
    assert 0 <= result["scores"]["test"]["eer"] <= 1
    assert result["num_speakers"] == {"dev": 2, "test": 2}


def test_a_final_model_is_trained_on_the_stretches_that_are_stored(table: Path, tmp_path: Path) -> None:
    over = {"asv": {"crop_seconds": 0.3}, "training": {"steps": 2, "eval_every": 1}, "store": {"mode": str(tmp_path / "store")}}
    run(config_of(table, over), tmp_path / "first", Runtime("cpu", quiet=True))
    final = {**over, "split": "all", "steps_from": str(tmp_path / "first")}
    run(config_of(table, final), tmp_path / "final", Runtime("cpu", quiet=True))
    layers = json.loads((tmp_path / "final" / "layer_weights.json").read_text())["layers"]
    assert all(norm > 0 for norm in layers["asv/audio"]["norms"])
