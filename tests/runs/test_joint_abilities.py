"""What a run of one task has, a run of several has too: store, text, stages, folds, final models, predict, compare, export."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from headwater.analysis.comparison.compare import compare
from headwater.commands import downstream, mtl
from headwater.core.errors import UserError
from headwater.core.files import read_json
from headwater.core.options import merge
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import load_tensors
from headwater.inference.evaluate import evaluate_run
from headwater.inference.export.export import export_run
from headwater.inference.load import load_run
from headwater.inference.trained_run import TrainedRun
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import alone, to_mapping
from headwater.runs.final import with_steps
from headwater.runs.prepare import prepare
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.store.maintenance import list_spaces

QUIET = Runtime("cpu", quiet=True)
TRAINING = {"steps": 8, "eval_every": 8, "save_every": 4, "log_every": 1, "patience": None}


def mapping_of(rated: Path, *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe of three frozen tasks: two listen and read, the third only listens."""
    corpus = {"data": str(rated)}
    values: dict[str, Any] = {
        "upstream": {"name": "fbank_no_cmvn"},
        "text_upstream": {"name": "hashed_words"},
        "tasks": {
            "emotion": {"corpus": corpus, "batch_size": 8},
            "dsd": {"corpus": corpus, "batch_size": 8, "labels": {"column": "directed"}},
            "avd": {"corpus": corpus, "batch_size": 8, "roles": ["audio"], "avd": {"scale": [1, 7], "dropout": 0.0}},
        },
        "optimizer": {"lr": 1e-3},
        "training": TRAINING,
        "store": {"mode": "off"},
    }
    for layer in layers:
        values = merge(values, layer)
    return values


def losses(folder: Path, task: str) -> np.ndarray:
    """Return every loss of a task, of training and of dev."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["task"] == task])


def recipe_of(folder: Path, values: Mapping[str, Any]) -> Path:
    """Write a recipe."""
    path = folder / "joint.yaml"
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    return path


def loaded(folder: Path, task: str | None = None) -> TrainedRun:
    """Return a single run, ready to predict."""
    found = load_run(folder, task=task)
    assert isinstance(found, TrainedRun)
    return found


@pytest.fixture(scope="module")
def runs(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same joint run from a store, and computed; tests only read them."""
    folder = tmp_path_factory.mktemp("abilities")
    for name, mode in (("stored", str(folder / "store")), ("computed", "off")):
        run(resolve([mapping_of(rated, {"store": {"mode": mode}})]), folder / name, QUIET)
    return folder


# the store


def test_a_joint_run_that_listens_and_reads_is_the_computed_one_from_the_store(rated: Path, tmp_path: Path) -> None:
    values = mapping_of(rated, {"upstream": {"name": "test_hubert"}})
    values["tasks"].pop("avd")
    for name, mode in (("stored", str(tmp_path / "store")), ("computed", "off")):
        run(resolve([merge(values, {"store": {"mode": mode}})]), tmp_path / name, QUIET)
    stored, computed = (read_json(tmp_path / name / "result.json")["tasks"] for name in ("stored", "computed"))
    for task in ("emotion", "dsd"):
        one, other = losses(tmp_path / "stored", task), losses(tmp_path / "computed", task)
        assert len(one) == 8 + 1
        assert np.abs(one - other).max() <= 1e-5
        for split in ("dev", "test"):
            assert stored[task]["best"]["scores"][split] == pytest.approx(computed[task]["best"]["scores"][split], abs=1e-5)


# its gradient is clipped with the others', so that all of them differ as much as the frames, which are float16
@pytest.mark.parametrize("task", ["emotion", "dsd", "avd"])
def test_beside_a_task_of_frames_a_joint_run_from_the_store_is_nearly_the_computed_one(task: str, runs: Path) -> None:
    stored, computed = losses(runs / "stored", task), losses(runs / "computed", task)
    assert np.abs(stored - computed).max() <= 1e-2


