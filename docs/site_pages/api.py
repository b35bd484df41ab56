"""The public names of the Python packages, documented from their docstrings."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType

FACES = ("headwater", "headwater.upstream", "headwater.downstream", "headwater.corpus")
INTRODUCTION = """\
# Python

These are the public names: import from these packages alone. What lies behind them moves.
"""


def page() -> str:
    """Return the page of all public names."""
    lines = [INTRODUCTION]
    for face in FACES:
        module = import_module(face)
        about = " ".join((inspect.getdoc(module) or "").split())
        lines += [f"## {face}", "", about, "", "```{eval-rst}"]
        for name in sorted(module.__all__):
            lines += directive(module, name)
        lines += ["```", ""]
    return "\n".join(lines)


def directive(module: ModuleType, name: str) -> list[str]:
    """Return the directive that documents a public name."""
    value = getattr(module, name)
    if not inspect.isclass(value):
        kind = "autofunction" if callable(value) else "autodata"
        return [f".. {kind}:: {module.__name__}.{name}", ""]
    return [f".. autoclass:: {module.__name__}.{name}", "   :members:", "   :undoc-members:", ""]
