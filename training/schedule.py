"""The learning rate as a function of the step."""

from __future__ import annotations

import math

import torch

from .config import OptimizerConfig


def set_rates(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, steps: int) -> float:
    """Set each group's learning rate, a function of the step, and return the factor."""
    factor = rate_factor(config, step, steps)
    for group in optimizer.param_groups:
        rate = group["base_lr"] * factor
        group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], torch.Tensor) else rate  # torchao's is one tensor
    return factor


def rate_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return warm-up and decay at a step: linear up over `warmup_steps`, then as the schedule says."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    end = config.schedule_steps or steps
    way = (step - config.warmup_steps) / max(1, end - config.warmup_steps)
    return {"constant": 1.0, "linear": 1.0 - way, "cosine": 0.5 * (1.0 + math.cos(math.pi * way))}[config.schedule]
