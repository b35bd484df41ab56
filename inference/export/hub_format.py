"""Write the upstream of a run in the hub's format: config.json and model.safetensors, which transformers and others load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError
from ...core.files import folder_aside, write_text
from ...core.hub import quiet
from ...core.run_folder import RunFolder
from ...upstream.adapters import BOTTLENECKS, WITHOUT, AdapterFiles
from ...upstream.base import Upstream
from ...upstream.load import load_upstream
from ...upstream.run_folder import adapted, section_of
from .adapter import named_files, refuse_no_adapter, write_adapter
from .export import refuse_place

WAVEFORMS, TOKENIZER = "preprocessor_config.json", "tokenizer.json"


def export_adapter(run: str | Path, target: str | Path) -> AdapterFiles:
    """Write the adapter of a finished run's upstream as peft's folder, and return what is in it."""
    source, place = Path(run).expanduser(), Path(os.path.realpath(Path(target).expanduser()))
    refuse_place(source, place)
    RunFolder.open(source)
    role, section = section_of(source)
    refuse_no_adapter({role: section.adapter} if section.adapter != WITHOUT else {}, source)
    files = named_files(adapted(source, section, role, load_upstream), section.adapter)
    with folder_aside(place, fills_empty=True) as aside:
        write_adapter(files, aside)
    return files


def export_upstream(run: str | Path, target: str | Path, *, half: bool = False) -> Upstream:
    """Write a finished run's upstream as a model folder, with `half` in float16, and return it."""
    source, place = Path(run).expanduser(), Path(os.path.realpath(Path(target).expanduser()))
    refuse_place(source, place)
    RunFolder.open(source)
    upstream = load_upstream(str(source))
    with folder_aside(place, fills_empty=True) as aside:
        write_model(upstream, aside, half=half)
    return upstream


def write_model(upstream: Upstream, folder: Path, *, half: bool = False) -> None:
    """Write an upstream's weights and config, and what prepares its input."""
    model: Any = getattr(upstream, "model", None)
    if not hasattr(model, "save_pretrained"):
        raise UserError(
            f"Expected a model of transformers, which the hub's format is for, found '{upstream.name}'. Name another."
        )
    if getattr(model.config, BOTTLENECKS, None):
        raise UserError(
            f"Expected a model as transformers has it for --hub, found bottlenecks (adapter=houlsby) in '{upstream.name}'. "
            "Export the run without --hub."
        )
    with quiet():
        stored = {key: value.half() if half and value.is_floating_point() else value for key, value in model.state_dict().items()}
        model.save_pretrained(folder, state_dict={key: value.contiguous() for key, value in stored.items()})
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # as the others: the library that writes it leaves it to its owner
    described = json.loads((folder / "config.json").read_text())
    described["dtype"] = str(torch.float16 if half else torch.float32).removeprefix("torch.")
    write_text(folder / "config.json", json.dumps(described, indent=2, sort_keys=True) + "\n")
    architecture = upstream.architecture() or {}
    if "tokenizer" in architecture:
        write_text(folder / TOKENIZER, architecture["tokenizer"])
    elif "extractor" in architecture:
        write_text(folder / WAVEFORMS, json.dumps(architecture["extractor"], indent=2, sort_keys=True) + "\n")
    else:
        facts = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": 16000,
            "padding_value": 0.0,
        }
        facts |= {"do_normalize": upstream.spec.normalize, "return_attention_mask": True}
        write_text(folder / WAVEFORMS, json.dumps(facts, indent=2, sort_keys=True) + "\n")
