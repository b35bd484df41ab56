"""The upstream of a run: as that run finetuned it, or the frozen one that it used."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.errors import UserError
from ..core.files import hash_file
from ..core.options import bind
from ..core.run_folder import RunFolder
from ..core.sharing.checksums import check_checksums
from ..core.sharing.fetch import fetch
from ..core.sharing.names import hub_name, is_hub_name
from ..core.tensors import load_tensors
from ..plugins.provenance import refuse_other_code
from ..plugins.registry import SECTIONS
from .adapters import OPTIONS as ADAPTER_OPTIONS
from .adapters import WITHOUT, add_adapter, load_adapter, merge_adapter
from .base import UPSTREAMS, Upstream, UpstreamConfig
from .hub import models

OPTIONS = ADAPTER_OPTIONS | {"keep_layers"}
Load = Callable[..., Upstream]  # load_upstream, which stands above this file


def build(config: UpstreamConfig, *, load: Load, modality: str | None = None) -> Upstream:
    """Return the upstream of the run folder that the config names, pruned where it says so; of two, the one of the role.

    `load` is `load_upstream`: what the run was made with may be any upstream, a run's among them.
    """
    folder = folder_of(config)
    refuse_circle(folder, modality or "audio")
    role, trained = section_of(folder, modality)
    if holds(folder, trained, role) or trained.adapter != WITHOUT:
        upstream = (finetuned if holds(folder, trained, role) else merged)(folder, trained, role, load)
        if config.keep_layers is not None:
            pruned = replace(trained, keep_layers=config.keep_layers)
            upstream = models.wrap(upstream.model, pruned, architecture=upstream.architecture())
    else:
        upstream = load(replace(trained, keep_layers=config.keep_layers or trained.keep_layers), role)
    upstream.source = f"{source_of(config, folder)} (from {trained.name})"
    marks = RunFolder(folder).read().identity("marks")["marks"]
    upstream.untrained = "UNTRAINED" in marks  # what a run made of random weights is still nothing to quote
    return upstream


def refuse_circle(folder: Path, role: str) -> None:
    """Refuse runs whose upstreams are each other: no model is at the end."""
    place, passed = folder, list[Path]()
    while RunFolder(place).config.is_file():
        here = Path(os.path.realpath(place))
        if here in passed:
            chain = " -> ".join(map(str, [*passed[passed.index(here) :], here]))
            raise UserError(f"Expected a model behind the run '{folder}', found runs that name each other: {chain}. Train again.")
        passed.append(here)
        section = RunFolder(place).read().config().get(SECTIONS[role])
        named = (section.get("path") or section.get("name")) if isinstance(section, Mapping) else None
        if not isinstance(named, str):
            return
        place = Path(os.path.expanduser(named))


def folder_of(config: UpstreamConfig) -> Path:
    """Return where a config's model or run lies, if it lies anywhere; one of the hub is fetched."""
    if config.path is None and is_hub_name(config.name):
        return fetch(hub_name(config.name)).folder
    return Path(config.path or config.name).expanduser()


def refuse_foreign(folder: Path, name: str) -> None:
    """Refuse a run of the hub that would fetch its upstream from somewhere else: s3prl executes what its checkpoints hold."""
    mapping = RunFolder(folder).read().config()
    for role, key in SECTIONS.items():
        section = mapping.get(key)
        named = str(section.get("name") or "") if isinstance(section, Mapping) else ""
        row = UPSTREAMS.get(named) if named else None
        built_in = row is not None and row.source == "built in" and not row.code
        is_here = built_in and isinstance(section, Mapping) and section.get("path") is None
        if named and not is_here and not RunFolder(folder).architecture(role).is_file():
            raise UserError(
                f"Expected a run that holds its upstream in '{name}', found one that takes '{named}' from elsewhere. Nothing of "
                "it was loaded: ask its owner to push it with `headwater push`."
            )


def source_of(config: UpstreamConfig, folder: Path) -> str:
    """Return where a run comes from: its folder, or the commit of the hub that it was fetched at."""
    is_shared = config.path is None and is_hub_name(config.name)
    return fetch(hub_name(config.name)).pinned if is_shared else str(folder)


