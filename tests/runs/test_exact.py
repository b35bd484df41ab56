"""A run whose head is solved: the bare command of frozen upstreams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from constructed import Constructed

from headwater.core.errors import UserError
from headwater.core.files import read_json
from headwater.inference.load import load_run
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, to_mapping
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import Layers
from headwater.upstream.statistics import pooled_layers
from headwater.upstream.weighted_sum import WeightedSum

QUIET = Runtime("cpu", quiet=True)


def bare(table: Path, task: str = "emotion", *over: Any, **more: Any) -> RunConfig:
    """The bare command over a table, with options above it."""
    return resolve(
        [task_default(task), {"task": task, "upstream": {"name": "test_hubert"}, "corpus": {"data": str(table)}, **more}, *over]
    )


@pytest.fixture(scope="module")
def solved(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("exact") / "run"
    run(bare(tones), folder, QUIET)
    return folder


def test_the_bare_command_is_exact_and_two_runs_are_equal_to_the_digit(solved: Path, tones: Path) -> None:
    again = solved.with_name("again")
    run(bare(tones, store={"mode": "off"}), again, QUIET)
    stored, computed = read_json(solved / "result.json"), read_json(again / "result.json")
    assert stored["exact"]["judged_by"].startswith("dev and 4 parts")
    assert stored["scores"]["test"]["ua"] == computed["scores"]["test"]["ua"]
    third = solved.with_name("third")
    run(bare(tones), third, QUIET)
    for name in ("layers.json", "predictions-test.csv"):
        assert (solved / name).read_text() == (third / name).read_text()


def test_each_layer_has_scores_and_the_kept_head_is_the_best_of_what_was_held_out(solved: Path) -> None:
    curve = read_json(solved / "layers.json")
    layers = curve["roles"]["audio"]["layers"]
    assert len(layers) == 5
    assert all({"dev", "test"} == {*layer["scores"]} for layer in layers)
    best = min([curve["mixture_held_out_loss"], *(layer["held_out_loss"] for layer in layers)])
    kept = read_json(solved / "result.json")["exact"]["keep"]
    there = curve["mixture_held_out_loss"] if kept == "mixture" else layers[int(kept)]["held_out_loss"]
    assert there == best
    assert sum(curve["roles"]["audio"]["kept"]) == pytest.approx(1.0, abs=1e-6)


def test_it_predicts_files_as_it_was_tested(solved: Path) -> None:
    rows = (solved / "predictions-test.csv").read_text().splitlines()[1:4]
    for row in rows:
        cells = row.split(",")
        found = load_run(solved).predict(cells[1])
        assert cells[6] == found.label


@pytest.mark.parametrize(
    ("over", "solver"),
    [
        ({}, "exact"),
        ({"upstream": {"layer": 2}}, "exact"),
        ({"emotion": {"pooling": "mean+std"}}, "exact"),
        ({"training": {"steps": 5}}, "adam"),
        ({"optimizer": {"lr": 0.1}}, "adam"),
        ({"emotion": {"projector_dim": 16}}, "adam"),
        ({"emotion": {"pooling": "attentive"}}, "adam"),
        ({"upstream": {"trainable": True}}, "adam"),
        ({"upstream": {"padding": "s3prl"}}, "adam"),
        ({"solver": "adam"}, "adam"),
    ],
)
def test_an_option_of_steps_means_steps(tones: Path, over: dict[str, Any], solver: str) -> None:
    config = bare(tones, "emotion", over)
    assert config.solver == solver
    assert config.only.expert.projector_dim == {"exact": None, "adam": over.get("emotion", {}).get("projector_dim", 256)}[solver]
    assert resolve([to_mapping(config)]) == config


def test_papers_recipes_stay_with_steps() -> None:
    from headwater.core.options import read_yaml
    from headwater.runs.config.recipes import find_recipe

    for task in ("emotion", "ks", "sid"):
        assert (
            resolve([task_default(task), read_yaml(find_recipe(f"superb/{task}")), {"upstream": {"name": "fbank"}}]).solver
            == "adam"
        )


@pytest.mark.parametrize(
    ("task", "over", "message"),
    [
        ("emotion", [{"solver": "exact"}, {"training": {"steps": 5}}], "Expected no option of solver=adam beside solver=exact"),
        ("asr", [{"solver": "exact"}], "Expected a task with a linear head for solver=exact"),
    ],
)
def test_what_cannot_be_solved_is_refused(tones: Path, task: str, over: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bare(tones, task, *over)


@pytest.mark.parametrize("keep", ["5", "best", "-1"])
def test_a_layer_that_is_not_there_cannot_be_kept(tones: Path, tmp_path: Path, keep: str) -> None:
    with pytest.raises(UserError, match=r"Expected exact\.keep auto, mixture, or a layer from 0 to 4, found"):
        run(bare(tones, exact={"keep": keep}), tmp_path / "run", QUIET)


@pytest.mark.parametrize("exact", [{"penalty": 0.01}, {"evenness": 0.1}, {"judge": "dev"}, {"keep": "2"}, {"each_layer": False}])
def test_what_is_given_is_not_chosen(tones: Path, tmp_path: Path, exact: dict[str, Any]) -> None:
    result = run(bare(tones, exact=exact), tmp_path / "run", QUIET)["exact"]
    for name in {"penalty", "keep"} & {*exact}:
        assert result[name] == exact[name]
    assert result["judged_by"] == ("dev" if "judge" in exact else "dev and 4 parts of train, each left out in turn")
    assert bool(read_json(tmp_path / "run" / "layers.json")["roles"]["audio"]["layers"]) == exact.get("each_layer", True)


def test_ratings_are_spread_as_the_ratings_are(rated: Path, tmp_path: Path) -> None:
    result = run(bare(rated, "avd", avd={"scale": [1, 7]}, text_upstream={"name": "hashed_words"}), tmp_path / "run", QUIET)
    assert len(result["exact"]["gain"]) == 3
    assert all(1 <= gain <= 3 for gain in result["exact"]["gain"])
    assert result["scores"]["test"]["ccc"] > 0.5
    assert {*read_json(tmp_path / "run" / "layers.json")["roles"]} == {"audio", "text"}


def test_a_final_model_has_the_settings_of_the_run_that_chose_them(solved: Path, tones: Path) -> None:
    final = solved.with_name("final")
    run(bare(tones, split="all", steps_from=str(solved)), final, QUIET)
    before, after = read_json(solved / "result.json")["exact"], read_json(final / "result.json")["exact"]
    assert after["penalty"] == pytest.approx(before["penalty"])
    assert after["keep"] == before["keep"]
    assert load_run(final).predict(str(tones.parent / "00.wav")).label in ("low", "middle", "high")


def test_the_layer_that_knows_is_found_whatever_its_size(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.runs import prepare

    monkeypatch.setattr(prepare, "load_upstream", lambda *_: Constructed())
    monkeypatch.setattr(prepare, "find_upstream", lambda *_: None)
    run(bare(tones, store={"mode": "off"}), tmp_path / "run", QUIET)
    role = read_json(tmp_path / "run" / "layers.json")["roles"]["audio"]
    scores = [layer["scores"]["test"]["ua"] for layer in role["layers"]]
    assert np.argmax(scores) == 5
    assert np.argmax(role["mixture"]) == 5
    assert max(scores) > 0.8


def test_statistics_are_those_of_the_valid_frames() -> None:
    values = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    layers = Layers([values], (5, 2))
    found = pooled_layers(layers, "mean+std").values[0][1, 0]
    assert torch.allclose(found, torch.cat([values[1, :2].mean(dim=0), values[1, :2].std(dim=0, correction=0)]), atol=1e-6)
    highest = pooled_layers(layers, "mean+max").values[0][1, 0, 3:]
    assert torch.equal(highest, values[1, :2].amax(dim=0))
    assert pooled_layers(pooled_layers(layers, "mean"), "mean").values[0].shape == (2, 1, 3)


def test_standardised_layers_are_mixed() -> None:
    values = [torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(layer)) for layer in range(2)]
    mixing = WeightedSum(2, standard_dim=3)
    mixing.mean.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1000.0]]))
    mixing.scale.copy_(torch.tensor([[1.0, 2.0, 0.5], [1.0, 3.0, 100.0]]))
    with torch.no_grad():
        mixing.logits.copy_(torch.tensor([0.0, 1.0]))
        expected = sum(
            weight * (value - mean) / scale
            for weight, value, mean, scale in zip(mixing.weights, values, mixing.mean, mixing.scale, strict=True)
        )
        found = mixing(Layers(values, (4, 4))).values
    assert torch.allclose(found, torch.as_tensor(expected), atol=1e-6)


def test_what_a_run_says_of_itself_is_written(solved: Path) -> None:
    facts = json.loads((solved / "identity.json").read_text())["config"]
    assert facts["solver"] == "exact"
    assert "optimizer" not in facts
    assert "seed" not in facts


@pytest.mark.parametrize(
    ("over", "why"), [({"solver": "adam"}, ""), ({"optimizer": {"lr": 1e-3}}, r" \(since optimizer.lr means that\)")]
)
def test_options_of_the_solution_are_refused_where_a_head_is_trained(over: dict[str, Any], why: str) -> None:
    given = {"task": "emotion", "upstream": {"name": "fbank"}, "exact": {"keep": "auto", "together": True}}
    message = rf"Expected no option of solver=exact beside solver=adam{why}, found exact.together\. Leave one of them out"
    with pytest.raises(UserError, match=message):
        resolve([task_default("emotion"), given, over])
