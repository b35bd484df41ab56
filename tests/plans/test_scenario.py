"""The paper's scenarios as one plan: the order, what starts from what, and going on after any kill."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processes import start

from headwater.commands import mtl
from headwater.core.errors import UserError
from headwater.core.options import merge, read_yaml
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import load_tensors
from headwater.downstream.masks import MasksConfig
from headwater.plans.execute import Part, located
from headwater.plans.scenario import Scenario, plan_scenario
from headwater.runs.config.identity import identity_of
from headwater.runs.config.recipes import find_recipe, task_default
from headwater.runs.config.resolve import resolve
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream


def values_of(rated: Path, *layers: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe of two tasks and few steps."""
    corpus, quick = {"data": str(rated)}, {"steps": 2, "eval_every": 2, "save_every": 2, "log_every": 1}
    values: dict[str, Any] = {
        "upstream": {"name": "test_hubert", "trainable": True},
        "tasks": {
            "emotion": {"corpus": corpus, "batch_size": 4},
            "dsd": {"corpus": corpus, "batch_size": 4, "labels": {"column": "directed"}},
        },
        "optimizer": {"lr": 1e-2, "upstream_lr": 1e-3},
        "training": quick,
        "single": {"training": {**quick, "batch_size": 8}},
        "transfer": {"training": {**quick, "batch_size": 6}},
    }
    for layer in layers:
        values = merge(values, layer)
    return values


def names(parts: list[Part] | tuple[Part, ...]) -> list[str]:
    """Return the folders of a plan's runs."""
    return [part.name for part in parts]


PAPER = ["single-emotion", "single-dsd", "all", "without-emotion", "without-dsd", "transfer-emotion", "transfer-dsd"]


@pytest.fixture
def plan(rated: Path) -> Scenario:
    """The paper's plan for one seed."""
    return plan_scenario(values_of(rated), "paper", [1])


def test_the_papers_runs_stand_in_order_each_after_what_it_starts_from(plan: Scenario) -> None:
    assert names(plan.parts) == [f"{name}/seed1" for name in PAPER]
    before: set[str] = set()
    for part in plan.parts:
        assert {*part.needs.values()} <= before, part.name
        before.add(part.name)


def test_a_transfer_starts_from_the_run_without_its_task(plan: Scenario) -> None:
    needs = {part.name: [*part.needs.values()] for part in plan.parts}
    assert needs["transfer-dsd/seed1"] == ["without-dsd/seed1"]
    runs = {part.name: part.config for part in plan.parts}
    joint = runs["without-dsd/seed1"]
    assert joint.is_joint
    assert [*joint.tasks] == ["emotion"]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("single", PAPER[:2]),
        ("all", ["all"]),
        ("leave-one-out", PAPER[3:5]),
        ("relations", PAPER[2:5]),
        ("transfer", PAPER[3:]),
        ("paper", PAPER),
    ],
)
def test_a_scenario_has_its_runs_and_those_they_need(scenario: str, expected: list[str], rated: Path) -> None:
    assert names(plan_scenario(values_of(rated), scenario, [1]).parts) == [f"{name}/seed1" for name in expected]


def test_seeds_add_runs_and_change_none(rated: Path, plan: Scenario) -> None:
    more = plan_scenario(values_of(rated), "paper", [1, 2])
    kept = {part.name: part for part in more.parts}
    assert all(kept[part.name] == part for part in plan.parts)
    others = [part for part in more.parts if part.seed == 2]
    assert len(others) == len(plan.parts)
    for part in others:
        assert part.config.seed == 2
        assert all(place.endswith("/seed2") for place in part.needs.values())
        if part.config.is_joint:
            assert part.config.is_joint


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        (["transfer-dsd"], ["single-emotion", "without-dsd", "transfer-dsd"]),
        (["all"], ["single-emotion", "single-dsd", "all"]),
        (["single-dsd", "single-emotion"], ["single-emotion", "single-dsd"]),
        ([], PAPER),
    ],
    ids=["a part", "the joint run", "two parts", "nothing"],
)
def test_only_takes_a_part_and_what_it_starts_from(requested: list[str], expected: list[str], plan: Scenario) -> None:
    assert names(plan.only(requested)) == [f"{name}/seed1" for name in expected]


