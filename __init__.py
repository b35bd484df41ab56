"""Headwater: what a speech model's layers know, and how well they solve your tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api.judge import Audit, ComparedRuns, audit, compare
    from .api.mtl import JointPlan, mtl
    from .api.pictures import plot_confusion, plot_curves, plot_geometry, plot_layers, plot_relations
    from .api.run import Run
    from .api.tables import layer_curve, results
    from .api.train import train
    from .core.errors import UserError
    from .corpus.read import load_corpus
    from .downstream.load import load_task
    from .inference.load import load_run, load_runs
    from .inference.predict import Predictions
    from .plugins.code import use
    from .upstream.base import register_upstream
    from .upstream.load import list_upstreams, load_upstream

__version__ = "0.1.0"

# public name -> module: nothing is imported before it is used
_PUBLIC = {
    "train": "headwater.api.train",
    "mtl": "headwater.api.mtl",
    "Run": "headwater.api.run",
    "JointPlan": "headwater.api.mtl",
    "load_run": "headwater.inference.load",
    "load_runs": "headwater.inference.load",
    "Predictions": "headwater.inference.predict",
    "results": "headwater.api.tables",
    "layer_curve": "headwater.api.tables",
    "compare": "headwater.api.judge",
    "ComparedRuns": "headwater.api.judge",
    "audit": "headwater.api.judge",
    "Audit": "headwater.api.judge",
    "plot_layers": "headwater.api.pictures",
    "plot_curves": "headwater.api.pictures",
    "plot_confusion": "headwater.api.pictures",
    "plot_relations": "headwater.api.pictures",
    "plot_geometry": "headwater.api.pictures",
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
