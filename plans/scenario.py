"""The multi-task paper's scenarios as one plan: single tasks, all of them, all but one, and the transfer to the one left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import UserError, nearest
from ..core.options import merge, read_yaml
from ..downstream.base import takes_teacher
from ..plugins.registry import SECTIONS
from ..runs.config.recipes import demo_recipe, find_recipe, task_default
from ..runs.config.resolve import SELECTS, resolve
from ..runs.config.schema import RunConfig, roles_of, section_of
from ..runs.joint import refuse_nothing_shared
from ..training.balance import make_balancer
from ..training.sharding import refuse_unshardable, refuse_whole_gradients
from ..upstream.adapters import WITHOUT, frozen_section, mistakes
from ..upstream.base import TEACHER, UpstreamConfig
from .execute import PART, SINGLE, Part

SCENARIOS = ("single", "all", "adapters", "leave-one-out", "relations", "transfer", "paper")
OWN_SECTIONS = ("single", "transfer", "missing", "departures", "paper")  # of a recipe: what is no part of the joint run
LEFT_TO_THE_PLAN = ("corpus", "labels", "folds", "reference", "seed")  # of a benchmark's recipe
WHICH = ("name", "path", "trainable")  # of an upstream: no benchmark chooses these
# of an upstream that is finetuned in the joint run: nothing to a benchmark's frozen one
OF_FINETUNING = ("front_end", "front_end_gradient", "layerdrop", "dropout", "dropout_of", "spec_augment")
ALL, ADAPTERS, BUT, MOVED, ALONE = "all", "adapters", "without-", "transfer-", "single-"


@dataclass(frozen=True)
class Scenario:
    """A plan with its runs by kind."""

    config: RunConfig
    parts: tuple[Part, ...]
    seeds: tuple[int, ...]
    missing: tuple[str, ...] = ()  # tasks of the paper that there are no experts for
    departures: tuple[str, ...] = ()  # from the paper, said under the table

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the recipe."""
        return list(self.config.tasks)

    def only(self, names: Sequence[str]) -> list[Part]:
        """Return the runs of the parts named, with those that they start from; all where none is named."""
        known = {part.name.split("/")[0]: part for part in self.parts}
        chosen: set[str] = set()
        for name in names:
            found = [part for part in self.parts if name == part.name.split("/")[0]]
            if not found:
                there = [*self.tasks, *known]
                raise UserError(
                    f"Expected tasks or parts of the plan after --only, found '{name}'.{nearest(name, there)} "
                    f"There: {', '.join(there)}."
                )
            chosen |= {part.name for part in found}
        while grown := {need for part in self.parts if part.name in chosen for need in part.needs.values()} - chosen:
            chosen |= grown
        return [part for part in self.parts if part.name in chosen] if names else list(self.parts)


