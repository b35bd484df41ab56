"""A paper's recipe as runs: each part over its folds and seeds, those that others start from first."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ..core.errors import UserError, nearest
from ..core.options import bind, merge, plain, read_yaml
from ..corpus.load import get_reader
from ..runs.config.recipes import find_recipe, task_default
from ..runs.config.resolve import resolve
from ..runs.config.schema import RECIPE_WORDS, RunConfig, roles_of, to_mapping
from ..upstream.load import find_upstream
from .execute import PART, ROLES, STAGE, Part, named_runs, with_differences
from .grid import all_folds, expand
from .recipe import Recipe, Scope, check_recipe

PLACE = r"\{([^{}]+)\}"  # in a caption: the option of a part


@dataclass(frozen=True)
class CommandOptions:
    """The options of a recipe's parts on the command line."""

    data: Mapping[str, str] = field(default_factory=dict)  # a corpus' word -> where it lies
    overrides: Sequence[Mapping[str, Any]] = ()  # options of every part, or of those whose name or pattern is the first key
    weights: Mapping[str, str] = field(default_factory=dict)  # an upstream's name -> the folder of its weights


@dataclass(frozen=True)
class PaperPlan:
    """A recipe that can start: each part's config and runs, those that others start from first."""

    recipe: Recipe
    configs: Mapping[str, RunConfig]
    runs: Mapping[str, Sequence[Part]]
    corpus_names: Mapping[str, str]  # part -> what --data calls its corpus

    def reported(self, name: str) -> list[Part]:
        """Return the runs that speak for a part: of stages the last."""
        return [run for run in self.runs[name] if run.stage == self.runs[name][-1].stage]

    def filled(self, text: str) -> str:
        """Return a caption with what its parts' options are in place of `{PART.key}`."""
        return re.sub(PLACE, lambda match: " and ".join(values_of(match[1], self.configs)), text)

    def only(self, names: Sequence[str]) -> list[str]:
        """Return the parts named with those that they start from, in order; all where none is named."""
        unknown = [name for name in names if name not in self.runs]
        if unknown:
            known = ", ".join(self.runs)
            raise UserError(
                f"Expected parts of the recipe, found '{unknown[0]}'.{nearest(unknown[0], self.runs)} Known: {known}."
            )
        wanted = {*(names or self.runs)}
        for name in reversed([*self.runs]):
            if name in wanted:
                wanted |= {*parts_before(self.runs[name])}
        return [name for name in self.runs if name in wanted]


def plan_recipe(mapping: Mapping[str, Any], given: CommandOptions | None = None) -> PaperPlan:
    """Return every run of a recipe; all mistakes in it come together, before anything is loaded."""
    errors: list[str] = []
    recipe, given = bind(Recipe, mapping, "", errors), given or CommandOptions()
    if not recipe.parts and not errors:
        errors.append("Expected parts in a paper's recipe, found none. Write `parts: {name: {…}}`.")
    configs: dict[str, RunConfig] = {}
    runs: dict[str, list[Part]] = {}
    corpus_names: dict[str, str] = {}
    messages: dict[str, list[str]] = {}  # what is wrong with base is wrong in every part: it is reported once
    for name, differences in recipe.parts.items():
        try:
            configs[name], runs[name], corpus_names[name] = planned(recipe, name, differences, given)
        except UserError as problem:
            for line in str(problem).splitlines():
                messages.setdefault(line, []).append(name)
    for line, names in messages.items():
        errors.append(f"{line} ({'every part' if len(names) == len(recipe.parts) > 1 else 'part ' + ', '.join(names)})")
    if given.overrides and messages and all(len(names) < len(recipe.parts) for names in messages.values()):
        errors.append("Options of some parts alone are given as -o PART.key=value, or 'PATTERN*.key=value'.")
    if not messages:
        refuse_unused(given, configs, corpus_names, errors)
    runs = linked(runs, recipe.parts, errors)
    check_recipe(recipe, configs, errors)
    if not errors:
        check_captions(recipe, configs, errors)
    if errors:
        raise UserError("\n".join(dict.fromkeys(errors)))
    return PaperPlan(recipe, configs, runs, corpus_names)


