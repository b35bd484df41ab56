"""An upstream by its name."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from ..core.errors import UserError, nearest
from ..core.run_folder import RunFolder
from ..core.sharing.fetch import fetch
from ..core.sharing.names import hub_name, is_hub_name
from ..plugins.code import name_behind, use
from ..plugins.registry import FLAGS
from . import run_folder
from .base import UPSTREAMS, Registered, Upstream, UpstreamConfig
from .families import new
from .hub import models
from .hub.family import OPTIONS
from .s3prl import bridge, conversion

# fields of UpstreamConfig that concern whoever uses the upstream, not its builder
_USE_FIELDS = frozenset({"name", "path", "trainable", "layer", "normalize_layers"})


def list_upstreams(pattern: str = "*", modality: str | None = None) -> list[Registered]:
    """Return the registered upstreams whose name matches, in natural order."""
    UPSTREAMS.broken(pattern)  # loads what packages offer; what is broken is shown where upstreams are listed
    rows = [row for row in UPSTREAMS.loaded().values() if fnmatch.fnmatch(row.name, pattern) and modality in (None, row.modality)]
    return sorted(rows, key=lambda row: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", row.name)])


def load_upstream(what: str | UpstreamConfig, modality: str | None = None) -> Upstream:
    """Return an upstream in eval mode without gradients: a name, hub id, folder, run folder, `hf:OWNER/NAME`, `s3prl/NAME`, file.

    `headwater.load_upstream("fbank")([waveform, waveform])` gives Layers: waveforms are 16 kHz and mono, others come with
    `sampling_rate=`. Before a loop that trains it: `upstream.requires_grad_(True)`. With a modality another one is refused, and
    of a run that had both it is the one that is loaded.
    """
    if isinstance(what, str) and what.endswith(".py"):  # typed in the code that calls; a recipe's comes in a config
        what = use(what, "upstream").name
    config = UpstreamConfig(name=what) if isinstance(what, str) else what
    row = find_upstream(config, modality)
    upstream = row.build(config)
    _refuse_modality(config, upstream.spec.modality, modality)
    upstream.name, upstream.source = config.name, upstream.source or row.source
    upstream.untrained, upstream.code = upstream.untrained or row.untrained, upstream.code or row.code
    return upstream.eval().requires_grad_(False)  # who finetunes it switches gradients on


def find_upstream(config: UpstreamConfig, modality: str | None = None) -> Registered:
    """Return the line of the upstream that a config names, its options and modality checked; nothing is loaded."""
    row = _find(config, modality)
    _refuse_unknown_options(row, config)
    _refuse_modality(config, row.modality, modality)
    return row


def _find(config: UpstreamConfig, modality: str | None) -> Registered:
    config = replace(config, name=name_behind(config.name, "upstream", FLAGS[modality or "audio"]))
    row = UPSTREAMS.get(config.name)
    if (converted := conversion.row_of(config, row)) is not None:
        return converted
    if row is not None:
        return row
    if config.name.startswith(new.PREFIX):
        return new.row_of(config)
    if config.name.startswith("s3prl/"):
        return Registered(config.name, bridge.build, "s3prl", "", options=bridge.OPTIONS)
    if config.path is None and is_hub_name(config.name):
        build = partial(_build_shared, modality=modality)
        return Registered(config.name, build, config.name, "", None, options=OPTIONS | run_folder.OPTIONS)
    folder = Path(config.path or config.name).expanduser()
    if RunFolder(folder).config.is_file() and models.own_files(folder) is None:
        build = partial(run_folder.build, modality=modality, load=load_upstream)
        return Registered(config.name, build, str(folder), "", None, options=run_folder.OPTIONS)
    if folder.is_file():
        raise UserError(f"Expected the folder of a model or a run, found the file '{folder}'. Name its folder: {folder.parent}")
    if folder.is_dir() or re.fullmatch(r"\w[\w.-]*/[\w.-]+", config.name):
        return Registered(config.name, models.build, config.name, "", None, options=OPTIONS)
    if config.path is not None and not folder.exists():
        raise UserError(f"Expected a folder with weights after -k, found nothing at '{config.path}'. Check the path.")
    if "/" in config.name or config.name.startswith("."):
        raise UserError(
            f"Expected a folder with config.json and weights (or a run folder) at '{config.name}', found nothing there. "
            "Check the path, or give a name from `headwater list upstreams`."
        )
    close = nearest(config.name, UPSTREAMS.loaded())
    others = "See `headwater list upstreams`, or give a hub id, a folder, or s3prl/NAME."
    raise UserError(f"There is no upstream '{config.name}'.{close} {others}")


def _build_shared(config: UpstreamConfig, *, modality: str | None) -> Upstream:
    """Return the upstream of a run that the hub has, or a model there whose weights are safetensors."""
    found = fetch(hub_name(config.name))
    if not found.is_run:
        upstream = models.build(replace(config, path=str(found.folder)))
        upstream.source = found.pinned
        return upstream
    run_folder.refuse_foreign(found.folder, config.name)
    build = partial(run_folder.build, modality=modality, load=load_upstream)
    row = Registered(config.name, build, found.pinned, "", None, options=run_folder.OPTIONS)
    _refuse_unknown_options(row, config)
    return build(config)


def _refuse_modality(config: UpstreamConfig, found: str | None, expected: str | None) -> None:
    if found is None or expected is None or found == expected:
        return
    verbs, flags = {"audio": "listens", "text": "reads"}, {"audio": "-u", "text": "--text-upstream"}
    raise UserError(
        f"Expected an upstream that {verbs[expected]} for {flags[expected]}, found '{config.name}', which {verbs[found]}. "
        f"Give it to {flags[found]}; `headwater list upstreams` lists which is which."
    )


def _refuse_unknown_options(row: Registered, config: UpstreamConfig) -> None:
    for option in fields(UpstreamConfig):
        if option.name in _USE_FIELDS | row.options or getattr(config, option.name) == option.default:
            continue
        allowed = ", ".join(sorted(row.options)) or "no options"
        raise UserError(f"Upstream '{config.name}' has no option '{option.name}' (it has: {allowed}). Leave it out.")
    if config.path is not None and (row.source == "built in" or (row.code and "path" not in row.options)):
        raise UserError(f"Upstream '{config.name}' is built in and takes no weights: leave out -k, or name the model.")
