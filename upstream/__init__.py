"""Models of speech and of text, frozen or finetuned, behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.faces import public_name, public_names

if TYPE_CHECKING:
    from .base import Frames, Layers, Upstream, UpstreamConfig, UpstreamSpec, register_upstream
    from .load import list_upstreams, load_upstream
    from .weighted_sum import WeightedSum

FACE = {
    "base": "Frames Layers Upstream UpstreamConfig UpstreamSpec register_upstream",
    "load": "list_upstreams load_upstream",
    "weighted_sum": "WeightedSum",
}
__all__ = public_names(FACE)


def __getattr__(name: str) -> Any:
    return public_name(__name__, FACE, name)
