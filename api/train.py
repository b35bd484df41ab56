"""Train from Python: what `headwater downstream` does, for one run, its folds and seeds, or several tasks at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from ..core.errors import UserError
from ..core.options import merge, read_yaml
from ..plans.grid import all_folds, expand, run_plan
from ..plans.naming import place_of_runs
from ..plugins.code import is_path, use
from ..plugins.registry import Kind
from ..runs.config.recipes import demo_recipe, find_recipe, task_default
from ..runs.config.resolve import resolve
from ..runs.config.schema import RunConfig, roles_of
from ..runs.runtime import Runtime
from .progress import shown
from .run import Run


def train(
    task: str | Sequence[str],
    upstream: str | None = None,
    *,
    folder: str | Path | None = None,
    name: str = "",
    text_upstream: str | None = None,
    corpus: str = "",
    data: str | Path | None = None,
    demo: bool = False,
    recipe: str = "",
    folds: Literal["all"] | Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    quiet: bool | None = None,
) -> Run:
    """Train a task (or several together) on an upstream, test it, and return the run.

    It lies in `folder`, or in `result/downstream/NAME`, or where the same command of the shell would put it. The same call
    resumes a run that was stopped, and returns the one that is finished. `folds` (`"all"`, or some) and `seeds` train one run for
    each, and pool their predictions. `options` are those of a recipe, nested or by their full names. Progress is a line that
    changes in a notebook and nothing elsewhere; with `quiet=False` it is printed.

    >>> run = train("emotion", "hubert_mini", demo=True, folds="all")  # doctest: +SKIP
    >>> run.scores  # doctest: +SKIP
    >>> run.predict(["one.wav", "other.wav"])  # doctest: +SKIP
    """
    config = resolve(layers_of(task, upstream, text_upstream, corpus, data, demo, recipe, options or {}))
    if not roles_of(config):
        raise UserError("Expected an upstream, found none. For instance: headwater.train('emotion', 'hubert_mini', …)")
    if folder is not None and name:
        raise UserError("Expected one folder for the run, found both folder and name. Leave one out.")
    parts = expand(config, folds_of(config, folds), [config.seed] if seeds is None else numbers(seeds, "seeds"), [])
    place = place_of_runs(config, parts, name) if folder is None else Path(folder).expanduser()
    with shown(quiet) as is_quiet:
        return Run(place, run_plan(parts, place, Runtime(device, is_quiet)))


def layers_of(
    task: str | Sequence[str],
    upstream: str | None,
    text_upstream: str | None,
    corpus: str,
    data: str | Path | None,
    demo: bool,
    recipe: str,
    options: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return what decides the config, in rising precedence: the task's defaults, the recipe, the arguments, the options."""
    names = [named(word, "task") for word in ([task] if isinstance(task, str) else task)]
    if len({*names}) < len(names):
        raise UserError(f"Expected each task once, found {', '.join(names)}. Leave one out.")
    if not names:
        raise UserError("Expected the name of a task, found none. For instance: headwater.train('emotion', 'fbank', …)")
    sections = {"upstream": upstream, "text_upstream": text_upstream}
    shared = {key: {"name": named(word, "upstream")} for key, word in sections.items() if word}
    source = {"name": named(corpus, "corpus"), "data": None if data is None else str(data), "demo": demo}
    source = {key: value for key, value in source.items() if value or not recipe}  # what is left out is the recipe's
    typed = typed_options(options)
    written = read_yaml(find_recipe(recipe)) if recipe else {}
    if len(names) > 1:
        return [written, {**shared, "tasks": {name: {"corpus": source} for name in names}}, typed]
    below = [task_default(names[0]), *([demo_recipe(names[0])] if demo and not recipe else [])]
    return [*below, written, {**shared, "task": names[0], "corpus": source}, typed]


def folds_of(config: RunConfig, folds: Literal["all"] | Sequence[int] | None) -> Sequence[int | None]:
    """Return the folds that are trained: those that are given, else the recipe's own."""
    if isinstance(folds, str):
        if folds != "all":
            raise UserError(f"Expected folds='all' or numbers as folds=[1, 2], found '{folds}'. Write one of these.")
        return all_folds(config)
    if folds is not None:
        return numbers(folds, "folds")
    return config.folds or [None if config.is_joint else config.only.corpus.fold]


def numbers(values: Any, what: str) -> list[int]:
    """Return folds or seeds as a list of one at least."""
    found = [*values] if isinstance(values, Sequence) and not isinstance(values, str) else []
    if not found or not all(isinstance(value, int) for value in found):
        raise UserError(f"Expected {what}=[1, 2], a list of numbers, found {values!r}. For one: {what}=[1]")
    return found


def typed_options(options: Any) -> dict[str, Any]:
    """Return the options of a call as nested mappings."""
    if not isinstance(options, Mapping):
        raise UserError(f"Expected options={{'training.steps': 200}}, a mapping, found {options!r:.80}. Write it so.")
    return reduce(merge, [nested(key, value) for key, value in options.items()], dict[str, Any]())


def named(word: str, kind: Kind) -> str:
    """Return a name; the code at a path is executed, since who calls typed it."""
    return use(word, kind).name if is_path(word, kind) else word


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return `training.steps` and its value as nested mappings."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