def test_only_nonsense_is_refused_with_the_nearest_part(plan: Scenario) -> None:
    with pytest.raises(UserError, match=r"found 'transfer-dsb'. Did you mean 'transfer-dsd'\?"):
        plan.only(["transfer-dsb"])


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the parts of a plan that the command prints, and what they have left to do."""
    assert mtl.main([*words, "--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.split() and line.split()[0] in ALL_PARTS]


THREE = ["emotion", "dsd", "avd"]
ALL_PARTS = ["all", *(f"{kind}-{task}" for kind in ("single", "without", "transfer") for task in THREE)]


def test_only_some_tasks_is_the_plan_of_these_tasks(rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    avd = {"tasks": {"avd": {"corpus": {"data": str(rated)}, "batch_size": 4, "avd": {"scale": [1, 7]}}}}
    words = ("-c", str(recipe_of(tmp_path, values_of(rated, avd))), "--scenario", "paper")
    assert len(planned(capsys, *words)) == 10
    found = planned(capsys, *words, "--only", "emotion,dsd")
    assert [line.split()[0] for line in found] == PAPER
    assert found == planned(capsys, *words, "--tasks", "emotion,dsd")
    assert [line.split()[0] for line in planned(capsys, *words, "--only", "emotion,dsd,all")] == [
        "single-emotion",
        "single-dsd",
        "all",
    ]


def test_a_balance_nobody_knows_is_refused_before_the_first_single_run(rated: Path) -> None:
    with pytest.raises(UserError, match=r"found 'uncertain'. Did you mean 'uncertainty'\?"):
        plan_scenario(values_of(rated, {"balance": {"method": "uncertain"}}), "paper", [1])


def test_a_task_that_a_teacher_gives_is_trained_with_others_and_never_alone(rated: Path) -> None:
    layer = {"teacher": {"name": "mfcc"}, "tasks": {"pretrain": {"corpus": {"data": str(rated)}, "batch_size": 4}}}
    plan = plan_scenario(values_of(rated, layer), "paper", [1])
    assert [name for name in names(plan.parts) if "pretrain" in name] == ["without-pretrain/seed1"]
    found = {part.name: part.config for part in plan.parts}
    assert found["all/seed1"].teacher.name == "mfcc"
    assert not found["without-pretrain/seed1"].teacher.name
    assert not found["transfer-emotion/seed1"].teacher.name
    assert identity_of(found["without-pretrain/seed1"]) == identity_of(
        next(part.config for part in plan_scenario(values_of(rated), "all", [1]).parts)
    )


def test_only_tasks_without_a_teacher_leave_it_out(rated: Path) -> None:
    layer = {"teacher": {"name": "mfcc"}, "tasks": {"pretrain": {"corpus": {"data": str(rated)}}}}
    values = values_of(rated, layer)
    assert "teacher" not in mtl.restricted(values, ["emotion", "dsd"])
    assert mtl.restricted(values, ["emotion", "pretrain"])["teacher"] == {"name": "mfcc"}


def test_left_out_tasks_take_their_weights_and_baselines_along(rated: Path) -> None:
    weights = {"balance": {"method": "fixed", "weights": {"dsd": 2.0}}}
    found = {part.name: part.config for part in plan_scenario(values_of(rated, weights), "leave-one-out", [1]).parts}
    joint = found["without-dsd/seed1"]
    assert joint.is_joint
    assert joint.balance.weights == {}


def test_sections_of_a_kind_set_single_runs_and_transfers_apart(plan: Scenario) -> None:
    sizes = {part.name: part.config.training.batch_size for part in plan.parts if not part.config.is_joint}
    assert sizes == {
        "single-emotion/seed1": 8,
        "single-dsd/seed1": 8,
        "transfer-emotion/seed1": 6,
        "transfer-dsd/seed1": 6,
    }


def commanded(recipe: Path, folder: Path, *flags: str) -> int:
    """Type the command in this process."""
    return mtl.main(["-c", str(recipe), "-p", str(folder), "--device", "cpu", "--quiet", *flags])


def recipe_of(folder: Path, values: dict[str, Any]) -> Path:
    """Write a recipe."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def done(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's plan, run to its end, heads from the single runs; tests only read it."""
    folder = tmp_path_factory.mktemp("paper")
    single = {name: {"init_head": "part:single"} for name in ("emotion", "dsd")}
    recipe = recipe_of(folder, values_of(rated, {"tasks": single, "select": "gain"}))
    assert commanded(recipe, folder / "plan", "--scenario", "paper") == 0
    return folder


