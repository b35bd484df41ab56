"""Adam whose two moments of a weight take a byte each, in blocks of 256 with a scale: torchao's (extra `eight-bit`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.installation import install_command
from .config import OptimizerConfig, TrainingConfig

BLOCK = (
    256  # numbers that have a scale together; a weight whose size is no multiple, or below 4,096, keeps its moments in float32
)
CODES, SCALE = "codes", "scale"  # of a moment, in a checkpoint


def refuse_eight_bits(optimizer: OptimizerConfig, training: TrainingConfig) -> None:
    """Refuse states in 8 bits where they cannot be had."""
    if optimizer.bits == 32:
        return
    if importlib.util.find_spec("torchao") is None:
        raise UserError(f"Expected torchao for optimizer.bits=8, found none. Run: {install_command('eight-bit')}")
    if training.shard:
        raise UserError(
            "Expected optimizer.bits=32 beside --shard (a checkpoint of blocks would fit one number of processes), found 8. "
            "Leave one of them out."
        )
    if training.precision == "fp16":
        raise UserError("Expected training.precision=bf16 or float32 beside optimizer.bits=8, found fp16. Take bf16.")


def eight_bit_adam(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return torchao's Adam or AdamW over groups of weights; it computes op by op, with no compiler."""
    from torchao.optim import Adam8bit, AdamW8bit

    kind: Any = {"adam": Adam8bit, "adamw": AdamW8bit}[config.name]

    class OpByOp(kind):
        """An optimizer whose steps are not compiled: a compiler is not everywhere, and would take longer than most runs."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """Make one step."""
            with torch.compiler.set_stance("force_eager"):
                return super().step(closure)

    return OpByOp(groups, lr=config.lr, weight_decay=config.weight_decay, block_size=BLOCK)


def packed(state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield what a weight's state is made of, as plain tensors: codes and scales of a moment in 8 bits, else the state itself."""
    for name, value in state.items():
        if hasattr(value, CODES):
            yield f"{name}.{CODES}", value.codes
            yield f"{name}.{SCALE}", value.scale
        else:
            yield name, torch.as_tensor(value)


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a weight's state as its optimizer keeps it, to the bit, of what `packed` yielded."""
    found: dict[str, Any] = {name: value for name, value in state.items() if "." not in name}
    for name in [name.removesuffix(f".{CODES}") for name in state if name.endswith(f".{CODES}")]:
        from torchao.optim.subclass_8bit import OptimState8bit

        codes, scale = state[f"{name}.{CODES}"], state[f"{name}.{SCALE}"]
        moment = OptimState8bit.zeros(codes.shape, signed=name == "exp_avg", block_size=BLOCK, device=codes.device)
        moment.codes.copy_(codes)
        moment.scale.copy_(scale)
        found[name] = moment
    return found