def test_each_task_says_where_its_features_came_from(runs: Path) -> None:
    kinds = [read_json(runs / name / "identity.json")["features"] for name in ("stored", "computed")]
    both = "audio means, float32; text means, float32"
    assert kinds[0] == {"emotion": both, "dsd": both, "avd": "frames, float32"}
    assert kinds[1] == {"emotion": "audio computed; text computed", "dsd": "audio computed; text computed", "avd": "computed"}


def test_means_are_stored_for_a_task_whose_head_allows_them_beside_frames_for_one_whose_does_not(
    rated: Path, tmp_path: Path
) -> None:
    tasks = {"dsd": {"dsd": {"pooling": "avgmax"}}, "avd": {"corpus": {"data": str(rated)}}}
    values = mapping_of(rated, {"tasks": tasks, "store": {"mode": str(tmp_path / "store")}, "training": {"steps": 1}})
    values["tasks"].pop("avd")
    values.pop("text_upstream")
    run(resolve([values]), tmp_path / "run", QUIET)
    assert read_json(tmp_path / "run" / "identity.json")["features"] == {
        "emotion": "means, float32",
        "dsd": "frames, float32",
    }
    assert sorted(space.holds for space in list_spaces(tmp_path / "store")) == ["frames", "means"]


def test_a_single_run_finds_what_a_joint_run_has_stored(runs: Path, rated: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "store", tmp_path / "store")
    before = sorted(space.rows for space in list_spaces(tmp_path / "store"))
    own = alone(resolve([mapping_of(rated, {"store": {"mode": str(tmp_path / "store")}})]), "emotion")
    run(own, tmp_path / "run", QUIET)
    assert sorted(space.rows for space in list_spaces(tmp_path / "store")) == before


def test_a_stored_joint_run_goes_on_as_it_began(runs: Path, rated: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "stored", tmp_path / "run")
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match=r"features.dsd: audio means, float32; text means, float32 -> audio computed"):
        run(resolve([mapping_of(rated)]), folder, QUIET)


def test_a_joint_run_begun_before_there_was_a_store_goes_on_without(runs: Path, rated: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "computed", tmp_path / "run")
    (folder / "result.json").unlink()
    identity = read_json(folder / "identity.json")
    identity.pop("features")
    (folder / "identity.json").write_text(json.dumps(identity))
    result = run(resolve([mapping_of(rated, {"store": {"mode": str(tmp_path / "store")}})]), folder, QUIET)
    assert result["tasks"] == read_json(runs / "computed" / "result.json")["tasks"]
    assert "features" not in read_json(folder / "identity.json")
    assert not (tmp_path / "store").exists()


# text


def test_a_task_on_audio_alone_has_no_text_beside_tasks_with_text(rated: Path) -> None:
    setup = prepare(resolve([mapping_of(rated)]))
    assert {name: task.source.roles for name, task in setup.tasks.items()} == {
        "emotion": ("audio", "text"),
        "dsd": ("audio", "text"),
        "avd": ("audio",),
    }
    sums = {key.removeprefix("sums.").split(".weights")[0] for key in setup.model.state_dict() if key.startswith("sums.")}
    assert {name.rsplit(".", 1)[0] for name in sums} == {"emotion.audio", "emotion.text", "dsd.audio", "dsd.text", "avd.audio"}


