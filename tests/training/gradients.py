"""A script for test_pieces: writes the gradient of one step to a file; run alone or by torchrun."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from headwater.training.config import read_yaml, resolve
from headwater.training.loop import Plan, backward, step_batches
from headwater.training.prepare import prepare
from headwater.training.run import Runtime, make_accelerator, make_optimizer


def main(recipe: str, out: str, piece_size: str) -> None:
    """Compute the gradient of step 3, in pieces of a size (0: one piece)."""
    torch.set_num_threads(1)
    config = resolve([read_yaml(recipe)])
    config = replace(config, training=replace(config.training, piece_size=int(piece_size) or None))
    accelerator = make_accelerator(config, Runtime("cpu", quiet=True))
    prepared = prepare(config)
    model, _ = accelerator.prepare(prepared.model, make_optimizer(prepared.model, config))
    model.train()
    plan = Plan(config.training, config.optimizer, config.select_by, config.seed)
    pieces = step_batches([prepared.task], plan, accelerator, 3)[config.task]
    loss = backward(model, config.task, pieces, accelerator, config.seed, 3)
    gradients = {name: value.grad for name, value in prepared.model.named_parameters() if value.grad is not None}
    if accelerator.is_main_process:
        torch.save({"gradients": gradients, "pieces": len(pieces), "loss": loss}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
    assert Path(sys.argv[2]).name, "an output file is expected"
