"""How a process that this one starts finds the same code, and nothing else."""

from __future__ import annotations

import os
import sys


def command(module: str, *words: str) -> list[str]:
    """Return what starts a module in a process of its own."""
    return [sys.executable, "-m", module, *words]


def environment(**over: str) -> dict[str, str]:
    """Return its environment: our paths, and not the working directory, where a `yaml.py` of the user's would be imported."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **over}
