"""A task by its name."""

from __future__ import annotations

import importlib
from pathlib import Path

from ..core.errors import UserError, nearest
from ..plugins.code import name_behind
from .base import TASKS, Question, Task


def built_in_tasks() -> list[str]:
    """Return the names of the task folders here."""
    return TASKS.built_in()


def list_tasks() -> list[str]:
    """Return the names of all tasks: those here, those that were typed, and those that installed packages offer."""
    return TASKS.names()


def load_task(name: str) -> Task:
    """Return the task called so."""
    name = name_behind(name, "task")
    task = TASKS.get(name)
    if task is None:
        known = f"Known: {', '.join(list_tasks())}. One of your own is its folder, typed: -d ./{name} (or --use ./{name})."
        raise UserError(f"There is no task '{name}'.{nearest(name, list_tasks())} {known}")
    return task


def task_folder(name: str) -> Path | None:
    """Return the folder that a task lies in, with its `default.yaml` where it has one."""
    return Path(__file__).parent / name if name in built_in_tasks() else TASKS.folder(name)


def load_question(name: str) -> Question:
    """Return the question of a task with its default options, of one of ours without its expert."""
    if name in built_in_tasks():
        return importlib.import_module(f"headwater.downstream.{name}.question").QUESTION
    task = load_task(name)
    return task.question(task.options())