def stamps(folder: Path) -> dict[str, int]:
    """Return when each run was finished."""
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob("*/seed*/result.json")}


def test_the_plan_leaves_every_run_table_relations_and_report(done: Path) -> None:
    assert {*stamps(done / "plan")} == {f"{name}/seed1" for name in PAPER}
    for name in ("table1-last.md", "table1.csv", "table1-steps.md", "relations.csv", "relations.json", "report.html"):
        assert (done / "plan" / name).is_file(), name


def test_the_same_command_runs_nothing_twice(done: Path) -> None:
    before, table = stamps(done / "plan"), (done / "plan" / "table1.csv").read_bytes()
    assert commanded(done / "recipe.yaml", done / "plan", "--scenario", "paper") == 0
    assert stamps(done / "plan") == before
    assert (done / "plan" / "table1.csv").read_bytes() == table


def test_a_transfer_uses_the_very_weights_of_the_joint_run(done: Path) -> None:
    joint = done / "plan" / "without-dsd" / "seed1"
    weights, _ = load_tensors(RunFolder(joint).best)
    result = load_upstream(UpstreamConfig(name=str(joint)), "audio").state_dict()
    learned = {key.removeprefix("upstreams.audio."): value for key, value in weights.items() if key.startswith("upstreams.")}
    assert learned
    assert all(torch.equal(result[key], value) for key, value in learned.items())
    begun = json.loads((done / "plan" / "transfer-dsd" / "seed1" / "identity.json").read_text())["upstreams"]["audio"]
    assert begun == load_upstream(UpstreamConfig(name=str(joint)), "audio").weights_hash()
    fresh = load_upstream(UpstreamConfig(name="test_hubert"), "audio").state_dict()
    assert any(not torch.equal(fresh[key], value) for key, value in learned.items())


def test_heads_from_the_single_runs_start_with_their_weights(done: Path) -> None:
    from headwater.runs.prepare import prepare

    values = yaml.safe_load((done / "recipe.yaml").read_text())
    part = next(part for part in plan_scenario(values, "paper", [1]).parts if part.name == "all/seed1")
    config = located(part, done / "plan")
    assert config.is_joint
    model = prepare(config).model
    for task in ("emotion", "dsd"):
        head, _ = load_tensors(RunFolder(done / "plan" / f"single-{task}" / "seed1").best)
        own = {key: value for key, value in model.trained_state().items() if f".{task}." in key}
        assert {key for key in head if f".{task}." in key} == {*own}
        assert all(torch.equal(head[key], value) for key, value in own.items()), task


def test_another_folder_gives_the_same_identities(done: Path, tmp_path: Path) -> None:
    flags = ("--scenario", "paper", "--only", "transfer-dsd")
    assert commanded(done / "recipe.yaml", tmp_path / "elsewhere" / "mine", *flags) == 0
    for name in ("single-emotion", "without-dsd", "transfer-dsd"):
        places = (done / "plan" / name / "seed1", tmp_path / "elsewhere" / "mine" / name / "seed1")
        one, other = (json.loads((place / "identity.json").read_text()) for place in places)
        assert one == other, name
    assert not (tmp_path / "elsewhere" / "mine" / "all").exists()


