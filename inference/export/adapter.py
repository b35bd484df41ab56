"""The adapters of a finished run: merged into its models, or written as peft loads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ...core.errors import UserError
from ...core.files import write_json
from ...runs.config.schema import roles_of
from ...upstream.adapters import WITHOUT, AdapterFiles, files_of, merge_adapter, without_adapter
from ...upstream.base import Upstream
from ..trained_run import SECTIONS, TrainedRun
from .names import plain_source

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def adapters_of(run: TrainedRun) -> dict[str, AdapterFiles]:
    """Return the adapters of a run by the name of the folder that each goes to."""
    kinds = {str(role): section.adapter for role, section in roles_of(run.config).items() if section.adapter != WITHOUT}
    refuse_no_adapter(kinds, run.folder)
    files = {role: named_files(run.model.upstream(role), kind) for role, kind in kinds.items()}
    return {f"adapter-{role}" if len(files) > 1 else "adapter": found for role, found in files.items()}


def refuse_no_adapter(kinds: Mapping[str, str], folder: Path) -> None:
    """Refuse a run without an adapter that could be kept."""
    if not kinds:
        raise UserError(f"Expected a run with an adapter for --keep-adapter, found '{folder}', which has none. Leave it out.")


def named_files(upstream: Upstream, kind: str) -> AdapterFiles:
    """Return an adapter's files, which name the model that they belong to as it is called anywhere."""
    return files_of(upstream, kind, upstream.name if upstream.source == "built in" else plain_source(upstream.source))


def write_adapter(files: AdapterFiles, folder: Path) -> None:
    """Write an adapter as peft's folder."""
    folder.mkdir(exist_ok=True)
    write_json(folder / CONFIG, files.config)
    save_file(dict(files.tensors), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)  # safetensors writes for its owner's eyes only


def without_adapters(run: TrainedRun) -> TrainedRun:
    """Return the run with its adapters merged into its models, which are then as finetuned ones."""
    merged: dict[str, Any] = {}
    for role, section in roles_of(run.config).items():
        if section.adapter != WITHOUT:
            merge_adapter(run.model.upstream(role), section.adapter)
            run.model.configs[role] = merged[SECTIONS[role]] = without_adapter(section)
    return replace(run, config=replace(run.config, **merged))
