"""Runs that train an adapter: small checkpoints, the same after a kill, and a model for others once it is merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import UserError
from headwater.core.run_folder import RunFolder
from headwater.core.tensors import load_tensors
from headwater.downstream.answer import OneClass
from headwater.inference.load import load_run
from headwater.inference.trained_run import TrainedRun
from headwater.plans.naming import suffix_of
from headwater.runs.config.identity import identity_of
from headwater.runs.config.schema import RunConfig
from headwater.runs.prepare import prepare
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.training import loop
from headwater.upstream.adapters import OPTIONS_OF, belongs_to_adapter
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream

QUIET = Runtime("cpu", quiet=True)


def with_adapter(config: RunConfig, kind: str, name: str = "test_hubert", **options: Any) -> RunConfig:
    """Return a run of six steps that trains an adapter fast enough to be seen."""
    section = UpstreamConfig(name, trainable=True, adapter=kind, **options)
    training = replace(config.training, steps=6, eval_every=3, save_every=2, log_every=1)
    return replace(config, upstream=section, training=training, optimizer=replace(config.optimizer, adapter_lr=0.02))


@pytest.fixture(scope="module")
def folders() -> dict[str, Path]:
    """Runs that have been trained, by kind."""
    return {}


@pytest.fixture
def finished(config: RunConfig, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a run of a kind, trained once."""

    def of(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp("adapters") / kind
            run(with_adapter(config, kind), folders[kind], QUIET)
        return folders[kind]

    return of


@pytest.mark.parametrize("kind", [*OPTIONS_OF])
def test_a_checkpoint_holds_the_adapter_and_the_head_alone(kind: str, finished: Callable[[str], Path]) -> None:
    folder = RunFolder(finished(kind))
    tensors, _ = load_tensors(folder.best)
    of_upstream = {key.removeprefix("upstreams.audio."): value for key, value in tensors.items() if key.startswith("upstreams.")}
    assert of_upstream
    assert all(belongs_to_adapter(name, kind) for name in of_upstream)
    whole = sum(weight.numel() for weight in load_upstream("test_hubert").parameters())
    assert sum(weight.numel() for weight in of_upstream.values()) < 0.05 * whole
    assert not folder.architecture("audio").exists()
    result = folder.read().result()
    assert (result["trainable"], result["adapters"]) == (True, {"audio": kind})


@pytest.mark.parametrize("kind", [*OPTIONS_OF])
def test_a_finished_run_predicts_what_it_did_and_is_a_model_for_others(
    kind: str, finished: Callable[[str], Path], tones: Path
) -> None:
    folder = finished(kind)
    expected, _ = read_predictions(folder / "predictions-test.csv", OneClass(("high", "low", "middle")))
    trained = load_run(folder)
    assert isinstance(trained, TrainedRun)
    assert expected.scores is not None
    for row in (0, 5, 11):
        found = trained.predict(tones.parent / expected.ids[row]).scores
        assert found is not None
        torch.testing.assert_close(torch.tensor([*found.values()]), expected.scores[row].float(), rtol=0, atol=1e-5)
    waveforms = [torch.randn(9000, generator=torch.Generator().manual_seed(1)) * 0.1]
    merged, plain = load_upstream(str(folder)), load_upstream("test_hubert")
    with torch.no_grad():
        mine, theirs = merged(waveforms).values, trained.model.upstream("audio")(waveforms).values
        assert max(float((one - other).abs().max()) for one, other in zip(mine, theirs, strict=True)) < 1e-5
        assert float((mine[-1] - plain(waveforms).values[-1]).abs().max()) > 1e-3, "it was trained"
    assert not any(weight.requires_grad for weight in merged.parameters())
    assert merged.spec.num_layers == plain.spec.num_layers
    pruned = load_upstream(UpstreamConfig(str(folder), keep_layers=2))
    assert torch.equal(pruned(waveforms).values[2], merged(waveforms).values[2])


@pytest.mark.parametrize("kind", ["lora", "bitfit", "houlsby"])
def test_a_killed_run_goes_on_to_the_same_digits(
    kind: str, config: RunConfig, finished: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, config = RunFolder(finished(kind)), with_adapter(config, kind)
    made, steps = loop.take_step, 0

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return made(*arguments, **named)

    monkeypatch.setattr(loop, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", QUIET)
    monkeypatch.undo()
    run(config, tmp_path / "run", QUIET)
    for checkpoint in ("best", "last"):
        expected, _ = load_tensors(getattr(undisturbed, checkpoint))
        found, _ = load_tensors(getattr(RunFolder(tmp_path / "run"), checkpoint))
        assert {*found} == {*expected}
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_an_adapter_belongs_to_the_seed_and_the_identity_to_the_model(config: RunConfig) -> None:
    plain = prepare(replace(config, upstream=UpstreamConfig("test_hubert")))
    one, two = (prepare(replace(with_adapter(config, "lora"), seed=seed)) for seed in (1, 2))
    assert one.identity["upstreams"] == two.identity["upstreams"] == plain.identity["upstreams"]
    weights = [setup.model.state_dict() for setup in (one, two)]
    drawn = [key for key in weights[0] if "lora_A" in key]
    assert drawn
    assert not any(torch.equal(weights[0][key], weights[1][key]) for key in drawn)


def test_a_run_without_an_adapter_is_what_it_was_before_there_were_any(config: RunConfig) -> None:
    identity = identity_of(config)
    assert not [key for section in ("upstream", "optimizer") for key in identity[section] if "adapter" in key]
    assert identity_of(with_adapter(config, "lora"))["upstream"]["adapter"] == "lora"


def test_an_adapter_has_a_rate_of_its_own(config: RunConfig) -> None:
    setup = prepare(with_adapter(config, "lora"))
    groups = setup.model.parameter_groups(replace(config.optimizer, upstream_lr=7.0, adapter_lr=3.0, layer_decay=0.5))
    assert [group["lr"] for group in groups[-4:]] == [3.0 * 0.5**above for above in (3, 2, 1, 0)]
    assert all(len(group["params"]) == 4 for group in groups[-4:])


def test_an_adapter_over_another_model_is_refused(finished: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.upstream.base.Upstream.weights_hash", lambda _: "another")
    with pytest.raises(UserError, match=r"Expected the very weights of 'test_hubert' that .* was trained on, found others"):
        load_upstream(str(finished("lora")))


@pytest.mark.parametrize("below", ["lora", "houlsby"])
@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_a_run_goes_on_from_one_with_an_adapter(
    below: str, adapter: str, config: RunConfig, finished: Callable[[str], Path], tmp_path: Path
) -> None:
    run(with_adapter(config, adapter, name=str(finished(below))), tmp_path / "above", QUIET)
    held = {key.removeprefix("upstreams.audio.") for key in load_tensors(RunFolder(tmp_path / "above").best)[0]}
    start = {*load_upstream(str(finished(below))).state_dict()}
    assert any("houlsby" in name for name in start) == (below == "houlsby")
    assert (held & start == start) if adapter == "none" else (not held & start)
    again = load_upstream(str(tmp_path / "above"))
    assert {*again.state_dict()} == start


def test_a_folder_says_which_adapter_was_trained() -> None:
    sections = [UpstreamConfig("hubert"), UpstreamConfig("hubert", trainable=True)]
    sections.append(UpstreamConfig("hubert", trainable=True, adapter="lora"))
    assert [suffix_of(section) for section in sections] == ["", "-finetuned", "-lora"]
