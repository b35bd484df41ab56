"""What only a run of several tasks needs before it starts: how they share weights and steps."""

from __future__ import annotations

import re

from ..core.errors import UserError
from ..training.balance import Balancer
from ..training.model import Model
from ..training.step import shared_weights
from .config.schema import RunConfig


def message_of(config: RunConfig, name: str, problem: UserError) -> str:
    """Return what is wrong with one task; of several, with its name and options as they are typed there."""
    if not config.is_joint:
        return str(problem)
    task = config.tasks[name].task
    words = re.sub(rf"-o ({task}|labels|corpus)\.", rf"-o tasks.{name}.\1.", str(problem))
    return f"{name}: " + words.replace("training.batch_size", f"tasks.{name}.batch_size")


def refuse_nothing_shared(config: RunConfig, balancer: Balancer, *, shares: bool) -> None:
    """Refuse to balance gradients where the tasks share no weight or no step: nothing of theirs can be in conflict."""
    wants = balancer.needs != "losses" or config.balance.cosines_every
    option = f"--balance {config.balance.method}" if balancer.needs != "losses" else "balance.cosines_every"
    if balancer.needs != "losses" and config.sampling.mode != "all":
        raise UserError(
            f"Expected all tasks in every step for {option}, found sampling {config.sampling.mode}: one task's gradient has "
            "nothing to meet. Use --sampling all, or --balance fixed, uncertainty or dwa."
        )
    if wants and not shares:
        found = "an adapter" if config.own_adapters else "a frozen upstream"
        advice = "Leave own_adapters out" if config.own_adapters else "Set -o upstream.trainable=true"
        raise UserError(
            f"Expected weights that the tasks share for {option}, found {found} and a weighted sum for each task: "
            f"their gradients never meet. {advice}, add --shared-weights, or leave it out."
        )


def balance_text(config: RunConfig, model: Model, balancer: Balancer) -> str:
    """Return how the tasks share the steps of a run, and the memory that their gradients add."""
    shared = sum(weight.numel() for weight in shared_weights(model))
    rows = len(config.tasks) if balancer.needs == "rows" or config.balance.cosines_every else 0
    extra = rows * shared * 4 if rows else 2 * shared * 4 * (balancer.needs == "norms")
    memory = f" (adds {extra / 1e9:.2f} GB for gradients)" if extra else ""
    return f"; sampling {config.sampling.mode}, balance {config.balance.method}{memory}"
