"""Processes: which one of a launch prints, and how one that this one starts finds the same code, and nothing else."""

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
        finished = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:  # no git on this machine
        return None
    return finished.stdout.strip() or None


def command(module: str, *words: str) -> list[str]:
    """Return what starts a module in a process of its own."""
    return [sys.executable, "-m", module, *words]


def environment(**over: str) -> dict[str, str]:
    """Return its environment: our paths, and not the working directory, where a `yaml.py` of the user's would be imported."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **over}


def in_launch() -> bool:
    """Return whether a launcher (torchrun, accelerate) started this process, perhaps beside others."""
    return "RANK" in os.environ


def is_main() -> bool:
    """Return whether this process prints and writes: the first one of a launch, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def is_main_of_machine() -> bool:
    """Return whether this process is the first one of a launch on this machine, or the only one."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0
