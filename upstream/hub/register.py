"""Registering a family: its checkpoints and its tiny models become upstreams."""

from __future__ import annotations

from functools import partial

from ..base import register_upstream
from .family import HubFamily, add_family
from .models import build
from .tiny import build_tiny


def register_family(family: HubFamily) -> None:
    """Make a family of models known: by the model_type of a config.json, each of its checkpoints and tiny models by name."""
    add_family(family)
    options = sorted(family.options)
    for name, hub_id in family.checkpoints.items():
        register_upstream(
            partial(build, hub_id=hub_id, model_type=family.model_type),
            name=name,
            source=hub_id,
            description=f"{family.title} from the hub",
            modality=family.modality,
            options=options,
        )
    for name, tiny in family.tiny.items():
        register_upstream(
            partial(build_tiny, name=name),
            name=name,
            description=f"untrained: a tiny {tiny.like} with random weights",
            untrained=True,
            modality=family.modality,
            options=options,
        )
