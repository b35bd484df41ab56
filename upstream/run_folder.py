"""The upstream of a run: as that run finetuned it, or the frozen one it listened or read through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from . import huggingface
from .base import Upstream, UpstreamConfig, load_upstream

# by role: of a finetuned run, with its checkpoint, all that the upstream is
ARCHITECTURES = {"audio": "upstream.json", "text": "text_upstream.json"}
OPTIONS = frozenset({"keep_layers"})


def build(config: UpstreamConfig, modality: str | None = None) -> Upstream:
    """Return the upstream of the run folder that the config names, pruned where it says so; of two, the one that is asked for."""
    from ..training.checkpoint import read_json
    from ..training.config import read_yaml, resolve
    from ..training.mtl_config import resolve_mtl
    from ..training.parts import sections_of

    folder = Path(config.path or config.name).expanduser()
    mapping = read_yaml(folder / "config.yaml")
    roles = dict(sections_of(resolve_mtl([mapping]) if "tasks" in mapping else resolve([mapping])))
    role = modality or ("audio" if "audio" in roles else "text")
    if role not in roles:
        raise UserError(
            f"Expected a run with an upstream for {role} in '{folder}', found one for {' and '.join(roles)} only. "
            "Name another run, or the model itself."
        )
    trained = roles[role]
    if not trained.trainable:
        upstream = load_upstream(replace(trained, keep_layers=config.keep_layers or trained.keep_layers), role)
    else:
        upstream = finetuned(folder, trained, role)
        if config.keep_layers is not None:
            pruned = replace(trained, keep_layers=config.keep_layers)
            upstream = huggingface.wrap(upstream.model, pruned, architecture=upstream.architecture())
    upstream.source = f"{folder} (from {trained.name})"
    marks = read_json(folder / "identity.json", ("marks",))["marks"]
    upstream.untrained = "UNTRAINED" in marks  # what a run made of random weights is still nothing to quote
    return upstream


def finetuned(folder: Path, trained: UpstreamConfig, role: str = "audio") -> Upstream:
    """Return the upstream of a role with the weights of a run's best step; what it was started from is not needed."""
    from ..training.checkpoint import load_tensors, read_json

    path = folder / "checkpoints" / "best.safetensors"
    prefix = f"upstreams.{role}."
    weights = {key.removeprefix(prefix): value for key, value in load_tensors(path)[0].items() if key.startswith(prefix)}
    described = folder / ARCHITECTURES[role]
    if described.is_file():
        architecture = read_json(described)
        # its config is that of the pruned model already
        upstream = huggingface.rebuild(architecture, replace(trained, keep_layers=None))
    else:
        upstream = load_upstream(trained)
    missing = sorted({*upstream.state_dict()} ^ {*weights})
    if missing:
        raise UserError(f"Expected the weights of '{trained.name}' in '{path}', found a mismatch at '{missing[0]}'. Train again.")
    upstream.load_state_dict(weights)
    upstream.name, upstream.source = trained.name, str(folder)
    return upstream.eval()
