"""A script for test_sharding: runs a recipe, and writes what this process holds; killed by itself behind a save, where asked."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from headwater.commands.common.shell import leave_launch
from headwater.core.options import read_yaml
from headwater.runs import run as runs
from headwater.runs.config.resolve import resolve
from headwater.runs.runtime import Runtime
from headwater.training import loop
from headwater.training.parts import held_bytes


def main(recipe: str, folder: str, last_step: str, out: str) -> None:
    """Train to the end, or until the checkpoint of a step is written."""
    torch.set_num_threads(1)
    held: dict[str, int] = {}
    save_last, clip = runs.save_last, loop.clip

    def measured(folder: Path, setup: Any, optimizer: torch.optim.Optimizer, progress: Any, accelerator: Accelerator) -> None:
        """Save, and count the weights and the optimizer's states of the upstream."""
        save_last(folder, setup, optimizer, progress, accelerator)
        weights = [*setup.model.upstream("audio").parameters()]
        held["weights"] = held_bytes(weights)
        held["states"] = held_bytes(value for weight in weights for value in optimizer.state.get(weight, {}).values())
        accelerator.wait_for_everyone()
        if progress.step == int(last_step):
            os.kill(os.getpid(), signal.SIGKILL)

    def looked(model: Any, *others: Any) -> torch.Tensor:
        """Count the gradients of the upstream, and clip them."""
        held["gradients"] = held_bytes(weight.grad for weight in model.upstream("audio").parameters() if weight.grad is not None)
        return clip(model, *others)

    runs.save_last = measured  # type: ignore[assignment]
    if "RANK" in os.environ:
        loop.clip = looked  # type: ignore[assignment]
    runs.run(resolve([read_yaml(recipe)]), Path(folder), Runtime("cpu", quiet=True))
    Path(f"{out}-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(held))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_launch()