def plan_scenario(values: Mapping[str, Any], scenario: str, seeds: Sequence[int]) -> Scenario:
    """Return the runs of a scenario in order, each after those that it starts from."""
    if scenario not in SCENARIOS:
        raise UserError(f"Expected --scenario {', '.join(SCENARIOS)}, found '{scenario}'.{nearest(scenario, SCENARIOS)}")
    joint = {key: value for key, value in values.items() if key not in OWN_SECTIONS}
    missing = scenario in ("leave-one-out", "relations", "transfer", "paper")
    wants = {"single": scenario in ("single", "adapters", "paper"), "but": missing}
    if joint.get("select", "last") not in SELECTS:
        raise UserError(f"Expected 'select' to be one of {', '.join(SELECTS)}, found {joint['select']!r}.")
    gain = joint.get("select") == "gain"
    refuse_plans(joint)
    config = resolve([{"tasks": {}, **joint, "select": "last"}])
    config = replace(config, select="gain" if gain else "last")  # the same in every scenario, so that they share their parts
    if config.select == "gain" or any(run.init_head == SINGLE for run in config.tasks.values()):
        wants["single"] = True
    if wants["but"] and len(config.tasks) < 2:
        raise UserError(f"Expected at least two tasks for --scenario {scenario}, found one. Add more to --tasks or --only.")
    refuse_final(config, scenario, seeds)
    if config.own_adapters and scenario in ("transfer", "paper"):
        raise UserError(
            f"Expected an upstream that the tasks share for --scenario {scenario}, whose transfers start from it, found "
            "own_adapters. Leave it out, or use --scenario adapters."
        )
    # reported now, and not after the single-task runs
    of_all = with_own_adapters(config) if scenario == "adapters" else config
    balancer = make_balancer(config.balance, [*config.tasks])
    refuse_nothing_shared(of_all, balancer, shares=shares_weights(of_all))
    if config.training.shard and scenario != "single":
        refuse_unshardable(of_all.training, roles_of(of_all), of_all.own_adapters)
        refuse_whole_gradients(balancer, of_all.balance.cosines_every)
    parts: list[Part] = []
    for seed in seeds:
        seeded = replace(config, seed=seed)
        if wants["single"]:
            parts += [alone(values, seeded, name, seed) for name in supervised(seeded)]
        if scenario in ("all", "relations", "paper"):
            parts.append(together(seeded, ALL, seed, wants["single"]))
        if scenario == "adapters":
            parts.append(together(with_own_adapters(seeded), ADAPTERS, seed, wants["single"]))
        if wants["but"]:
            parts += [together(without(seeded, name), BUT + name, seed, wants["single"]) for name in seeded.tasks]
        if scenario in ("transfer", "paper"):
            parts += [moved(values, seeded, name, seed) for name in supervised(seeded)]
    return Scenario(config, tuple(parts), tuple(seeds), tuple(values.get("missing") or ()), tuple(values.get("departures") or ()))


def shares_weights(config: RunConfig) -> bool:
    """Return whether the tasks of a joint run train any weight together."""
    trained = [section for section in roles_of(config).values() if section.trainable]
    own = config.own_adapters and all(section.adapter != WITHOUT for section in trained)
    return config.shared_weights or bool(trained and not own)


def with_own_adapters(config: RunConfig) -> RunConfig:
    """Return a joint run with an adapter for each task, LoRA where the recipe names none, over frozen upstreams."""
    sections = {SECTIONS[role]: section for role, section in roles_of(config).items() if role != TEACHER and section.trainable}
    sections = sections or {SECTIONS[role]: section for role, section in roles_of(config).items() if role == "audio"}
    kinds = {key: section.adapter if section.adapter != WITHOUT else "lora" for key, section in sections.items()}
    changed: dict[str, Any] = {key: replace(section, trainable=True, adapter=kinds[key]) for key, section in sections.items()}
    if wrong := [line for key, section in changed.items() for line in mistakes(section, key)]:
        raise UserError("\n".join(wrong))
    return replace(config, own_adapters=True, **changed)


def supervised(config: RunConfig) -> list[str]:
    """Return the tasks with labels: what a teacher gives has nothing to train on a frozen upstream."""
    return [name for name, task in config.tasks.items() if not takes_teacher(task.expert)]


def refuse_plans(recipe: Mapping[str, Any]) -> None:
    """Refuse what makes other runs of a recipe than a scenario's."""
    for key in (key for key in ("stages", "folds") if recipe.get(key)):
        raise UserError(
            f"Expected no '{key}' beside a scenario, found some in the recipe. Leave them out, or run the recipe as it is: "
            "headwater downstream -c RECIPE"
        )


def refuse_final(config: RunConfig, scenario: str, seeds: Sequence[int]) -> None:
    """Refuse a final model as a plan of several runs."""
    several = {f"--scenario {scenario}": scenario != "all", "--select gain": config.select == "gain"}
    for found in [name for name, wrong in {**several, f"{len(seeds)} seeds": len(seeds) > 1}.items() if wrong and config.split]:
        raise UserError(
            f"Expected one run with split=all, since nothing is held out that could choose between several, found {found}. "
            "Leave it out."
        )


