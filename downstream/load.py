"""A task by its name."""

from __future__ import annotations

import importlib
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..core.errors import UserError, nearest
from ..plugins.code import find, known_as, use
from ..plugins.registry import folder_of, load_all, load_offered, offered, sources
from .base import Question, Task

OWN_TASKS: dict[str, Task] = {}  # of folders that the user typed and of installed packages, by name


def built_in_tasks() -> list[str]:
    """Return the names of the task folders here."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/expert.py"))


def list_tasks() -> list[str]:
    """Return the names of all tasks: those here, those that were typed, and those that installed packages offer."""
    return sorted({*built_in_tasks(), *OWN_TASKS, *offered("task")})


def load_task(name: str) -> Task:
    """Return the task called so."""
    name = known_as(name, "task")
    if name in built_in_tasks():
        return importlib.import_module(f"headwater.downstream.{name}.expert").TASK
    task = OWN_TASKS[name] if find("task", name) else load_offered("task", name, OWN_TASKS)
    if task is None:
        known = f"Known: {', '.join(list_tasks())}. One of your own is its folder, typed: -d ./{name} (or --use ./{name})."
        raise UserError(f"There is no task '{name}'.{nearest(name, list_tasks())} {known}")
    return task


def broken_tasks() -> list[str]:
    """Return a line for each task of an installed package that cannot be had."""
    return load_all("task", OWN_TASKS)


def use_task(path: str) -> str:
    """Execute the `expert.py` of a folder that the user typed; return the name of its task, which is known from now on."""
    return use(path, "task").name


def add_task(task: Any, where: str, name: str | None = None) -> None:
    """Add what somebody else's `TASK` is to the tasks, or say why it cannot be one; `name` is what it has to be called."""
    if not isinstance(task, Task):
        found = "none" if task is None else type(task).__name__
        raise UserError(f"Expected `TASK = Task(…)` at the end of expert.py in {where}, found {found}. Add it.")
    typed, packages = find("task", task.name), {} if name else sources("task")
    if task.name in built_in_tasks() or task.name in OWN_TASKS or task.name in packages:
        there = (
            "Headwater"
            if task.name in built_in_tasks()
            else packages.get(task.name) or (typed and typed.path) or "another package"
        )
        raise UserError(
            f"Expected a new name for the task of {where}, found '{task.name}', which is one of {there} already. "
            "Rename it: Task(name=…)."
        )
    if name not in (None, task.name):
        raise UserError(f"Expected a task called '{name}' in {where}, found Task(name='{task.name}'). Give both one name.")
    refuse_name(task.name, where)
    if not (isinstance(task.options, type) and is_dataclass(task.options)):
        raise UserError(
            f"Expected a dataclass as Task(options=…) in {where}, found {task.options!r}. Decorate it with @dataclass."
        )
    OWN_TASKS[task.name] = task


def refuse_name(name: str, where: str) -> None:
    """Refuse a name that cannot stand for a task in a recipe, where other sections stand, and in a checkpoint."""
    from ..runs.config.schema import RECIPE_WORDS

    if not re.fullmatch(r"[A-Za-z]\w*", name) or hasattr(nn.ModuleDict(), name) or name in RECIPE_WORDS | {"all"}:
        raise UserError(
            f"Expected letters, digits and _ in the name of the task in {where}, and no word that a recipe has for itself, "
            f"found '{name}'. Rename it: Task(name=…)."
        )


def task_folder(name: str) -> Path | None:
    """Return the folder that a task lies in, with its `default.yaml` where it has one."""
    own = find("task", name)
    if own is not None:
        return own.path
    return Path(__file__).parent / name if name in built_in_tasks() else folder_of("task", name, OWN_TASKS)


def load_question(name: str) -> Question:
    """Return the question of a task as it is asked without options, of one here without its expert."""
    if name in built_in_tasks():
        return importlib.import_module(f"headwater.downstream.{name}.question").QUESTION
    task = load_task(name)
    return task.question(task.options())
