"""How far a run is: its steps and their seconds, read from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..core.run_folder import RunFolder

LAST_BYTES = 4096  # of a log: its last line is among them


def standing(place: Path) -> tuple[int, float]:
    """Return how many steps a run has made, and the seconds they took."""
    there = RunFolder(place)
    if there.is_finished:
        result = there.read().result("steps", "environment")
        return int(result["steps"]), float(result["environment"]["seconds"])
    try:
        with safe_open(there.last, framework="np") as file:  # the header alone is read
            progress = json.loads(file.metadata()["facts"])["progress"]
        return int(progress["step"]), float(progress["seconds"])
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
        return 0, 0.0  # nothing to go on from: the run itself says what is wrong with it


def step_of(metrics: Path) -> int:
    """Return the last step that a run has logged."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LAST_BYTES))
            whole = file.read().split(b"\n")[:-1]  # the last one may be half written
        return int(json.loads(whole[-1])["step"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):  # it has none yet
        return 0
