"""The multi-task paper's scenarios as one plan: single tasks, all of them, all but one, and the transfer to the one left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import UserError, nearest
from ..core.options import merge, read_yaml
from ..runs.config.recipes import demo_recipe, find_recipe, task_default
from ..runs.config.resolve import resolve, resolve_mtl
from ..runs.config.schema import MtlConfig, section_of
from ..runs.joint import refuse_nothing_shared
from ..training.balance import make_balancer
from .execute import PART, SINGLE, Part

SCENARIOS = ("single", "all", "leave-one-out", "transfer", "paper")
OWN_SECTIONS = ("single", "transfer", "missing", "paper")  # of a recipe: what is no part of the joint run
LEFT_TO_THE_PLAN = ("upstream", "folds", "reference", "seed")  # of a benchmark's recipe
ALL, BUT, MOVED, ALONE = "all", "without-", "transfer-", "single-"


@dataclass(frozen=True)
class Scenario:
    """A plan with its runs by kind."""

    config: MtlConfig
    parts: tuple[Part, ...]
    seeds: tuple[int, ...]
    missing: tuple[str, ...] = ()  # tasks of the paper that there are no experts for

    @property
    def tasks(self) -> list[str]:
        """The tasks, in the order of the recipe."""
        return list(self.config.runs)

    def only(self, names: Sequence[str]) -> list[Part]:
        """Return the parts named (a part, or all parts of a task), with those that they start from."""
        known = {part.name.split("/")[0]: part for part in self.parts}
        chosen: set[str] = set()
        for name in names:
            found = [part for part in self.parts if name in (part.name.split("/")[0], part.name.split("/")[0].partition("-")[2])]
            if not found:
                raise UserError(
                    f"Expected a part of the plan after --only, found '{name}'.{nearest(name, known)} There: {', '.join(known)}."
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
    wants = {"single": scenario in ("single", "paper"), "but": scenario in ("leave-one-out", "transfer", "paper")}
    gain = joint.get("select") == "gain"
    config = resolve_mtl([{**joint, "select": "last"}])
    config = replace(config, select="gain" if gain else "last")  # the same in every scenario, so that they share their parts
    if config.select == "gain" or any(run.init_head == SINGLE for run in config.runs.values()):
        wants["single"] = True
    if wants["but"] and len(config.runs) < 2:
        raise UserError(f"Expected at least two tasks for --scenario {scenario}, found one. Add more to --tasks.")
    # told now, and not after the single-task runs
    shares = config.upstream.trainable or config.shared_weights
    refuse_nothing_shared(config, make_balancer(config.balance, [*config.runs]), shares=shares)
    parts: list[Part] = []
    for seed in seeds:
        seeded = replace(config, seed=seed, tasks={name: replace(run, seed=seed) for name, run in config.runs.items()})
        if wants["single"]:
            parts += [alone(values, seeded, name, seed) for name in seeded.runs]
        if scenario in ("all", "paper"):
            parts.append(together(seeded, ALL, seed, wants["single"]))
        if wants["but"]:
            parts += [together(without(seeded, name), BUT + name, seed, wants["single"]) for name in seeded.runs]
        if scenario in ("transfer", "paper"):
            parts += [moved(values, seeded, name, seed) for name in seeded.runs]
    return Scenario(config, tuple(parts), tuple(seeds), tuple(values.get("missing") or ()))


def together(config: MtlConfig, name: str, seed: int, singles: bool) -> Part:
    """Return a joint run; where there are single-task runs, it starts after them."""
    needs = {PART + task: f"{ALONE}{task}/seed{seed}" for task in config.runs} if singles else {}
    return Part("", seed, 1, config, f"{name}/seed{seed}", needs=needs)


def alone(values: Mapping[str, Any], config: MtlConfig, name: str, seed: int) -> Part:
    """Return a task's own run: a head on the frozen upstream."""
    upstream = {**(values.get("upstream") or {}), "trainable": False}
    return Part("", seed, 1, own_config(values, config, name, seed, upstream, "single"), f"{ALONE}{name}/seed{seed}")


def moved(values: Mapping[str, Any], config: MtlConfig, name: str, seed: int) -> Part:
    """Return a task's head on the frozen upstream that was trained on all other tasks."""
    reference = f"{PART}{BUT}{name}"
    own = own_config(values, config, name, seed, {"name": reference, "trainable": False}, "transfer")
    return Part("", seed, 1, own, f"{MOVED}{name}/seed{seed}", needs={reference: f"{BUT}{name}/seed{seed}"})


def own_config(
    values: Mapping[str, Any], config: MtlConfig, name: str, seed: int, upstream: Mapping[str, Any], section: str
) -> Any:
    """Return a task's config on an upstream of its own: its defaults, the recipe's section of that kind, its own section."""
    run = config.runs[name]
    below = merge(task_default(run.task), demo_recipe(run.task) if run.corpus.demo else {})
    own = {key: value for key, value in section_of(run).items() if key not in ("batch_size", "init_head")}
    kind = dict(values.get(section) or {})
    apart, usual = (kind.pop("tasks", None) or {}).get(name) or {}, kind.pop("recipe", None)
    if usual and not run.corpus.demo:  # `recipe: superb`: each task as that benchmark trains it
        published = read_yaml(find_recipe(f"{usual}/{run.task}"))
        below = merge(below, {key: value for key, value in published.items() if key not in LEFT_TO_THE_PLAN})
    return resolve([below, kind, own, apart, {"upstream": upstream, "seed": seed}])


def without(config: MtlConfig, task: str) -> MtlConfig:
    """Return the run of all tasks but one."""
    return replace(
        config,
        tasks={name: run for name, run in config.runs.items() if name != task},
        baselines={name: value for name, value in config.baselines.items() if name != task},
        balance=replace(config.balance, weights={name: value for name, value in config.balance.weights.items() if name != task}),
    )