def test_a_task_without_text_needs_no_transcripts(rated: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.csv"
    lines = [line.split(",") for line in rated.read_text().splitlines()]
    place = lines[0].index("text")
    rows = [
        ",".join([f"{rated.parent}/{line[0]}" if number else line[0], *line[1:place], *line[place + 1 :]])
        for number, line in enumerate(lines)
    ]
    silent.write_text("\n".join(rows) + "\n")
    setup = prepare(resolve([mapping_of(rated, {"tasks": {"avd": {"corpus": {"data": str(silent)}}}})]))
    assert len(setup.tasks["avd"].splits["train"]) == len(setup.tasks["emotion"].splits["train"])
    with pytest.raises(UserError, match="emotion: Expected a transcript"):
        prepare(resolve([mapping_of(rated, {"tasks": {"emotion": {"corpus": {"data": str(silent)}}}})]))


def test_roles_are_part_of_what_a_run_is_where_they_are_named(rated: Path) -> None:
    tasks = identity_of(resolve([mapping_of(rated)]))["tasks"]
    assert ("roles" in tasks["emotion"], tasks["avd"]["roles"]) == (False, ["audio"])
    config = resolve([mapping_of(rated)])
    assert resolve([to_mapping(config)]) == config


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (
            {"text_upstream": {"name": ""}, "tasks": {"dsd": {"roles": ["text"]}}},
            r"'tasks.dsd.roles' among .*\(audio\), found text",
        ),
        (
            {"tasks": {name: {"roles": ["audio"]} for name in ("emotion", "dsd")}},
            "a task that uses 'text_upstream', found none",
        ),
        (
            {"tasks": {"dsd": {"roles": ["video"]}}},
            r"dsd: Expected 'roles\[0\]' to be one of audio, text, teacher, found 'video'",
        ),
        ({"reference": []}, "Unknown option 'reference'"),
        ({"select": "metric"}, "Expected 'select' to be one of last, gain, found 'metric'"),
    ],
)
def test_wrong_options_of_several_tasks_are_reported(over: dict[str, Any], expected: str, rated: Path) -> None:
    with pytest.raises(UserError, match=expected):
        resolve([mapping_of(rated, over)])


@pytest.mark.parametrize("key", ["tasks.emotion", "shared_weights", "balance", "roles", "batch_size"])
def test_an_option_of_several_tasks_is_none_of_one(key: str, rated: Path) -> None:
    values = {"task": "emotion", "corpus": {"data": str(rated)}, key: {}}
    with pytest.raises(UserError, match=f"Unknown option '{key}'"):
        resolve([values])


# what is made of a finished run


def test_a_task_predicts_and_says_which_there_are(runs: Path, rated: Path) -> None:
    sound = rated.with_name("00.wav")
    assert loaded(runs / "computed", "emotion").predict(sound, "glad they say").label in {"low", "middle", "high"}
    ratings = loaded(runs / "computed", "avd").predict(sound)  # which reads nothing
    assert {*(ratings.scores or {})} == {"arousal", "valence", "dominance"}
    with pytest.raises(UserError, match="Add --task emotion or dsd or avd"):
        load_run(runs / "computed")


def test_of_a_joint_run_with_one_task_it_is_plain_which(rated: Path, tmp_path: Path) -> None:
    values = mapping_of(rated, {"training": {"steps": 1}})
    values["tasks"] = {"mood": {"task": "emotion", **values["tasks"]["emotion"]}}
    run(resolve([values]), tmp_path, QUIET)
    assert loaded(tmp_path).name == "mood"


@pytest.mark.parametrize("task", ["emotion", "avd"])
def test_an_exported_task_computes_as_it_does_in_the_joint_run(task: str, runs: Path, rated: Path, tmp_path: Path) -> None:
    export_run(runs / "computed", tmp_path / "exported", task=task)
    sound, text = rated.with_name("03.wav"), None if task == "avd" else "sad computer please"
    scores = [run.predict(sound, text).scores for run in (loaded(runs / "computed", task), loaded(tmp_path / "exported"))]
    assert scores[0] == scores[1]
    assert read_json(tmp_path / "exported" / "result.json")["task"] == task
    assert ("text_upstream" in identity_of(loaded(tmp_path / "exported").config)) == (task == "emotion")


def test_a_task_is_compared_with_the_same_task_of_another_run(runs: Path, rated: Path, tmp_path: Path) -> None:
    found = compare([runs / "stored", runs / "computed"], task="dsd")
    assert found.comparisons[0].discordant is not None
    run(alone(resolve([mapping_of(rated)]), "dsd"), tmp_path / "single", QUIET)
    assert compare([tmp_path / "single", runs / "computed"], task="dsd").utterances == 12
    with pytest.raises(UserError, match="Add --task emotion or dsd or avd"):
        compare([runs / "stored", runs / "computed"])


