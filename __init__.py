"""Headwater: what a speech model's layers know, and how well they solve your tasks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> module: nothing is imported before it is used
_PUBLIC = {
    "train": "headwater.runs.train",
    "load_run": "headwater.inference.load",
    "load_runs": "headwater.inference.load",
    "compare": "headwater.analysis.comparison.compare",
    "results": "headwater.analysis.results",
    "layer_curve": "headwater.analysis.layers.curve",
    "load_upstream": "headwater.upstream.load",
    "list_upstreams": "headwater.upstream.load",
    "load_task": "headwater.downstream.load",
    "load_corpus": "headwater.corpus.read",
    "register_upstream": "headwater.upstream.base",
    "use": "headwater.plugins.code",
    "UserError": "headwater.core.errors",
}
__all__ = [*_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"headwater has no name '{name}'. It has: {', '.join(sorted(_PUBLIC))}.")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])
