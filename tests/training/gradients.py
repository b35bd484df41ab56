"""A script for test_pieces: writes the gradient of one step to a file; run alone or by torchrun."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from headwater.commands.common.shell import leave_launch
from headwater.core.options import read_yaml
from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.runs.state import make_optimizer
from headwater.training.step import Plan, step_batches, take_step


def main(recipe: str, out: str, piece_size: str) -> None:
    """Compute the gradient of step 3, in pieces of a size (0: one piece)."""
    torch.set_num_threads(1)
    config = resolve([read_yaml(recipe)])
    config = replace(config, training=replace(config.training, piece_size=int(piece_size) or None))
    accelerator = make_accelerator(config, Runtime("cpu", quiet=True))
    setup = prepare(config)
    model, _ = accelerator.prepare(setup.model, make_optimizer(setup.model, config, setup.balancer))
    model.train()
    plan = Plan(config.training, config.optimizer, config.seed, setup.balancer)
    batches = step_batches(setup.tasks, plan, accelerator, {config.only.task: 3})
    [loss] = take_step(model, batches, accelerator, plan, 3).losses.values()
    [pieces] = batches.values()
    gradients = {name: value.grad for name, value in setup.model.named_parameters() if value.grad is not None}
    if accelerator.is_main_process:
        torch.save({"gradients": gradients, "pieces": len(pieces), "loss": loss}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_launch()
    assert Path(sys.argv[2]).name, "an output file is expected"
