"""Recipes by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import UserError, nearest
from ...core.options import read_yaml
from ...downstream.load import task_folder
from ...plugins.code import name_behind

RECIPES = Path(__file__).parents[2] / "recipes"


def find_recipe(name: str) -> Path:
    """Return a recipe by its path, or one of ours by its name (`superb/emotion`)."""
    ours = RECIPES / (name if name.endswith(".yaml") else f"{name}.yaml")
    own = RECIPES.parent / name  # `recipes/superb/emotion.yaml`, typed outside the clone
    found = next((path for path in (Path(name), ours, own) if path.is_file()), None)
    if found is None:
        known = [str(path.relative_to(RECIPES).with_suffix("")) for path in sorted(RECIPES.rglob("*.yaml"))]
        raise UserError(f"Expected a recipe after -c, found no file '{name}'.{nearest(name, known)} Ours: {', '.join(known)}.")
    return found


def task_default(task: str) -> dict[str, Any]:
    """Return what a task's folder sets for the bare command."""
    folder = task_folder(name_behind(task, "task"))
    path = folder and folder / "default.yaml"
    return read_yaml(path) if path and path.is_file() else {}


def demo_recipe(task: str) -> dict[str, Any]:
    """Return what differs for a task on its demo corpus."""
    path = RECIPES / "demo" / f"{task}.yaml"
    return read_yaml(path) if path.is_file() else {}
