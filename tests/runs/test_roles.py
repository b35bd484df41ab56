"""Runs that hear and read: stored as computed, resumed to the digit, asked again, and without the one or the other."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
import yaml

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.downstream.answer import OneClass
from headwater.downstream.heads import Fusion, Pooled
from headwater.inference.evaluate import evaluate_run
from headwater.inference.load import load_run
from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import Frames

QUIET = Runtime("cpu", quiet=True)
BOTH: dict[str, Any] = {"upstream": {"name": "fbank_no_cmvn"}, "text_upstream": {"name": "hashed_words"}}
TRAINING = {"steps": 12, "batch_size": 8, "eval_every": 4, "save_every": 3, "log_every": 2}


def mapping_of(table: Path, over: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe over the rated tones: emotion, unless it says otherwise."""
    return merge({"task": "emotion", "corpus": {"data": str(table)}, "training": TRAINING}, over)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def scores(folder: Path) -> torch.Tensor:
    """The predicted probabilities (utterance, class) on test."""
    found = read_predictions(folder / "predictions-test.csv", OneClass(()))[0].scores
    assert found is not None
    return found


# stored and computed


@pytest.fixture(scope="module")
def stored_and_computed(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run with the means of both roles from a store, and with none."""
    folder = tmp_path_factory.mktemp("roles")
    for name, mode in (("stored", str(folder / "store")), ("computed", "off")):
        run(resolve([mapping_of(rated, {**BOTH, "store": {"mode": mode}})]), folder / name, QUIET)
    return {name: folder / name for name in ("stored", "computed")}


def test_means_of_both_roles_from_the_store_give_the_numbers_of_the_computed(stored_and_computed: dict[str, Path]) -> None:
    stored, computed = (result(folder)["scores"]["test"] for folder in stored_and_computed.values())
    assert stored == pytest.approx(computed, abs=1e-6)
    torch.testing.assert_close(*(scores(folder) for folder in stored_and_computed.values()), rtol=0, atol=2e-6)


def test_a_run_says_of_each_role_where_its_features_came_from(stored_and_computed: dict[str, Path]) -> None:
    kinds = [json.loads((folder / "identity.json").read_text())["features"] for folder in stored_and_computed.values()]
    assert kinds == ["audio means, float32; text means, float32", "audio computed; text computed"]


def test_a_stored_run_resumes_from_the_same_features(stored_and_computed: dict[str, Path], rated: Path, tmp_path: Path) -> None:
    shutil.copytree(stored_and_computed["stored"], tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(UserError, match=r"features: audio means, float32; text means, float32 -> audio computed; text computed"):
        run(resolve([mapping_of(rated, {**BOTH, "store": {"mode": "off"}})]), tmp_path / "run", QUIET)


def test_the_check_compares_both_roles_with_the_full_computation(
    rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(resolve([mapping_of(rated, {**BOTH, "store": {"mode": "check"}})]), tmp_path, Runtime("cpu"))
    assert "store     checked on 8 utterances" in capsys.readouterr().err


# text alone


@pytest.fixture
def table_alone(rated: Path, tmp_path: Path) -> Path:
    """The table alone: none of its audio files is there."""
    path = tmp_path / "unheard.csv"
    path.write_text(rated.read_text())
    return path


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_a_run_that_only_reads_opens_no_audio(table_alone: Path, tmp_path: Path, mode: str) -> None:
    over = {"text_upstream": {"name": "hashed_words"}, "corpus": {"options": {"columns": {"label": "directed"}}}}
    run(resolve([mapping_of(table_alone, {**over, "task": "dsd", "store": {"mode": mode}})]), tmp_path / "run", QUIET)
    assert result(tmp_path / "run")["num_utterances"]["test"] == 12
    prediction = load_run(tmp_path / "run").predict("nowhere.wav", "so computer please")
    assert prediction.scores is not None
    assert sum(prediction.scores.values()) == pytest.approx(1)


def test_a_run_with_audio_finds_the_missing_files(table_alone: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected readable audio for all 72 utterances, found 72 broken"):
        run(resolve([mapping_of(table_alone, BOTH)]), tmp_path / "run", QUIET)


# what a run is


def test_a_changed_transcript_makes_another_run(table_alone: Path, tmp_path: Path) -> None:
    text_only = {"text_upstream": {"name": "hashed_words"}}
    run(resolve([mapping_of(table_alone, text_only)]), tmp_path / "run", QUIET)
    lines = table_alone.read_text().splitlines()
    lines[5] = lines[5].replace("they say", "they said").replace("please", "pleases")
    table_alone.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"corpus: \w+ -> \w+"):
        run(resolve([mapping_of(table_alone, text_only)]), tmp_path / "run", QUIET)


def test_a_run_that_does_not_read_does_not_mind_a_transcript(rated: Path, tmp_path: Path) -> None:
    audio_only = {"upstream": {"name": "fbank_no_cmvn"}}
    first = run(resolve([mapping_of(rated, audio_only)]), tmp_path / "run", QUIET)
    without = rated.with_name("other_words.csv")
    without.write_text(rated.read_text().replace("they say", "they said"))
    assert run(resolve([mapping_of(without, audio_only)]), tmp_path / "run", QUIET) == first


# a threshold, and a scale, that a run keeps


@pytest.fixture(scope="module")
def directed(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of dsd that may miss a tenth."""
    folder = tmp_path_factory.mktemp("directed") / "run"
    over = {
        **BOTH,
        "task": "dsd",
        "dsd": {"operating_point": "frr=0.1"},
        "corpus": {"options": {"columns": {"label": "directed"}}},
    }
    run(resolve([mapping_of(rated, {**over, "training": {"steps": 40}, "optimizer": {"lr": 0.01}})]), folder, QUIET)
    return folder


def test_dev_places_the_threshold_that_is_kept_and_printed_with_its_errors(directed: Path) -> None:
    threshold = json.loads((directed / "vocabulary.json").read_text())["dsd"]["threshold"]
    found = result(directed)
    assert threshold != 0.5
    assert {row["threshold"] for row in found["details"].values()} == {threshold}
    assert found["scores"]["dev"]["frr"] <= 0.1
    for split in ("dev", "test"):
        outcome, _ = read_predictions(directed / f"predictions-{split}.csv", OneClass(()))
        assert outcome.scores is not None
        accepted = (outcome.scores[:, 1] >= threshold).numpy()
        truth = np.array(outcome.references) == "directed"
        assert found["scores"][split]["far"] == pytest.approx(accepted[~truth].mean())
        assert found["scores"][split]["frr"] == pytest.approx(1 - accepted[truth].mean())
        assert (np.array(outcome.predictions) == "directed").tolist() == accepted.tolist()
        assert (directed / "plots" / f"det-{split}.png").is_file()


def test_predict_decides_by_the_runs_own_threshold(directed: Path, rated: Path, tmp_path: Path) -> None:
    shutil.copytree(directed, tmp_path / "run")
    path = tmp_path / "run" / "vocabulary.json"
    vocabulary, labels = json.loads(path.read_text()), []
    for threshold in (0.0, 1.01):
        vocabulary["dsd"]["threshold"] = threshold
        path.write_text(json.dumps(vocabulary))
        labels.append(load_run(tmp_path / "run").predict(rated.parent / "00.wav", "glad they say").label)
    assert labels == ["directed", "other"]


def test_a_run_of_dsd_is_tested_again_with_the_same_scores(directed: Path) -> None:
    config = load_run(directed).config
    again = evaluate_run(directed, config.only.corpus, config.only.labels, "test", QUIET)
    expected = result(directed)["scores"]["test"]
    assert again["scores"]["test"] == pytest.approx(expected, abs=1e-6)


def test_a_table_of_ratings_without_a_scale_of_its_own_is_tested_on_the_runs(rated: Path, tmp_path: Path) -> None:
    over = {**BOTH, "task": "avd", "avd": {"scale": [1, 7], "hidden_dim": 16}}
    first = run(resolve([mapping_of(rated, over)]), tmp_path, QUIET)
    config = load_run(tmp_path).config
    again = evaluate_run(tmp_path, config.only.corpus, config.only.labels, "test", QUIET)
    assert again["scores"]["test"] == pytest.approx(first["scores"]["test"], abs=1e-4)  # frames are stored in float16
    assert "ratings from 1 to 7, the run's scale, since the corpus says none" in again["notes"]


# in bf16


@pytest.mark.parametrize("task", ["avd", "turbo"])
def test_bf16_trains_near_float32(task: str, rated: Path, tmp_path: Path) -> None:
    section = {"avd": {"scale": [1, 7], "hidden_dim": 16, "dropout": 0.0}, "turbo": {"joint_dim": 16}}[task]
    losses = {}
    for precision in ("float32", "bf16"):
        over = {**BOTH, "task": task, task: section, "training": {"precision": precision, "steps": 4}, "store": {"mode": "off"}}
        run(resolve([mapping_of(rated, over)]), tmp_path / precision, QUIET)
        log = map(json.loads, (tmp_path / precision / "metrics.jsonl").read_text().splitlines())
        losses[precision] = [row["loss"] for row in log if row["split"] == "train"]
    assert len(losses["bf16"]) == 2
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.03)
    assert losses["bf16"] != losses["float32"]