def refuse_unused(given: CommandOptions, configs: Mapping[str, RunConfig], words: Mapping[str, str], errors: list[str]) -> None:
    """Add an error for a corpus or weights that no part uses."""
    names = {section.name for config in configs.values() for section in roles_of(config).values()}
    upstreams = {name for name in names if not name.startswith((PART, STAGE))}
    kinds = (("--data for a corpus", given.data, {*words.values()}), ("--weights for an upstream", given.weights, upstreams))
    for flag, typed, known in kinds:
        unknown = next((word for word in typed if word not in known), None)
        if unknown is not None:
            there = ", ".join(sorted(known))
            errors.append(f"Expected {flag} of the recipe ({there}), found '{unknown}'.{nearest(unknown, known)}")
    for name, place in given.weights.items():
        if not Path(place).expanduser().is_dir():
            errors.append(f"Expected a folder with weights after --weights {name}=, found none at '{place}'. Check the path.")
    for word in (word for word in given.data if any(configs[part].only.corpus.demo for part in words if words[part] == word)):
        errors.append(f"Expected no --data for '{word}' (the part uses a miniature), found '{given.data[word]}'. Leave it out.")


def planned(
    recipe: Recipe, name: str, differences: Mapping[str, Any], given: CommandOptions
) -> tuple[RunConfig, list[Part], str]:
    """Return a part's config, its runs, and the word that --data has for its corpus."""
    errors: list[str] = []
    scope = bind(Scope, differences.get("plan", {}), "plan", errors)
    own = {key: value for key, value in differences.items() if key != "plan"}
    below = read_yaml(find_recipe(scope.recipe)) if scope.recipe else {}
    task = str(own.get("task") or recipe.base.get("task") or below.get("task") or "")
    usual = {**task_default(task), "solver": "adam"} if task else {}
    mapping = with_differences(merge(merge(usual, below), recipe.base), own)
    for override in given.overrides:
        mapping = merge(mapping, of_part(override, name, task, recipe.parts))
    try:
        config = resolve([mapping])
    except UserError as problem:
        raise UserError("\n".join([*errors, str(problem)])) from None
    word = scope.data or config.only.corpus.name
    config = resolve([mapping, located_in(config, word, given)])
    folds = scope.folds if scope.folds is not None else recipe.folds
    folds = all_folds(config) if folds == "all" else folds if folds is not None else config.folds or [config.only.corpus.fold]
    if not (isinstance(folds, list) and folds and all(type(fold) is int for fold in folds)):
        errors.append(f"Expected 'folds' to be `all` or a list of whole numbers, found {folds!r}.")
    if errors:
        raise UserError("\n".join(errors))
    seeds = scope.seeds or recipe.seeds or [config.seed]
    parts = expand(config, folds, seeds, [])
    refuse_strangers(parts)
    return config, named(name, parts, config), word


def located_in(config: RunConfig, word: str, given: CommandOptions) -> dict[str, Any]:
    """Return where a part's corpus and weights lie, as far as the command line says."""
    found: dict[str, Any] = {}
    if word in given.data:
        found["corpus"] = {"name": config.only.corpus.name, "data": given.data[word]}
    for role in ROLES:
        section = getattr(config, role)
        if section.name in given.weights:
            found[role] = {"path": os.path.abspath(os.path.expanduser(given.weights[section.name]))}
    return found


def of_part(override: Mapping[str, Any], name: str, task: str, parts: Collection[str]) -> Mapping[str, Any]:
    """Return what an override is for one part: it is one for every part, or begins with the names that it is for."""
    [(first, value)] = override.items()
    if first == task or first in RECIPE_WORDS:
        return override
    if any(fnmatchcase(part, first) for part in parts):
        if not isinstance(value, Mapping):
            raise UserError(f"Expected `-o {first}.key=value`, found '{first}={value}'. Say which option: {first}.optimizer.lr=…")
        return value if fnmatchcase(name, first) else {}
    if isinstance(value, Mapping) and (nearest(first, parts) or {*first} & {*"*?["}):
        close, known = nearest(first, parts), ", ".join(parts)
        raise UserError(f"Expected parts of the recipe before their option, found '{first}'.{close} Known: {known}.")
    return override


def values_of(place: str, configs: Mapping[str, RunConfig]) -> list[str]:
    """Return the different values of an option in the parts that `PART.key` (or `PATTERN*.key`) names."""
    pattern, _, key = place.partition(".")
    found: dict[str, None] = {}
    for config in (config for name, config in configs.items() if fnmatchcase(name, pattern)):
        value: Any = to_mapping(config)
        for word in key.split("."):
            value = value.get(word) if isinstance(value, Mapping) else None
        if value is not None:
            found[str(value)] = None
    return [*found]


