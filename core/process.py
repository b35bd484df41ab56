"""How a process that this one starts finds the same code, and nothing else; and which code that is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def commit() -> str | None:
    """Return the commit of the clone that this code runs from; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:  # no git on this machine
        return None
    return answer.stdout.strip() or None


def command(module: str, *words: str) -> list[str]:
    """Return what starts a module in a process of its own."""
    return [sys.executable, "-m", module, *words]


def environment(**over: str) -> dict[str, str]:
    """Return its environment: our paths, and not the working directory, where a `yaml.py` of the user's would be imported."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **over}