# two views


@pytest.mark.parametrize(("trainable", "heard_twice"), [(True, 8), (False, 4)])
def test_two_views_are_one_pass_doubled_where_an_upstream_is_trained_and_none_more_in_evaluation(
    trainable: bool, heard_twice: int, rated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = {**BOTH, "task": "turbo", "turbo": {"joint_dim": 16}, "text_upstream": {"name": "test_bert", "trainable": trainable}}
    setup = prepare(resolve([mapping_of(rated, over)]))
    model, passes = setup.model, []
    for role, upstream in setup.upstreams.items():

        def noted(*given: Any, role: str = role, forward: Any = upstream.forward, **options: Any) -> Any:
            """Note how many rows come back."""
            layers = forward(*given, **options)
            passes.append((role, len(layers.lengths)))
            return layers

        monkeypatch.setattr(upstream, "forward", noted)
    task = setup.tasks["turbo"]
    batch = task.source.batch(task.splits["train"][:4])
    _, output = model.train()("turbo", batch)
    assert passes == [("audio", 4), ("text", heard_twice)]
    assert output.values.shape == (8, 3)
    assert not torch.equal(*output.values.split(4))
    passes.clear()
    _, output = model.eval()("turbo", batch)
    assert passes == [("audio", 4), ("text", 4)]
    assert output.values.shape == (4, 3)


# killed, and asked again


def start(recipe: Path, folder: Path) -> processes.Started:
    """A run in a process of its own."""
    return processes.start("-m", "headwater", "downstream", "-c", recipe, "-p", folder, "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def turbo(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of Turbo with a finetuned reader and dropout everywhere, and the run, never killed."""
    folder = tmp_path_factory.mktemp("turbo")
    mapping = {
        "task": "turbo",
        "upstream": {"name": "fbank_no_cmvn"},
        "text_upstream": {"name": "test_bert", "trainable": True, "dropout": 0.1},
        "turbo": {"joint_dim": 16, "temperature": 0.2, "learn_temperature": True},
        "training": {"steps": 20, "batch_size": 6, "eval_every": 7},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(mapping_of(rated, mapping)))
    start(folder / "recipe.yaml", folder / "run").finish()
    return folder


def test_a_killed_run_of_both_roles_ends_with_the_same_digits(turbo: Path, tmp_path: Path) -> None:
    log, folder = (turbo / "run" / "metrics.jsonl").read_text().splitlines(), tmp_path / "run"
    for wanted in (3, 8):  # lines of the log
        process, deadline = start(turbo / "recipe.yaml", folder), time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            path = folder / "metrics.jsonl"
            if path.is_file() and len(path.read_text().splitlines()) >= wanted:
                break
            time.sleep(0.005)
        assert process.poll() is None, "it was to be killed before its end"
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    start(turbo / "recipe.yaml", folder).finish()
    assert (folder / "metrics.jsonl").read_text().splitlines() == log
    ours, theirs = result(folder), result(turbo / "run")
    assert {key: value for key, value in ours.items() if key != "environment"} == {
        key: value for key, value in theirs.items() if key != "environment"
    }


def test_a_finetuned_reader_is_loaded_as_it_was_trained(turbo: Path, rated: Path) -> None:
    loaded = load_run(turbo / "run")
    table = [line.split(",") for line in rated.read_text().splitlines() if ",test," in line]
    expected = scores(turbo / "run")
    for row, values in list(zip(table, expected, strict=True))[:3]:
        prediction = loaded.predict(rated.parent / row[0], row[4])
        assert prediction.scores is not None
        assert [*prediction.scores.values()] == pytest.approx(values.tolist(), abs=1e-5)
    fresh = load_run(turbo / "run").predict(rated.parent / table[0][0], "something else altogether")
    assert fresh.scores != loaded.predict(rated.parent / table[0][0], table[0][4]).scores


def test_alignment_and_uniformity_stand_in_every_result(turbo: Path) -> None:
    found = result(turbo / "run")["details"]
    assert {*found} == {"dev", "test"}
    assert all({"alignment", "uniformity", "uniformity_audio", "uniformity_text"} <= {*row} for row in found.values())


# without text


def dropping(share: float, task: str) -> dict[str, Any]:
    section = {"modality_dropout": share} | ({"scale": [1, 7], "hidden_dim": 16} if task == "avd" else {})
    return {**BOTH, "task": task, task: section, "training": {"steps": 60}, "optimizer": {"lr": 0.01}}


def test_modality_dropout_withholds_the_text_of_its_share_in_training_alone() -> None:
    fusion = Fusion({"audio": Pooled(2), "text": Pooled(3)}, text_dropout=0.25)
    frames = {role: Frames(torch.ones(4000, 1, dim), (1,) * 4000) for role, dim in (("audio", 2), ("text", 3))}
    torch.manual_seed(0)
    found = fusion.train()(frames)
    withheld = (found[:, 2:] == 0).all(dim=1)
    assert float(withheld.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(found[~withheld], torch.ones(int((~withheld).sum()), 5))
    assert torch.equal(found[:, :2], torch.ones(4000, 2))
    assert torch.equal(fusion.eval()(frames), torch.ones(4000, 5))


@pytest.mark.parametrize("task", ["emotion", "avd"])
def test_modality_dropout_lets_a_run_predict_without_text(task: str, rated: Path, tmp_path: Path) -> None:
    run(resolve([mapping_of(rated, dropping(0.5, task))]), tmp_path, QUIET)
    whole = load_run(tmp_path)
    deaf = whole.without_text()
    assert not deaf.uses_text
    audio = rated.parent / "00.wav"
    assert deaf.predict(audio).scores == deaf.predict(audio, "glad computer please").scores
    assert whole.predict(audio, "glad computer please").scores != whole.predict(audio, "sad they say").scores
    with pytest.raises(UserError, match=r"Expected a transcript of .*00\.wav for a run that reads, found none"):
        whole.predict(audio)


def test_what_was_trained_without_text_is_right_without_it(rated: Path, tmp_path: Path) -> None:
    run(resolve([mapping_of(rated, dropping(0.5, "emotion"))]), tmp_path, QUIET)
    deaf = load_run(tmp_path).without_text()
    rows = [line.split(",") for line in rated.read_text().splitlines() if ",test," in line]
    right = np.mean([deaf.predict(rated.parent / row[0]).label == row[1] for row in rows])
    assert right >= 0.75


def test_a_run_that_always_had_text_cannot_do_without(stored_and_computed: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"found one that needs its text in .* Train with a modality_dropout above 0"):
        load_run(stored_and_computed["computed"]).without_text()


def test_a_run_that_never_read_has_no_text_to_leave_out(finished: Path) -> None:
    with pytest.raises(UserError, match="found one that reads no text in"):
        load_run(finished).without_text()


@pytest.mark.parametrize("role", ["upstream", "text_upstream"])
def test_modality_dropout_of_one_modality_is_refused(role: str, rated: Path, tmp_path: Path) -> None:
    over = {key: value for key, value in dropping(0.5, "emotion").items() if key not in BOTH} | {role: BOTH[role]}
    with pytest.raises(UserError, match=r"audio and text for a modality_dropout above 0, found .* alone\. Leave it out"):
        run(resolve([mapping_of(rated, over)]), tmp_path, QUIET)
