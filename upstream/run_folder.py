"""The upstream of a run: as that run finetuned it, or the frozen one it listened through."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from .base import Upstream, UpstreamConfig, load_upstream

PREFIX = "upstreams.audio."  # of a finetuned upstream's weights in a checkpoint


def build(config: UpstreamConfig) -> Upstream:
    """Return the upstream of the run folder that the config names."""
    from ..training.checkpoint import load_tensors
    from ..training.config import read_yaml, resolve

    folder = Path(config.path or config.name).expanduser()
    trained = resolve([read_yaml(folder / "config.yaml")]).upstream
    upstream = load_upstream(trained)
    if trained.trainable:
        path = folder / "checkpoints" / "best.safetensors"
        weights = {key.removeprefix(PREFIX): value for key, value in load_tensors(path)[0].items() if key.startswith(PREFIX)}
        missing = sorted({*upstream.state_dict()} ^ {*weights})
        if missing:
            raise UserError(
                f"Expected the weights of '{trained.name}' in '{path}', found a mismatch at '{missing[0]}'. Train the run again."
            )
        upstream.load_state_dict(weights)
    upstream.source = f"{folder} (from {upstream.source})"
    return upstream
