"""Losses that compare utterances see all of a step, however many processes there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from processes import start

from headwater.downstream.gather import gathered

SCRIPT = Path(__file__).with_name("steps.py")
TRAINED: dict[str, Any] = {"trainable": True, "dropout": 0.0}
STEPS: dict[str, dict[str, Any]] = {
    "avd": {
        "task": "avd",
        "upstream": {"name": "test_hubert", **TRAINED},
        "text_upstream": {"name": "hashed_words"},
        "avd": {"scale": [1, 7], "dropout": 0.0, "hidden_dim": 16},
    },
    "turbo": {
        "task": "turbo",
        "upstream": {"name": "fbank_no_cmvn"},
        "text_upstream": {"name": "test_bert", "layer": 2, **TRAINED},  # two blocks that no step needs
        "turbo": {"dropout": 0.0, "joint_dim": 16, "learn_temperature": True, "mask_same_label": True, "symmetric": True},
    },
    "vanilla": {
        "task": "turbo",
        "upstream": {"name": "fbank_no_cmvn"},
        "text_upstream": {"name": "hashed_words"},
        "turbo": {"method": "vanilla", "dropout": 0.0, "joint_dim": 16, "learn_temperature": True},
    },
}


@pytest.fixture(scope="module")
def gradients(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, dict]]:
    """What a step of each recipe gives, by the number of processes."""
    folder = tmp_path_factory.mktemp("steps")
    for name, mapping in STEPS.items():
        shared = {"corpus": {"data": str(rated)}, "training": {"batch_size": 8}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**mapping, **shared}))
    found = {}
    for count in (1, 2):
        out = folder / str(count)
        out.mkdir()
        start(SCRIPT, *sorted(folder.glob("*.yaml")), out, processes=count).finish()
        found[count] = {name: torch.load(out / f"{name}.pt") for name in STEPS}
    return found


@pytest.mark.parametrize("name", STEPS)
def test_two_processes_have_the_loss_and_the_gradient_of_one_with_all_utterances(
    name: str, gradients: dict[int, dict[str, dict]]
) -> None:
    one, two = gradients[1][name], gradients[2][name]
    if name != "vanilla":  # whose loss is that of each process' own utterances
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-6)
    assert two["gradients"].keys() == one["gradients"].keys()
    assert sum(float(value.abs().max()) > 1e-4 for value in one["gradients"].values()) > 2
    for key, expected in one["gradients"].items():
        scale = expected.abs().max().clamp(min=1.0)
        assert (two["gradients"][key] - expected).abs().max() <= 1e-6 * scale, key


def test_a_finetuned_upstream_and_a_learnt_temperature_are_among_the_gradients(gradients: dict[int, dict[str, dict]]) -> None:
    assert any(key.startswith("upstreams.audio.") for key in gradients[1]["avd"]["gradients"])
    turbo = gradients[1]["turbo"]["gradients"]
    assert any(key.startswith("upstreams.text.") for key in turbo)
    assert float(turbo["experts.turbo.log_scale"].abs()) > 0


def test_alone_the_rows_are_handed_back_as_they_are() -> None:
    values = torch.ones(2, 3, requires_grad=True)
    assert gathered(values) is values


@pytest.fixture(scope="module")
def runs(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A whole run of avd, by the number of processes."""
    folder = tmp_path_factory.mktemp("runs")
    mapping = {
        "task": "avd",
        "upstream": {"name": "fbank_no_cmvn"},
        "text_upstream": {"name": "hashed_words"},
        "corpus": {"data": str(rated)},
        "avd": {"scale": [1, 7], "dropout": 0.0, "hidden_dim": 16},
        "training": {"steps": 12, "batch_size": 8, "eval_every": 4},
        "store": {"mode": "off"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(mapping))
    for count in (1, 2):
        arguments = ["downstream", "-c", folder / "recipe.yaml", "-p", folder / str(count), "--device", "cpu", "--quiet"]
        start("-m", "headwater", *arguments, processes=count).finish()
    return {count: folder / str(count) for count in (1, 2)}


def test_a_run_of_two_processes_ends_with_the_result_of_one(runs: dict[int, Path]) -> None:
    one, two = (json.loads((folder / "result.json").read_text()) for folder in runs.values())
    assert two["best_step"] == one["best_step"]
    for split in ("dev", "test"):
        assert two["scores"][split] == pytest.approx(one["scores"][split], abs=1e-4)


def test_a_run_of_two_processes_writes_the_losses_of_one(runs: dict[int, Path]) -> None:
    losses = [
        [row["loss"] for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if row["split"] == "dev"]
        for folder in runs.values()
    ]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