def together(config: RunConfig, name: str, seed: int, singles: bool) -> Part:
    """Return a joint run; where there are single-task runs, it starts after them."""
    needs = {PART + task: f"{ALONE}{task}/seed{seed}" for task in supervised(config)} if singles else {}
    return Part("", seed, 1, config, f"{name}/seed{seed}", needs=needs)


def alone(values: Mapping[str, Any], config: RunConfig, name: str, seed: int) -> Part:
    """Return a task's own run: a head on frozen upstreams."""
    used = [SECTIONS[role] for role in roles_of(config, config.tasks[name])]
    frozen = {key: frozen_section(values.get(key) or {}) for key in used}
    return Part("", seed, 1, own_config(values, config, name, seed, frozen, "single"), f"{ALONE}{name}/seed{seed}")


def moved(values: Mapping[str, Any], config: RunConfig, name: str, seed: int) -> Part:
    """Return a task's head on the frozen upstreams that were trained on all other tasks."""
    reference, others = f"{PART}{BUT}{name}", roles_of(without(config, name))
    frozen = {
        SECTIONS[role]: {"name": reference} if role in others else values.get(SECTIONS[role]) or {}
        for role in roles_of(config, config.tasks[name])
    }
    frozen = {key: frozen_section(section) for key, section in frozen.items()}
    own = own_config(values, config, name, seed, frozen, "transfer")
    return Part("", seed, 1, own, f"{MOVED}{name}/seed{seed}", needs={reference: f"{BUT}{name}/seed{seed}"})


def own_config(
    values: Mapping[str, Any], config: RunConfig, name: str, seed: int, upstreams: Mapping[str, Any], section: str
) -> RunConfig:
    """Return a task's config on upstreams of its own: its defaults, the recipe's section of that kind, its own section.

    With `recipe: superb` it is that benchmark's experiment on this corpus: what the benchmark says of head, padding and metric
    stands above the task's own section, and what the section of that kind says above both.
    """
    run = config.tasks[name]
    below = merge(task_default(run.task), demo_recipe(run.task) if run.corpus.demo else {}) | {"solver": "adam"}
    own = {"task": run.task} | {key: value for key, value in section_of(run).items() if key not in ("roles", "init_head")}
    kind = dict(values.get(section) or {})
    apart, usual = (kind.pop("tasks", None) or {}).get(name) or {}, kind.pop("recipe", None)
    if not usual or run.corpus.demo:
        return resolve([below, kind, own, apart, {**upstreams, "seed": seed}])
    recipe = read_yaml(find_recipe(f"{usual}/{run.task}"))
    published = without_keys(recipe, LEFT_TO_THE_PLAN)
    frozen = {role: without_keys(section, OF_FINETUNING) for role, section in upstreams.items()}
    which = {role: {key: section[key] for key in WHICH if key in section} for role, section in upstreams.items()}
    return resolve([below, frozen, own, published, kind, apart, {**which, "seed": seed}])


def without_keys(section: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a section without some of its options."""
    return {key: value for key, value in section.items() if key not in keys}


def without(config: RunConfig, task: str) -> RunConfig:
    """Return the run of all tasks but one, without an upstream that only this one used."""
    tasks = {name: section for name, section in config.tasks.items() if name != task}
    used = {role for section in tasks.values() for role in roles_of(config, section)}
    return replace(
        config,
        tasks=tasks,
        upstream=config.upstream if "audio" in used else UpstreamConfig(),
        text_upstream=config.text_upstream if "text" in used else UpstreamConfig(),
        teacher=config.teacher if TEACHER in used else UpstreamConfig(),
        baselines={name: value for name, value in config.baselines.items() if name != task},
        balance=replace(config.balance, weights={name: value for name, value in config.balance.weights.items() if name != task}),
    )
