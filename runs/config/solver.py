"""Which solver computes a run's head: exact where it can be linear, adam where an option asks for what only adam has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ...core.errors import UserError
from ...core.options import merge
from ...downstream.base import Task
from ...downstream.load import list_tasks, load_task
from ...upstream.statistics import STATISTICS
from .schema import ExactConfig

# of the sections of training, what has a meaning where nothing is trained
COMMON = frozenset({"precision", "piece_seconds", "piece_size", "eval_piece_size", "sort_pieces", "piece_overhead"})


def with_solver(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return mappings in rising precedence with one more that says which solver a run has, and what that needs.

    `solver: auto` stands in what a task's folder sets. Above it, an option that only adam has means adam.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    if "tasks" in values or "solver" not in values or not values.get("task"):
        return list(layers)
    task = load_task(str(values["task"]))
    own = values.get(task.name) or {}  # left empty, it is as if it were left out
    if not (isinstance(values.get("training", {}), Mapping) and isinstance(own, Mapping)):  # reported with all other mistakes
        return [*layers, {"solver": "adam"}]
    autos = [place for place, layer in enumerate(layers) if layer.get("solver") == "auto"]
    above = layers[autos[-1] + 1 :] if autos else layers
    of_adam = list(dict.fromkeys(option for layer in above for option in only_adam(layer, task))) if autos else []
    if values["solver"] == "auto":
        solver = "adam" if of_adam or not task.linear or values.get("stages") else "exact"
    else:
        solver = values["solver"]
        if solver == "exact":
            refuse_no_exact(values, task, of_adam)
    if solver == "adam":
        refuse_no_adam(values, of_adam)
        return [*layers, {"solver": solver}]
    typed = {key: value for layer in above for key, value in (layer.get(task.name) or {}).items() if key in task.linear}
    one_step = {"steps": 1, "patience": None}  # what estimates count
    return [*layers, {"solver": solver, "training": one_step, task.name: {**task.linear, **typed}}]


def refuse_no_exact(values: Mapping[str, Any], task: Task, of_adam: Sequence[str]) -> None:
    """Refuse solver=exact where there is nothing that it could solve."""
    if not task.linear:
        able = ", ".join(name for name in list_tasks() if load_task(name).linear)
        raise UserError(f"Expected a task with a linear head for solver=exact ({able}), found '{task.name}'. Use solver=adam.")
    found = of_adam or [option for option in only_adam(values, task) if not option.startswith(("training.", "optimizer."))]
    if found:
        raise UserError(
            f"Expected no option of solver=adam beside solver=exact, found {', '.join(found[:4])}. "
            "Leave it out, or use solver=adam."
        )


def refuse_no_adam(values: Mapping[str, Any], of_adam: Sequence[str]) -> None:
    """Refuse options of solver=exact where a head is trained: they would say nothing."""
    given, usual = values.get("exact"), asdict(ExactConfig())
    found = [f"exact.{key}" for key, value in given.items() if value != usual.get(key)] if isinstance(given, Mapping) else []
    if found:
        why = f" (since {', '.join(of_adam[:4])} means that)" if of_adam else ""
        raise UserError(
            f"Expected no option of solver=exact beside solver=adam{why}, found {', '.join(found[:4])}. Leave one of them out."
        )


def only_adam(layer: Mapping[str, Any], task: Task) -> Iterator[str]:
    """Yield the options of a mapping that have a meaning for adam alone."""
    for section, common in (("training", COMMON), ("optimizer", frozenset[str]())):
        options = layer.get(section)
        yield from (f"{section}.{key}" for key in (options if isinstance(options, Mapping) else ()) if key not in common)
    for section in ("upstream", "text_upstream"):
        options = layer.get(section)
        of_section = options if isinstance(options, Mapping) else {}
        if of_section.get("trainable"):
            yield f"{section}.trainable"
        if of_section.get("padding", "exact") != "exact":
            yield f"{section}.padding"
    masks = layer.get("masks")
    if isinstance(masks, Mapping) and any(isinstance(value, int) and value for key, value in masks.items() if "width" not in key):
        yield "masks"
    if layer.get("init_head"):
        yield "init_head"
    own = layer.get(task.name)
    for key, value in (own if isinstance(own, Mapping) else {}).items():
        if key in task.linear and value != task.linear[key] and not (key == "pooling" and value in STATISTICS):
            yield f"{task.name}.{key}"
