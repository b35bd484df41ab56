"""What of a run is kept on disk while it trains: weights, optimizer, balancer, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors, save_tensors
from ..training.balance import Balancer
from ..training.eight_bits import eight_bit_adam, packed, unpacked
from ..training.model import Model
from ..training.parts import as_part, whole
from ..training.step import Progress
from .config.schema import RunConfig
from .prepare import RunSetup

OPTIMIZER, BALANCER = "optimizer.", "balancer."  # before their tensors' names in a checkpoint


def make_optimizer(model: Model, config: RunConfig, balancer: Balancer) -> torch.optim.Optimizer:
    """Return the optimizer over the model's groups, and the weights that a balancer trains."""
    groups = model.parameter_groups(config.optimizer)
    weights = [*balancer.parameters()]
    if weights:
        groups.append({"params": weights, "lr": config.balance.rate, "base_lr": config.balance.rate})
    if config.optimizer.bits == 8:
        return eight_bit_adam(groups, config.optimizer)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer.name]
    return kind(groups, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay, fused=True)


def resume(folder: Path, setup: RunSetup, optimizer: torch.optim.Optimizer) -> Progress:
    """Return where the run stands, weights, optimizer and balancer put back; a new run stands at the start."""
    run = RunFolder(folder)
    path = run.last
    if not path.is_file():
        return Progress()
    tensors, facts = load_tensors(path)
    progress = Progress(**facts["progress"])
    if progress.best_step and not run.best.is_file():  # somebody took away a damaged one
        return Progress()
    setup.model.load_trained_state(weights_in(tensors), str(path))
    load_optimizer(optimizer, {key: value for key, value in tensors.items() if key.startswith(OPTIMIZER)})
    own = {key.removeprefix(BALANCER): value for key, value in tensors.items() if key.startswith(BALANCER)}
    setup.balancer.load_state_dict(own)
    return progress


def load_weights(model: Model, path: Path) -> None:
    """Put a checkpoint's weights into the model."""
    model.load_trained_state(weights_in(load_tensors(path)[0]), str(path))


def weights_in(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a checkpoint's weights, without what optimizer and balancer remember."""
    return {key: value for key, value in tensors.items() if not key.startswith((OPTIMIZER, BALANCER))}


def save(path: Path, setup: RunSetup, progress: Progress, accelerator: Accelerator) -> None:
    """Write the trained weights."""
    tensors = whole(setup.model.trained_state(), keeps=accelerator.is_main_process)
    if accelerator.is_main_process:
        save_tensors(path, tensors, facts_of(setup, progress))


def save_last(
    folder: Path, setup: RunSetup, optimizer: torch.optim.Optimizer, progress: Progress, accelerator: Accelerator
) -> None:
    """Write weights, optimizer and balancer, from which the run resumes after any kill."""
    own = {**setup.model.trained_state(), **optimizer_tensors(optimizer)}
    tensors = whole(own, keeps=accelerator.is_main_process)
    if accelerator.is_main_process:
        tensors |= {BALANCER + key: value for key, value in setup.balancer.state_dict().items()}
        save_tensors(RunFolder(folder).last, tensors, facts_of(setup, progress))


def facts_of(setup: RunSetup, progress: Progress) -> dict[str, Any]:
    """Return what a checkpoint says beside its weights."""
    return {"progress": asdict(progress), "identity": setup.identity, "marks": list(setup.marks)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as flat tensors: `optimizer.<parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{name}": value for index, row in state.items() for name, value in packed(row)}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back what `optimizer_tensors` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for key, value in tensors.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = as_part(value, weights[int(index)])
    whole_states = {index: unpacked(row) for index, row in state.items()}
    optimizer.load_state_dict({"state": whole_states, "param_groups": optimizer.state_dict()["param_groups"]})
