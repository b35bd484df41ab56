"""What of a run is kept on disk while it trains: weights, optimizer, balancer, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors, save_tensors
from ..training.balance import Balancer
from ..training.model import Model
from ..training.step import Progress
from . import state as checkpoint
from .config.schema import MtlConfig, RunConfig

BALANCER = "balancer."  # of what a balancer remembers, in a checkpoint


def make_optimizer(model: Model, config: RunConfig | MtlConfig, balancer: Balancer | None = None) -> torch.optim.Optimizer:
    """Return the optimizer over the model's groups, and what a balancer learns."""
    groups = model.parameter_groups(config.optimizer)
    learnt = [] if balancer is None else [*balancer.parameters()]
    if learnt and isinstance(config, MtlConfig):
        groups.append({"params": learnt, "lr": config.balance.rate, "base_lr": config.balance.rate})
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer.name]
    return kind(groups, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay, fused=True)


class Trainable(Protocol):
    """What is saved and resumed of a run: its weights, and what it is."""

    @property
    def model(self) -> Model:
        """The weights."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes the run this one."""
        ...

    @property
    def marks(self) -> tuple[str, ...]:
        """DEMO, UNTRAINED."""
        ...


def resume(folder: Path, prepared: Trainable, optimizer: torch.optim.Optimizer, balancer: Balancer | None = None) -> Progress:
    """Return where the run stands, weights, optimizer and balancer put back; a new run stands at the start."""
    run = RunFolder(folder)
    path = run.last
    if not path.is_file():
        return Progress()
    tensors, facts = load_tensors(path)
    progress = Progress(**facts["progress"])
    if progress.best_step and not run.best.is_file():  # somebody took away a damaged one
        return Progress()
    state = {key: value for key, value in tensors.items() if not key.startswith(("optimizer.", BALANCER))}
    prepared.model.load_trained_state(state, str(path))
    checkpoint.load_optimizer(optimizer, {key: value for key, value in tensors.items() if key.startswith("optimizer.")})
    if balancer is not None:
        balancer.load_state_dict(
            {key.removeprefix(BALANCER): value for key, value in tensors.items() if key.startswith(BALANCER)}
        )
    return progress


def save(path: Path, prepared: Trainable, progress: Progress, accelerator: Accelerator) -> None:
    """Write the trained weights."""
    if accelerator.is_main_process:
        facts = {"progress": asdict(progress), "identity": prepared.identity, "marks": list(prepared.marks)}
        save_tensors(path, prepared.model.trained_state(), facts)


def save_last(
    folder: Path,
    prepared: Trainable,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    accelerator: Accelerator,
    balancer: Balancer | None = None,
) -> None:
    """Write weights, optimizer and balancer, from which the run goes on after any kill."""
    if accelerator.is_main_process:
        remembered = {} if balancer is None else {BALANCER + key: value for key, value in balancer.state_dict().items()}
        tensors = {**prepared.model.trained_state(), **checkpoint.optimizer_tensors(optimizer), **remembered}
        facts = {"progress": asdict(progress), "identity": prepared.identity, "marks": list(prepared.marks)}
        save_tensors(RunFolder(folder).last, tensors, facts)


def load_best(folder: Path, prepared: Trainable) -> None:
    """Put the best step's weights into the model."""
    path = RunFolder(folder).best
    tensors, _ = load_tensors(path)
    prepared.model.load_trained_state(tensors, str(path))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as flat tensors: `optimizer.<parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{name}": torch.as_tensor(value) for index, row in state.items() for name, value in row.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back what `optimizer_tensors` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
