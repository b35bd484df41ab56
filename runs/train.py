"""Train a run from Python: what `headwater downstream` does for one run, or for several tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.options import merge
from ..plugins.code import is_path, use
from ..plugins.registry import Kind
from .config.recipes import demo_recipe, task_default
from .config.resolve import resolve
from .run import run
from .runtime import Runtime


def train(
    task: str | Sequence[str],
    upstream: str | None = None,
    *,
    folder: str | Path,
    text_upstream: str | None = None,
    corpus: str = "",
    data: str | Path | None = None,
    demo: bool = False,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    quiet: bool = True,
) -> dict[str, Any]:
    """Train a task (or several together) on an upstream, and return the run's result; the run lies in `folder`.

    The same call resumes a run that was stopped, and returns the result of one that is finished. `options` are those of a
    recipe, nested or by their full names.

    >>> train("emotion", "fbank", demo=True, folder="demo", options={"training.steps": 200})["scores"]  # doctest: +SKIP
    """
    names = [named(word, "task") for word in ([task] if isinstance(task, str) else task)]
    if not names:
        raise UserError("Expected the name of a task, found none. For instance: headwater.train('emotion', 'fbank', …)")
    sections = {"upstream": upstream, "text_upstream": text_upstream}
    shared = {key: {"name": named(word, "upstream")} for key, word in sections.items() if word}
    source = {"name": named(corpus, "corpus"), "data": None if data is None else str(data), "demo": demo}
    typed: dict[str, Any] = reduce(merge, [nested(key, value) for key, value in (options or {}).items()], {})
    if len(names) > 1:
        layers = [{**shared, "tasks": {name: {"corpus": source} for name in names}}]
    else:
        below = [task_default(names[0]), demo_recipe(names[0])] if demo else [task_default(names[0])]
        layers = [*below, {**shared, "task": names[0], "corpus": source}]
    return run(resolve([*layers, typed]), Path(folder), Runtime(device, quiet))


def named(word: str, kind: Kind) -> str:
    """Return a name; the code at a path is executed, since who calls typed it."""
    return use(word, kind).name if is_path(word, kind) else word


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return `training.steps` and its value as nested mappings."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
