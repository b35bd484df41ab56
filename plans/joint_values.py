"""What decides a plan of joint runs: a recipe, the tasks, their corpora, the upstreams, and options above all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from ..core.errors import UserError
from ..core.options import merge, read_yaml
from ..corpus.load import usual_corpus
from ..runs.config.recipes import RECIPES, find_recipe


def joint_values(
    recipe: str | None,
    tasks: Sequence[str],
    upstreams: Mapping[str, Mapping[str, Any]],
    typed: Sequence[Mapping[str, Any]],
    *,
    data: Mapping[str, str],
    demo: bool,
) -> dict[str, Any]:
    """Return a plan's recipe: the one that is named (of a demo its own), with the upstreams by section, the options and corpora.

    No tasks: those of the recipe. What is None in the section of an upstream was not given.
    """
    recipe = recipe or ("mtl/demo" if demo and (RECIPES / "mtl" / "demo.yaml").is_file() else None)
    values: dict[str, Any] = read_yaml(find_recipe(recipe)) if recipe else {}
    sections = values.get("tasks") or {}
    if isinstance(sections, list):  # of names
        sections = {str(name): {} for name in sections}
    if not isinstance(sections, dict) or any(not isinstance(section or {}, dict) for section in sections.values()):
        raise UserError("Expected a mapping 'tasks' of names and options in the recipe, found another. Write `tasks: {ks: {}}`.")
    names = [*tasks] or list(sections)
    values["tasks"] = {name: dict(sections.get(name) or {}) for name in names}
    for key, section in upstreams.items():
        given = {name: value for name, value in section.items() if value is not None}
        if given or key == "upstream":
            values[key] = {**section_in(values, key), **given}
    values["upstream"] = {"trainable": True, **values["upstream"]} if values.get("upstream") else {}
    for over in typed:
        values = merge(values, over)
    for name in (name for name in section_in(values, "tasks") if names and name not in names):
        raise UserError(f"Expected a task of the plan in -o tasks.{name}, found another. They are {', '.join(names)}.")
    if not any(section_in(values, key).get("name") for key in ("upstream", "text_upstream")):
        raise UserError("Expected an upstream, found none. Add `-u hubert`, or a name of `headwater list upstreams`.")
    return with_corpora(values, data, demo=demo)


def section_in(values: Mapping[str, Any], key: str, place: str = "") -> dict[str, Any]:
    """Return a section of the recipe; one that is left out is empty."""
    section = values.get(key) or {}
    if not isinstance(section, dict):
        raise UserError(
            f"Expected a mapping at '{place}{key}', found {section!r}. Write `key: value` lines below it, or leave it out."
        )
    return section


def with_corpora(values: dict[str, Any], data: Mapping[str, str], *, demo: bool) -> dict[str, Any]:
    """Return the values with the places of corpora, and their miniatures with --demo."""
    used = set()
    for name in values["tasks"]:
        section = section_in(values["tasks"], name, "tasks.")
        task = str(section.get("task", name))
        corpus = dict(section_in(section, "corpus", f"tasks.{name}."))
        usual = corpus.get("name") or usual_corpus(task)
        if demo:
            corpus["demo"] = True
        for key in (key for key in (name, usual) if key in data):
            corpus["data"] = data[key]
            used.add(key)
        values["tasks"][name] = {**section, "corpus": corpus}
    for key in data.keys() - used:
        raise UserError(
            f"Expected a corpus or a task of the plan in --data, found '{key}'. The tasks are {', '.join(values['tasks'])}."
        )
    return values


def without_idle_cosines(values: dict[str, Any], typed: Sequence[Mapping[str, Any]], scenario: str) -> dict[str, Any]:
    """Return the values without the cosines that the demo's own recipe logs, where the tasks share no weight to compare."""
    over: Mapping[str, Any] = reduce(merge, typed, {})
    trains = any(section_in(values, key).get("trainable") for key in ("upstream", "text_upstream"))
    shards = section_in(values, "training").get("shard")  # where no process has a gradient as a whole
    apart = scenario == "adapters" or values.get("own_adapters")  # each task trains weights of its own
    if (trains and not shards and not apart) or values.get("shared_weights") or "cosines_every" in section_in(over, "balance"):
        return values
    return {**values, "balance": {key: value for key, value in section_in(values, "balance").items() if key != "cosines_every"}}
