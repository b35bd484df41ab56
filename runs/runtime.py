"""Where a run computes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from ..core.errors import UserError
from ..core.process import PLAN, is_main
from ..training.model import check_device
from .config.schema import RunConfig, roles_of


@dataclass(frozen=True)
class PlanPlace:
    """Where a run stands in its plan, and what comes after it: its progress says how long all of it will take."""

    number: int = 1
    count: int = 1  # runs of the plan
    left: int = 0  # runs that come after it
    seconds: float = 0.0  # that these will take, as far as others like them have shown
    steps: int = 0  # of those that take as long a step as this one
    unknown: int = 0  # runs of which nobody knows
    timed: bool = False  # whether a run like this one has come to its end


@dataclass(frozen=True)
class Runtime:
    """Where a run computes; nothing here changes what it computes."""

    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    quiet: bool = False
    share_layers: bool = False  # other runs use other layers of the same upstream: all are stored
    by: tuple[str, ...] = ()  # labels whose groups are scored apart
    named: bool = False  # the user named the run itself: what it was trained on need not be here
    place: PlanPlace = PlanPlace()
    plan: str = field(default_factory=lambda: os.environ.get(PLAN, ""))  # folder of the plan of a run: trackers group by it


def print_progress(runtime: Runtime, *lines: str) -> None:
    """Print progress to stderr; only results go to stdout."""
    if not runtime.quiet and is_main():
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def refuse_on_mps(config: RunConfig) -> None:
    """Refuse what a Mac's GPU cannot compute: it has no float64, and its half precision was never tried here."""
    wrong = {
        "solver=exact": (config.solver == "exact", "solver=adam"),
        f"training.precision={config.training.precision}": (config.training.precision != "float32", "training.precision=float32"),
        f"balance.method={config.balance.method}": (config.balance.method in ("dwa", "gradnorm"), "balance.method=sum"),
    }
    for what, instead in ((what, instead) for what, (is_on, instead) in wrong.items() if is_on):
        raise UserError(
            f"Expected what float32 can compute for --device mps, found {what}. Add -o {instead}, or use --device cpu."
        )


def make_accelerator(config: RunConfig, runtime: Runtime) -> Accelerator:
    """Return the device, precision and processes of a run."""
    device = runtime.device
    if device != "auto":
        check_device(device)
    if device.startswith("cuda:") or device == "mps":
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    elif device != "auto":
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)  # of an earlier run of this process
    if device == "mps":
        refuse_on_mps(config)
    precision = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}[config.training.precision]
    if precision == "fp16" and (device == "cpu" or not torch.cuda.is_available()):
        raise UserError("Expected a CUDA device for training.precision=fp16, found none. Use float32 or bf16.")
    # one for the process: the next run of a plan may have another precision, and outside a launch another device
    in_launch = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=device != "auto" and not in_launch)
    # a finetuned upstream has weights that a step may leave out: the mask's, the blocks behind a chosen layer
    # and of several tasks, the heads of all but the last one
    trained = any(section.trainable for section in roles_of(config).values()) or config.is_joint
    unused = DistributedDataParallelKwargs(find_unused_parameters=trained)
    # a Mac's GPU is taken where it is typed; by itself it is not, since no check of ours ran on one
    on_cpu = device == "cpu" or not (device == "mps" or torch.cuda.is_available())
    return Accelerator(cpu=on_cpu, mixed_precision=precision, kwargs_handlers=[unused])