def check_captions(recipe: Recipe, configs: Mapping[str, RunConfig], errors: list[str]) -> None:
    """Add an error for everything in captions that stands for an option which no part has."""
    for kind, shown in (("tables", recipe.tables), ("figures", recipe.figures)):
        for name, caption in ((name, each.caption) for name, each in shown.items()):
            for place in (place for place in re.findall(PLACE, caption) if not values_of(place, configs)):
                where = f"in the caption of {kind}.{name}"
                errors.append(f"Expected an option of a part {where}, found '{{{place}}}'. Write {{PART.key}}.")


def refuse_strangers(parts: Sequence[Part]) -> None:
    """Refuse an upstream that nobody knows, and a run without any; nothing is loaded."""
    sections = [roles_of(part.config).values() for part in parts]
    if not all(sections):
        raise UserError("Expected an upstream, found none. Write `upstream: {name: …}` (or text_upstream).")
    models = {json.dumps(plain(section), sort_keys=True): section for row in sections for section in row}
    errors: list[str] = []
    for section in (section for section in models.values() if not section.name.startswith((STAGE, PART))):
        try:
            find_upstream(section)
        except UserError as problem:
            errors.append(str(problem))
    if errors:
        raise UserError("\n".join(dict.fromkeys(errors)))


def named(name: str, parts: Sequence[Part], config: RunConfig) -> list[Part]:
    """Return a part's runs in folders that stay the same when folds or seeds are added."""
    several = get_reader(config.only.corpus.name).protocols[config.only.corpus.protocol] > 1
    places = {
        part.name: "/".join([name, *[f"fold{part.fold}"] * several, f"seed{part.seed}", *[part.stage] * bool(part.stage)])
        for part in parts
    }
    return [
        replace(part, name=places[part.name], needs={reference: places[needed] for reference, needed in part.needs.items()})
        for part in parts
    ]


def parts_before(runs: Sequence[Part]) -> list[str]:
    """Return the names of the other parts that a part's runs start from."""
    places = dict.fromkeys(place for run in runs for place in named_runs(run.config))
    return [place.removeprefix(PART) for place in places if place.startswith(PART)]


def linked(runs: Mapping[str, Sequence[Part]], known: Collection[str], errors: list[str]) -> dict[str, list[Part]]:
    """Return the runs with the folders of those that they start from, and these first."""
    graph = {name: [start for start in parts_before(of_part) if start in runs] for name, of_part in runs.items()}
    for name, of_part in runs.items():
        for start in (start for start in parts_before(of_part) if start not in known):
            there = ", ".join(known)
            errors.append(f"Part '{name}' starts from '{PART}{start}', which is no part.{nearest(start, known)} Known: {there}.")
    try:
        order = [*TopologicalSorter(graph).static_order()]
    except CycleError as circle:
        errors.append(f"Expected parts that start from others before them, found a circle: {' <- '.join(circle.args[1])}.")
        return {}
    found = {}
    for name in order:
        found[name] = [replace(run, needs={**run.needs, **needs_of(run, runs, errors)}) for run in runs[name]]
    return found


def needs_of(run: Part, runs: Mapping[str, Sequence[Part]], errors: list[str]) -> dict[str, str]:
    """Return the folders of the other parts' runs that a run names: of the same fold and seed where both have them."""
    needs = {}
    for reference in (reference for reference in named_runs(run.config) if reference.startswith(PART)):
        others = runs.get(reference.removeprefix(PART), ())
        last = [other for other in others if other.stage == others[-1].stage]
        fitting = [other for other in last if is_twin(run, other, last)]
        if len(fitting) == 1:
            needs[reference] = fitting[0].name
        elif last:
            there = ", ".join(other.name.partition("/")[2] for other in last[:4])
            errors.append(
                f"Expected the run of '{reference}' for '{run.name}', found {there}. Give both the same folds and seeds."
            )
    return needs


def is_twin(run: Part, other: Part, others: Sequence[Part]) -> bool:
    """Tell whether a run may start from another: on the same corpus only from its own fold, which was not trained on its test."""
    here, there = run.config.only.corpus, other.config.only.corpus
    same_folds = (here.name, here.protocol) == (there.name, there.protocol)
    seed = other.seed == run.seed or len({each.seed for each in others}) == 1
    return seed and (other.fold == run.fold or (not same_folds and len({each.fold for each in others}) == 1))