def section_of(folder: Path, modality: str | None = None) -> tuple[str, UpstreamConfig]:
    """Return the role and the config of a run's upstream, of two the one of the requested role."""
    mapping, errors = RunFolder(folder).read().config(), list[str]()
    if mapping.get("own_adapters"):
        raise UserError(
            f"Expected a run whose tasks share an upstream in '{folder}', found an adapter for each of them. Export one: "
            f"headwater export {folder} DIR --task {next(iter(mapping['tasks']))}, and name DIR."
        )
    sections = {role: bind(UpstreamConfig, mapping.get(key) or {}, key, errors) for role, key in SECTIONS.items()}
    if errors:
        raise UserError("\n".join(errors))
    roles = {
        role: section for role, section in sections.items() if section.name
    }  # what the run needed of them is not needed here
    role = modality or ("audio" if "audio" in roles else "text")
    if role not in roles:
        raise UserError(
            f"Expected a run with an upstream for {role} in '{folder}', found one for {' and '.join(roles)} only. "
            "Name another run, or the model itself."
        )
    refuse_other_code(folder, mapping, flags={}, keys={role})
    return role, roles[role]


def holds(folder: Path, section: UpstreamConfig, role: str) -> bool:
    """Return whether a run's folder holds the weights of its upstream: finetuned ones, and those of an exported run.

    Of an upstream with an adapter it holds the adapter.
    """
    return (section.trainable and section.adapter == WITHOUT) or RunFolder(folder).architecture(role).is_file()


def refuse_damaged(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse an exported folder whose weights are not those that were written: nothing else holds them."""
    expected_hash, path = identity.get("exported"), RunFolder(folder).best
    if expected_hash is not None and path.is_file() and hash_file(path) != expected_hash:
        raise UserError(f"Expected the weights that were exported in '{path}', found others: it is damaged. Export it again.")
    if expected_hash is not None:
        check_checksums(folder, "Export it again.", but=path)


def finetuned(folder: Path, trained: UpstreamConfig, role: str, load: Load) -> Upstream:
    """Return the upstream of a role with the weights of a run's best step; what it was started from is not needed."""
    run = RunFolder(folder)
    path, weights = run.best, weights_of(folder, role)
    if run.architecture(role).is_file():
        architecture = run.read().architecture(role)
        # its config is that of the pruned model already
        upstream = models.rebuild(architecture, replace(trained, keep_layers=None))
    else:
        upstream = load(trained)
    missing = sorted({*upstream.state_dict()} ^ {*weights})
    if missing:
        raise UserError(f"Expected the weights of '{trained.name}' in '{path}', found a mismatch at '{missing[0]}'. Train again.")
    upstream.load_state_dict(weights)
    upstream.name, upstream.source = trained.name, str(folder)
    return upstream.eval()


def merged(folder: Path, trained: UpstreamConfig, role: str, load: Load) -> Upstream:
    """Return the upstream of a role with a run's adapter merged into its weights, as a model that needs no adapter."""
    upstream = adapted(folder, trained, role, load)
    merge_adapter(upstream, trained.adapter)
    upstream.name, upstream.source = trained.name, str(folder)
    return upstream.eval()


def adapted(folder: Path, trained: UpstreamConfig, role: str, load: Load) -> Upstream:
    """Return the very upstream that a run was trained on, with the adapter of the run's best step."""
    upstream = load(trained, role)
    refuse_other_weights(folder, upstream, role, "Bring those back, or train again.")
    add_adapter(upstream, trained)
    load_adapter(upstream, weights_of(folder, role), trained.adapter, str(RunFolder(folder).best))
    return upstream.requires_grad_(False)


def weights_of(folder: Path, role: str) -> dict[str, Tensor]:
    """Return what the checkpoint of a run's best step holds of a role's upstream, by the names that it has there."""
    prefix = f"upstreams.{role}."
    tensors, _ = load_tensors(RunFolder(folder).best)
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def refuse_other_weights(folder: Path, upstream: Upstream, role: str, advice: str) -> None:
    """Refuse an upstream as it was loaded that is not the one that a run was trained on."""
    if upstream.weights_hash() != RunFolder(folder).read().identity("upstreams")["upstreams"].get(role):
        raise UserError(
            f"Expected the very weights of '{upstream.name}' that '{folder}' was trained on, found others ({upstream.source}). "
            f"{advice}"
        )