def test_a_plan_killed_between_its_parts_goes_on(done: Path, tmp_path: Path) -> None:
    words = ("mtl", "-c", done / "recipe.yaml", "-p", tmp_path / "plan", "--device", "cpu", "--quiet", "--scenario", "paper")
    process = start("-m", "headwater", *words)
    deadline = time.monotonic() + 120
    while not (tmp_path / "plan" / "single-dsd" / "seed1" / "result.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    before = stamps(tmp_path / "plan")
    assert 2 <= len(before) < len(PAPER)
    assert commanded(done / "recipe.yaml", tmp_path / "plan", "--scenario", "paper") == 0
    after = stamps(tmp_path / "plan")
    assert {name: after[name] for name in before} == before
    for name in ("table1.csv", "table1-last.md", "table1-best.md", "relations.csv", "relations.json"):
        assert (tmp_path / "plan" / name).read_bytes() == (done / "plan" / name).read_bytes(), name


def test_what_is_chosen_by_gain_is_over_the_single_runs_dev_scores(done: Path) -> None:
    joint = yaml.safe_load((done / "plan" / "all" / "seed1" / "config.yaml").read_text())
    for task in ("emotion", "dsd"):
        single = json.loads((done / "plan" / f"single-{task}" / "seed1" / "result.json").read_text())
        assert joint["baselines"][task] == single["scores"]["dev"][single["select_by"]]


def test_an_untrained_plan_is_marked_in_its_tables(done: Path) -> None:
    for name in ("table1-last.md", "table1-best.md"):
        assert (done / "plan" / name).read_text().startswith("UNTRAINED")
    assert json.loads((done / "plan" / "relations.json").read_text())["marks"] == ["UNTRAINED"]


def test_seeds_are_no_part_of_a_plans_folder(rated: Path) -> None:
    one, two = (plan_scenario(values_of(rated), "all", seeds).config for seeds in ([1], [1, 2]))
    assert identity_of(one) == identity_of(two)


BENCHMARK = {
    **{"asr": "wer", "ks": "ua", "sid": "acc", "emotion": "wa"},
    **{"pr": "per", "sf": "slot_type_f1", "sd": "der", "ic": "acc", "asv": "eer"},
}  # task of mtl/paper -> what chooses its step in superb/


@pytest.mark.parametrize("task", BENCHMARK)
def test_the_papers_single_runs_are_superbs_own_experiments(task: str) -> None:
    parts = plan_scenario(read_yaml(find_recipe("mtl/paper")), "single", [1]).parts
    config = next(part.config for part in parts if part.config.only.task == task)
    layers = [task_default(task), read_yaml(find_recipe(f"superb/{task}")), {"upstream": {"name": "hubert"}}]  # -c superb/TASK
    alone = resolve([*layers, *([{"report_by": "slot_value_cer"}] if task == "sf" else [])])  # of the graphs, not of SUPERB
    # a published value and the list of folds are the plan's: emotion is fold 1 of five, as in the paper
    assert replace(alone, reference=[], folds=[]) == config
    assert (config.upstream.padding, config.upstream.trainable) == ("exact" if task == "asr" else "s3prl", False)
    assert config.only.select_by == BENCHMARK[task]
    assert config.only.reported == {"ks": "acc", "sf": "slot_value_cer"}.get(task, BENCHMARK[task])
    assert not config.masks.is_on


def test_the_paper_masks_the_features_of_joint_runs_and_transfers() -> None:
    parts = plan_scenario(read_yaml(find_recipe("mtl/paper")), "paper", [1]).parts
    there = {part.name.split("-")[0].split("/")[0]: part.config for part in parts}
    expected = MasksConfig(time_warp=5, time_masks=2, time_width=39, dim_masks=4, dim_width=49, fill="zero")
    assert {kind: config.masks for kind, config in there.items() if kind != "single"} == dict.fromkeys(
        ("all", "without", "transfer"), expected
    )
    for config in (part.config for part in parts if not part.name.startswith("single")):
        sections = [section.expert for section in config.tasks.values() if section.task == "asr"]
        assert all(section.zero_infinity and not section.spec_augment for section in sections)  # masked once


def test_a_kinds_own_options_stand_above_the_benchmarks() -> None:
    tasks = {"ks": {"batch_size": 2}, "sid": {"batch_size": 2}}
    single = {"recipe": "superb", "training": {"steps": 7}, "tasks": {"ks": {"ks": {"projector_dim": 8}}}}
    values = {"upstream": {"name": "test_hubert", "trainable": True, "dropout": 0.3}, "tasks": tasks, "single": single}
    ks, sid = (part.config for part in plan_scenario(values, "single", [1]).parts)
    assert (ks.training.steps, ks.training.eval_every, ks.only.expert.projector_dim) == (7, 5000, 8)
    assert (sid.training.eval_piece_size, sid.only.expert.projector_dim) == (1, 256)
    assert (ks.upstream.name, ks.upstream.trainable, ks.upstream.dropout) == ("test_hubert", False, None)


def test_adapters_of_their_own_have_a_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-u", "test_hubert", "--tasks", "emotion,ks", "--demo", "--scenario", "adapters", "-p", str(tmp_path / "plan")]
    assert mtl.main([*words, "--plan"]) == 0, "the demo's recipe logs cosines of gradients, which never meet here"
    assert "adapters" in capsys.readouterr().out
    with pytest.raises(UserError, match="their gradients never meet"):
        mtl.main([*words, "--plan", "-o", "balance.cosines_every=1"])


def test_adapters_of_their_own_are_a_scenario_whose_table_stands_beside_the_single_tasks(rated: Path, tmp_path: Path) -> None:
    plan = plan_scenario(values_of(rated), "adapters", [1])
    assert names(plan.parts) == ["single-emotion/seed1", "single-dsd/seed1", "adapters/seed1"]
    config, usual = plan.parts[-1].config, plan_scenario(values_of(rated), "all", [1])
    assert (config.own_adapters, config.upstream.adapter, config.upstream.trainable) == (True, "lora", True)
    assert plan.config == usual.config, "so that all scenarios of these tasks have one folder"
    recipe = tmp_path / "joint.yaml"
    recipe.write_text(yaml.safe_dump(values_of(rated)))
    words = ["-c", str(recipe), "-p", str(tmp_path / "plan"), "--scenario", "adapters", "--device", "cpu", "--quiet"]
    assert mtl.main(words) == 0
    table = (tmp_path / "plan" / "table1-last.md").read_text()
    assert "all tasks, an adapter each" in table
    assert {key.split(".")[0] for key in load_tensors(RunFolder(tmp_path / "plan" / "adapters" / "seed1").best)[0]} == {
        *("experts", "own", "sums")
    }


@pytest.mark.parametrize(
    ("layer", "scenario", "message"),
    [
        ({"own_adapters": True, "upstream": {"adapter": "lora"}}, "transfer", "Expected an upstream that the tasks share"),
        ({"upstream": {"front_end": "trained"}}, "adapters", "Expected upstream.front_end=frozen beside upstream.adapter=lora"),
        ({"balance": {"cosines_every": 1}}, "adapters", "found an adapter and a weighted sum for each task"),
        ({"training": {"shard": True}}, "adapters", "Expected one adapter for all tasks beside --shard"),
    ],
)
def test_what_no_adapter_for_each_task_can_be_beside_is_refused_first(
    layer: dict[str, Any], scenario: str, message: str, rated: Path
) -> None:
    with pytest.raises(UserError, match=message):
        plan_scenario(values_of(rated, layer), scenario, [1])
