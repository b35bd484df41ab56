"""How much memory finetuning will take, said before it starts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from accelerate import Accelerator

from ...training.memory import MemoryPlan, Way, memory_lines, memory_plan, memory_table, way_of
from ..prepare import RunSetup
from ..runtime import Runtime, print_progress

PLANNED_FROM = 1_000_000  # weights of a model whose memory is planned


def planned_memory(setup: RunSetup, processes: int, device: torch.device) -> tuple[Callable[[Way], MemoryPlan], Way]:
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