def test_a_task_is_tested_on_another_corpus(runs: Path, rated: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "computed", tmp_path / "run")
    task = resolve([mapping_of(rated)]).tasks["dsd"]
    again = evaluate_run(folder, task.corpus, task.labels, "test", QUIET, task="dsd")
    first = read_json(folder / "result.json")["tasks"]["dsd"]["best"]["scores"]["test"]
    assert again["scores"]["test"] == pytest.approx(first)
    assert next((folder / "evaluations").iterdir()).name.startswith("dsd-manifest-")


def test_a_head_of_a_joint_run_is_the_start_of_a_single_one(runs: Path, rated: Path) -> None:
    over = {"tasks": {"dsd": {"init_head": str(runs / "computed")}}}
    model = prepare(alone(resolve([mapping_of(rated, over)]), "dsd")).model
    weights, _ = load_tensors(RunFolder(runs / "computed").best)
    own = {key: value for key, value in weights.items() if ".dsd." in key}
    state = model.trained_state()
    assert own.keys() == state.keys()
    assert all(torch.equal(state[key], own[key]) for key in own)


# plans, as they are typed


@pytest.fixture
def typed(rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Type `headwater downstream -c joint.yaml …` over two tasks; what it prints comes back."""
    values = mapping_of(rated, {"training": {"steps": 2, "eval_every": 2}})
    values["tasks"].pop("avd")

    def run_typed(words: str = "", **over: Any) -> str:
        """Type it."""
        recipe = recipe_of(tmp_path, merge(values, over))
        capsys.readouterr()
        assert (
            downstream.main(["-c", str(recipe), "-p", str(tmp_path / "plan"), "--quiet", "--device", "cpu", *shlex.split(words)])
            == 0
        )
        return capsys.readouterr().out

    return run_typed


def test_groups_of_each_task_are_scored_apart(typed: Callable[..., str], tmp_path: Path) -> None:
    printed = typed("--by speaker")
    assert printed.count("test by speaker") == 2
    result = read_json(tmp_path / "plan" / "result.json")
    for task in result["tasks"].values():
        groups = task["best"]["by"]["test"]["speaker"]
        assert sum(row["num_utterances"] for row in groups.values()) == 12


def test_groups_of_a_finished_joint_run_belong_to_a_task(typed: Callable[..., str], tmp_path: Path) -> None:
    typed()
    with pytest.raises(UserError, match=r"Now: -m evaluate -e .*plan -d TASK --by speaker"):
        typed("--by speaker")
    arguments = ["-m", "evaluate", "-e", str(tmp_path / "plan"), "-d", "dsd", "--by", "speaker", "--quiet", "--device", "cpu"]
    assert downstream.main(arguments) == 0


def test_folds_and_seeds_of_a_joint_run_come_into_one_table(typed: Callable[..., str], tmp_path: Path, rated: Path) -> None:
    protocols = {"emotion": "speaker5", "dsd": "split"}
    several = {"tasks": {name: {"corpus": {"protocol": protocol}} for name, protocol in protocols.items()}}
    printed = typed("--folds 1,2 --seeds 1,2", **several)
    assert "emotion · " in printed
    assert "dsd · " in printed
    summary = read_json(tmp_path / "plan" / "result.json")
    assert {*summary["tasks"]["emotion"]["mean"]} == {"dev", "test"}
    assert len(summary["runs"]) == 4
    config = yaml.safe_load((tmp_path / "plan" / "seed2" / "fold2" / "config.yaml").read_text())
    assert [config["tasks"][name]["corpus"]["fold"] for name in ("emotion", "dsd")] == [2, 1]  # the other has one fold
    found = load_run(tmp_path / "plan", task="dsd").predict(rated.with_name("00.wav"), "so they say")
    assert found.label in {"other", "directed"}
    pooled = summary["tasks"]["dsd"]["pooled"]["test"]
    assert pooled["num_utterances"] == 12


def test_folds_that_tasks_do_not_share_are_named(typed: Callable[..., str]) -> None:
    folds = {"emotion": {"corpus": {"protocol": "speaker5"}}, "dsd": {"corpus": {"protocol": "split"}}}
    other = {"other": {"task": "emotion", "corpus": {"name": "emodb"}}}
    with pytest.raises(UserError, match=r"tasks of as many folds for --folds all, found emotion 5, other 10"):
        typed("--folds all", tasks={**folds, **other})


def test_a_sweep_of_several_tasks_is_chosen_by_gain_or_refused(typed: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected select=gain and the tasks' baselines for a sweep of several tasks"):
        typed("--sweep optimizer.lr=0.1,0.01")
    typed("--sweep optimizer.lr=0.1,0.01", select="gain", baselines={"emotion": 0.5, "dsd": 0.5})
    summary = read_json(tmp_path / "plan" / "result.json")
    assert summary["chosen"] == max(summary["sweep"], key=summary["sweep"].get)


def test_stages_of_a_joint_run_start_from_one_another(typed: Callable[..., str], tmp_path: Path) -> None:
    heads = {"tasks": {name: {"init_head": "stage:first"} for name in ("emotion", "dsd")}}
    typed(stages={"first": {}, "second": {"optimizer": {"lr": 1e-30}, **heads}})
    first, second = (load_tensors(RunFolder(tmp_path / "plan" / name).best)[0] for name in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.allclose(first[key], second[key]) for key in first)
    assert read_json(tmp_path / "plan" / "second" / "identity.json")["init_heads"].keys() == {"emotion", "dsd"}


def test_several_jobs_train_joint_runs_to_the_numbers_of_one(typed: Callable[..., str], tmp_path: Path) -> None:
    typed("--seeds 1,2")
    one = read_json(tmp_path / "plan" / "result.json")
    shutil.rmtree(tmp_path / "plan")
    typed("--seeds 1,2 --jobs 2 --by speaker")
    two = read_json(tmp_path / "plan" / "result.json")
    assert one["tasks"] == two["tasks"]
    assert "by" in read_json(tmp_path / "plan" / "seed1" / "result.json")["tasks"]["dsd"]["best"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-d emotion", "Expected the tasks of '.*joint.yaml' alone, found -d emotion beside it"),
        ("--data tones.csv", r"Expected no --data beside a recipe of several tasks.* -o tasks.NAME.corpus.data="),
        ("-l all", "for a sweep of several tasks"),
    ],
)
def test_a_flag_of_one_task_beside_several_is_refused(words: str, expected: str, typed: Callable[..., str]) -> None:
    over = {"upstream": {"name": "test_hubert"}} if words == "-l all" else {}
    with pytest.raises(UserError, match=expected):
        typed(words, **over)


# the final model


@pytest.fixture(scope="module")
def final(runs: Path, rated: Path) -> Path:
    """A final model of three tasks that takes its steps from a joint run."""
    folder = shutil.copytree(runs / "computed", runs / "earlier")
    result = read_json(folder / "result.json")
    (folder / "result.json").write_text(json.dumps({**result, "best_step": 6}))
    run(resolve([mapping_of(rated, {"split": "all", "steps_from": str(folder)})]), runs / "final", QUIET)
    return runs / "final"


def test_a_final_joint_model_trains_on_every_split_for_the_steps_of_the_earlier_run(final: Path) -> None:
    result = read_json(final / "result.json")
    assert (result["steps"], result["best_step"]) == (6, 6)
    assert result["trained_on_all"] == {"emotion": 72, "dsd": 72, "avd": 72}
    assert {len(part["heard"]) for part in read_json(final / "trained_on.json").values()} == {72}
    assert result["tasks"]["dsd"]["best"]["scores"] == {}
    places = [read_json(final.with_name(name) / "vocabulary.json")["dsd"]["threshold"] for name in ("earlier", "final")]
    assert places[0] == places[1]
    assert loaded(final, "avd").predict(np.ones(4_000, dtype=np.float32), sampling_rate=16_000).scores


def test_a_final_joint_model_is_no_test_of_its_own_corpus(final: Path, rated: Path) -> None:
    task = resolve([mapping_of(rated)]).tasks["emotion"]
    with pytest.raises(UserError, match=r"found 12 of 12: it was trained on all of manifest"):
        evaluate_run(final, task.corpus, task.labels, "test", QUIET, task="emotion")


def test_steps_come_from_a_run_of_as_many_tasks(runs: Path, finished: Path, rated: Path) -> None:
    with pytest.raises(UserError, match=r"Expected a run of several tasks after steps_from, found .* of one\."):
        with_steps(resolve([mapping_of(rated, {"split": "all", "steps_from": str(finished)})]))
    one = {"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(rated)}, "split": "all"}
    with pytest.raises(UserError, match=r"Expected a run of one task after steps_from, found .* of several\."):
        with_steps(resolve([{**one, "steps_from": str(runs / "computed")}]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--scenario paper", "one run with split=all, .* found --scenario paper"),
        ("--seeds 1,2", "found 2 seeds"),
        ("--select gain", "found --select gain"),
        ("--by speaker", "Expected no --by beside split=all"),
        ("-o training.steps=3", r"Expected training.steps of .* \(8\) beside steps_from, found 3"),
    ],
)
def test_a_final_joint_model_is_one_run(words: str, expected: str, runs: Path, rated: Path, tmp_path: Path) -> None:
    values = mapping_of(rated, {"split": "all", "steps_from": str(runs / "computed"), "upstream": {"trainable": False}})
    recipe = recipe_of(tmp_path, values)
    with pytest.raises(UserError, match=expected):
        mtl.main(["-c", str(recipe), "-p", str(tmp_path / "plan"), "--quiet", "--device", "cpu", *words.split()])


# the door of several tasks


def test_scenarios_give_text_to_the_tasks_that_read(rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = mapping_of(rated, {"upstream": {"trainable": False}, "training": {"steps": 1, "eval_every": 1}})
    values["tasks"].pop("emotion")
    values |= {kind: {"training": {"steps": 1, "batch_size": 8, "eval_every": 1}} for kind in ("single", "transfer")}
    recipe = recipe_of(tmp_path, values)
    words = ["--scenario", "paper", "--by", "speaker", "--quiet", "--device", "cpu"]
    assert mtl.main(["-c", str(recipe), "-p", str(tmp_path / "plan"), *words]) == 0
    configs = {
        name: yaml.safe_load((tmp_path / "plan" / name / "seed1" / "config.yaml").read_text())
        for name in ("single-dsd", "single-avd", "all", "without-dsd", "transfer-dsd", "transfer-avd")
    }
    read = {name: config["text_upstream"]["name"] for name, config in configs.items()}
    assert (read["single-dsd"], read["single-avd"], read["without-dsd"]) == ("hashed_words", "", "")
    assert (read["transfer-dsd"], read["transfer-avd"]) == ("hashed_words", "")
    assert "by" in read_json(tmp_path / "plan" / "all" / "seed1" / "result.json")["tasks"]["dsd"]["last"]
    printed = capsys.readouterr().out
    assert printed.count("test by speaker") == 8  # of two tasks: alone, together, without the other, and transferred
    assert "\nall/seed1\n\ndsd:\ntest by speaker\n" in printed


def test_stages_beside_a_scenario_are_refused(rated: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, mapping_of(rated, {"stages": {"first": {}}}))
    with pytest.raises(UserError, match=r"no 'stages' beside a scenario, .* headwater downstream -c RECIPE"):
        mtl.main(["-c", str(recipe), "-p", str(tmp_path / "plan"), "--quiet"])
