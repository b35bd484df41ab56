"""Which tasks a step trains: a function of (seed, step), the same on every process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from ..core.options import ABOVE_0
from .batches import derive_seed


@dataclass(frozen=True)
class SamplingConfig:
    """The `sampling:` section."""

    mode: Literal["all", "round_robin", "proportional", "temperature"] = "all"  # all: every task in every step (the paper)
    temperature: Annotated[float, ABOVE_0] = 2.0  # a task is drawn by (its utterances)^(1 / temperature)


def tasks_of_step(config: SamplingConfig, sizes: Mapping[str, int], seed: int, step: int) -> list[str]:
    """Return the tasks of a step, in the run's order; `sizes` are their training utterances."""
    names = list(sizes)
    if config.mode == "all":
        return names
    if config.mode == "round_robin":
        return [names[step % len(names)]]
    power = 1.0 if config.mode == "proportional" else 1.0 / config.temperature
    weights = torch.tensor([float(size) ** power for size in sizes.values()], dtype=torch.float64)
    generator = torch.Generator().manual_seed(derive_seed(seed, "task", step))
    return [names[int(torch.multinomial(weights, 1, generator=generator))]]


def tasks_of_steps(
    config: SamplingConfig, sizes: Mapping[str, int], seed: int, steps: Iterable[int], drawn: Mapping[str, int]
) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield each step with its tasks, and how often each of them was drawn before; `drawn` says it for the first step."""
    counts = {name: drawn.get(name, 0) for name in sizes}
    for step in steps:
        names = tasks_of_step(config, sizes, seed, step)
        yield step, {name: counts[name] for name in names}
        for name in names:
            counts[name] += 1
