"""How much memory finetuning will take, said before it starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator

from ...training.memory import MemoryPlan, Way, cheaper_ways, memory_plan, way_of
from ...training.model import Model
from ..prepare import RunSetup
from ..runtime import Runtime, print_progress

PLANNED_FROM = 1_000_000  # weights of a model whose memory is planned
Planned = Callable[[Way], MemoryPlan]


def planned_memory(setup: RunSetup, processes: int, device: torch.device) -> tuple[Planned, Way]:
    """Return what plans the memory of a run's steps, however they are made, and how the run makes them."""
    config, tasks = setup.config, [*setup.tasks.values()]

    def planned(way: Way) -> MemoryPlan:
        """Return what a process holds."""
        return memory_plan(setup.model, tasks, config.training, way, config.seed, device)

    return planned, way_of(config.training, config.optimizer.bits, processes)


def show_memory(setup: RunSetup, accelerator: Accelerator, runtime: Runtime) -> None:
    """Print what finetuning will take, before it starts; of a small model nobody wants to know."""
    trained = any(section.trainable for section in setup.model.configs.values())
    large = sum(weight.numel() for weight in setup.model.parameters()) >= PLANNED_FROM
    if runtime.quiet or not (trained and large and accelerator.is_main_process):
        return
    planned, way = planned_memory(setup, accelerator.num_processes, accelerator.device)
    free = torch.cuda.mem_get_info(accelerator.device)[0] if accelerator.device.type == "cuda" else None
    print_progress(runtime, *memory_lines(planned, way, setup.model, free))


def memory_text(setup: RunSetup, processes: int = 1, device: str = "cpu") -> list[str]:
    """Return a table of what finetuning would take as it is set, and in ways that take less."""
    planned, way = planned_memory(setup, processes, torch.device(device))
    return memory_table(planned, way, setup.model)


def memory_lines(planned: Planned, way: Way, model: Model, free: int | None) -> list[str]:
    """Return what a run prints before it starts: what it will take, and where that is more than is free, what would fit."""
    plan = planned(way)
    if plan.activations is None:
        parts = f"{gigabytes(plan.total)} and activations, which could not be counted"
    else:
        parts = f"about {gigabytes(plan.total)} a process at most"
    sizes = {"weights": plan.weights, "gradients": plan.gradients, "optimizer": plan.states, "activations": plan.activations}
    listed = ", ".join(f"{name} {gigabytes(size)}" for name, size in sizes.items() if size is not None)
    lines = [f"memory    {parts}: {listed} ({plan.piece})"]
    if free is None or plan.total <= free:
        return lines
    fitting = [other for other in map(planned, cheaper_ways(way, model)) if other.total <= free]
    named = "; ".join(f"{other.way.name} ({gigabytes(other.total)})" for other in fitting[:4])
    advice = f"Would fit: {named}" if fitting else "Nothing that we know of would fit: lower training.piece_seconds"
    return [*lines, f"note      {gigabytes(free)} are free on the device: that is too little. {advice}"]


def memory_table(planned: Planned, way: Way, model: Model) -> list[str]:
    """Return a table of what the run would take as it is set, and in ways that take less."""
    plans = [planned(each) for each in (way, *cheaper_ways(way, model))]
    width = max(len(plan.way.name) for plan in plans)
    heads = ("weights", "gradients", "optimizer", "activations", "at most")
    lines = [f"{'memory of a process':<{width}}" + "".join(f"{head:>13}" for head in heads)]
    for plan in plans:
        sizes = (plan.weights, plan.gradients, plan.states, plan.activations, plan.total)
        cells = "".join(f"{'unknown' if size is None else gigabytes(size):>13}" for size in sizes)
        lines.append(f"{plan.way.name:<{width}}{cells}")
    return [*lines, f"The largest piece: {plans[0].piece}."]


def gigabytes(size: float) -> str:
    """Return a size for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
