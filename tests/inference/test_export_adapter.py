"""An exported adapter: merged into the model, or in peft's own files beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.core.run_folder import RunFolder
from headwater.inference.export.export import export_run
from headwater.inference.export.hub_format import export_adapter, export_upstream
from headwater.inference.load import load_run
from headwater.inference.trained_run import TrainedRun
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.adapters import BY_PEFT
from headwater.upstream.base import Layers, Upstream
from headwater.upstream.load import load_upstream

QUIET = Runtime("cpu", quiet=True)
TRAINED = {"trainable": True}
RUNS: dict[str, dict[str, Any]] = {
    "lora": {"upstream": {"name": "test_hubert", **TRAINED, "adapter": "lora"}},
    "dora": {"upstream": {"name": "test_wavlm", **TRAINED, "adapter": "dora"}},
    "ia3": {"upstream": {"name": "test_whisper", **TRAINED, "adapter": "ia3", "attend": "valid"}},
    "houlsby": {"upstream": {"name": "test_hubert", **TRAINED, "adapter": "houlsby"}},
    "bitfit": {"upstream": {"name": "test_hubert", **TRAINED, "adapter": "bitfit"}},
    "bert": {"task": "avd", "avd": {"scale": [1, 7]}, "text_upstream": {"name": "test_bert", **TRAINED, "adapter": "lora"}},
    "plain": {"upstream": {"name": "test_hubert"}},
}
TEXT = "they say so"


@pytest.fixture(scope="module")
def trained(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a run of a few steps, trained once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            training = {"steps": 3, "batch_size": 8, "eval_every": 3}
            usual = {"task": "emotion", "corpus": {"data": str(rated)}, "training": training, "optimizer": {"adapter_lr": 0.03}}
            made[name] = tmp_path_factory.mktemp("runs") / name
            run(resolve([merge(usual, {"store": {"mode": "off"}, **RUNS[name]})]), made[name], QUIET)
        return made[name]

    return of


def one(folder: Path) -> TrainedRun:
    """Return a single run, loaded."""
    found = load_run(folder)
    assert isinstance(found, TrainedRun)
    return found


def upstream_of(found: TrainedRun) -> Upstream:
    """Return the one upstream of a run."""
    return found.model.upstream(next(iter(found.model.configs)))


def layers(upstream: Upstream) -> Layers:
    """Return what an upstream computes of one utterance."""
    sound = torch.randn(9000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        return upstream([TEXT] if upstream.spec.modality == "text" else [sound])


def farthest(mine: Layers, theirs: Layers) -> float:
    """Return the largest difference of two passes."""
    return max(float((left - right).abs().max()) for left, right in zip(mine.values, theirs.values, strict=True))


@pytest.mark.parametrize("name", [name for name in RUNS if name != "plain"])
def test_an_exported_run_has_its_adapter_merged(name: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    export_run(trained(name), tmp_path / "whole")
    expected, found = one(trained(name)), one(tmp_path / "whole")
    assert {section.adapter for section in found.model.configs.values()} == {"none"}
    assert RunFolder(tmp_path / "whole").architecture(next(iter(found.model.configs))).is_file()
    assert farthest(layers(upstream_of(found)), layers(upstream_of(expected))) < 1e-5
    assert farthest(layers(load_upstream(str(tmp_path / "whole"))), layers(upstream_of(expected))) < 1e-5
    base = load_upstream(expected.config.upstream.name or expected.config.text_upstream.name)
    assert farthest(layers(base), layers(upstream_of(expected))) > 1e-3, "the adapter was trained"


@pytest.mark.parametrize("name", ["lora", "dora", "ia3", "bert"])
def test_a_kept_adapter_loads_in_peft(name: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    from peft import PeftModel

    export_run(trained(name), tmp_path / "whole", keep_adapter=True)
    expected, folder = upstream_of(one(trained(name))), tmp_path / "whole" / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    described = json.loads((folder / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == expected.name
    assert described["auto_mapping"]["base_model_class"] == type(upstream_of(one(trained(name))).get_submodule("model")).__name__
    assert str(tmp_path) not in json.dumps(described)
    again = one(trained(name)).config
    plain = load_upstream(again.upstream if again.upstream.name else again.text_upstream)
    # over a model that has no adapter yet, in place: what ours computes of it is what peft loaded
    wrapped = PeftModel.from_pretrained(plain.get_submodule("model"), str(folder)).eval()
    assert {type(part).__module__.split(".")[0] for part in wrapped.modules()} >= {"peft"}
    assert farthest(layers(plain), layers(expected)) < 1e-6


def test_the_hub_format_is_of_the_merged_model_or_of_the_adapter_alone(trained: Callable[[str], Path], tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import HubertModel

    export_upstream(trained("lora"), tmp_path / "model")
    expected = upstream_of(one(trained("lora")))
    assert farthest(layers(load_upstream(str(tmp_path / "model"))), layers(expected)) < 1e-5
    assert not [key for key in load_file(tmp_path / "model" / "model.safetensors") if "lora" in key]
    files = export_adapter(trained("lora"), tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    export_upstream(trained("plain"), tmp_path / "base")
    base = HubertModel.from_pretrained(tmp_path / "base").eval()
    over = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()
    merged = HubertModel.from_pretrained(tmp_path / "model").eval()
    sound = torch.randn(1, 9000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        torch.testing.assert_close(over(sound).last_hidden_state, merged(sound).last_hidden_state, rtol=0, atol=1e-5)
    assert {*load_file(tmp_path / "adapter" / "adapter_model.safetensors")} == {*files.tensors}


@pytest.mark.parametrize("name", ["lora", "houlsby"])
def test_a_merged_run_has_a_graph(name: str, trained: Callable[[str], Path], tmp_path: Path) -> None:
    exported = export_run(trained(name), tmp_path / "whole", onnx=True)
    assert exported.graph, exported.no_graph
    assert exported.graph["compared"]["worst_difference"] < 1e-4


@pytest.mark.parametrize("name", ["plain", "houlsby", "bitfit"])
def test_keeping_an_adapter_that_peft_has_no_file_for_is_refused(
    name: str, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    message = r"Expected a run with an adapter for --keep-adapter, found '.*plain', which has none"
    message = message if name == "plain" else rf"Expected an adapter of peft's \({', '.join(BY_PEFT)}\) for --keep-adapter, found"
    with pytest.raises(UserError, match=message):
        export_run(trained(name), tmp_path / "whole", keep_adapter=True)
    with pytest.raises(UserError, match=message):
        export_adapter(trained(name), tmp_path / "adapter")
    assert not [*tmp_path.iterdir()]


def test_bottlenecks_are_refused_where_transformers_has_no_place_for_them(trained: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected a model as transformers has it for --hub, found bottlenecks"):
        export_upstream(trained("houlsby"), tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_the_command_writes_the_adapter_and_says_over_what(
    trained: Callable[[str], Path], tmp_path: Path, headwater: Callable[..., CompletedProcess[str]]
) -> None:
    written = headwater("export", trained("lora"), tmp_path / "adapter", "--hub", "--keep-adapter")
    assert written.returncode == 0, written.stderr
    assert "puts it over test_hubert" in written.stderr
    half = headwater("export", trained("lora"), tmp_path / "other", "--hub", "--keep-adapter", "--half")
    assert (half.returncode, half.stderr.count("\n")) == (2, 1)
    assert "Expected no --half beside --keep-adapter" in half.stderr
