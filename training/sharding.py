"""One large model over several processes: each keeps a part of every weight, its gradient and the optimizer's memory of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..corpus.batch import Example
from ..upstream.adapters import is_linear
from ..upstream.base import Role, Upstream, UpstreamConfig
from .balance import Balancer
from .config import TrainingConfig
from .model import Model
from .parts import is_part


def refuse_unshardable(training: TrainingConfig, sections: Mapping[Role, UpstreamConfig], own_adapters: bool) -> None:
    """Refuse what has no meaning, or would wait for ever, where a model's weights lie in parts."""
    if not any(section.trainable for section in sections.values()):
        raise UserError("Expected -f beside --shard (training.shard=true), found a frozen upstream. Add -f, or leave it out.")
    if training.precision == "fp16":
        raise UserError("Expected training.precision=bf16 or float32 beside --shard, found fp16. Take bf16.")
    if own_adapters:
        raise UserError("Expected one adapter for all tasks beside --shard, found own_adapters=true. Leave one of them out.")
    for section in sections.values():
        if section.trainable and section.layerdrop != 0:
            raise UserError(
                f"Expected upstream.layerdrop=0 beside --shard (a block that one process skips, the others would wait for), "
                f"found {section.layerdrop} of '{section.name}'. Leave one of them out."
            )


def refuse_whole_gradients(balancer: Balancer, cosines: int) -> None:
    """Refuse a balance for which each process would have to hold the gradient of each task as a whole."""
    if balancer.needs != "losses" or cosines:
        raise UserError(
            "Expected a balance of the tasks' losses (sum, fixed, uncertainty, dwa) beside --shard, found one that needs the "
            "gradient of each task as a whole (gradnorm, torchjd, balance.cosines_every). Leave one of them out."
        )


def shard(model: Model, device: torch.device, processes: int, precision: str) -> None:
    """Share out the weights of every upstream; heads and weighted sums are small, and stay whole on each process."""
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(device.type, (processes,))
    for role in model.configs:
        shard_upstream(model.upstream(role), mesh, precision)
    model.sharded = True


def shard_upstream(upstream: Upstream, mesh: Any, precision: str) -> None:
    """Share out the weights of an upstream: each block in a group of its own, all that stands around them in another.

    In bf16 the weights of a block's linear layers and convolutions are gathered as bf16, as autocast would cast them: its own
    copies would lie whole in every process until the backward pass. All else in a block (norms, biases, tables of positions)
    then stays whole, in float32: the numbers are those of one process.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    if not any(True for _ in upstream.parameters()):
        return
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    bf16 = precision == "bf16"
    for block in upstream.blocks():  # each is moved to the device by itself: it never holds all of them
        cast = {id(part.weight) for part in block.modules() if is_linear(part) or isinstance(part, nn.Conv1d | nn.Conv2d)}
        others = {weight for weight in block.parameters() if id(weight) not in cast} if bf16 else None
        fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=half if bf16 else plain, ignored_params=others)
    fully_shard(upstream, mesh=mesh, reshard_after_forward=True, mp_policy=plain)


def clip_parts(weights: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients, some of which lie in parts, to at most a norm over all of them, and return that norm before."""
    norms, groups = [], [[weight for weight in weights if is_part(weight) == parted] for parted in (True, False)]
    for group in groups:
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in group if weight.grad is not None])
        norms.append(norm.full_tensor() if is_part(norm) else norm)
    total = torch.stack([norm.to(norms[0].device) for norm in norms]).norm()
    for group in groups:
        torch.nn.utils.clip_grads_with_norm_(group, largest, total)
    return total


def share_batch_norms(model: nn.Module) -> None:
    """Give every process the batch norms' statistics of the first, as DDP does before each pass."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for buffer in module.buffers(recurse=False):
                torch.distributed.broadcast(buffer, 0)


def evened(pieces: Sequence[Sequence[Example]], count: int) -> list[tuple[list[Example], bool]]:
    """Return pieces cut further until there are `count`, each with whether it counts.

    Every process must pass through the blocks as often as the others. Where no piece is left to cut, the last one comes again,
    and does not count.
    """
    found = [list(piece) for piece in pieces]
    while len(found) < count and any(len(piece) > 1 for piece in found):
        at = max(range(len(found)), key=lambda index: len(found[index]))
        half = -(-len(found[at]) // 2)
        found[at : at + 1] = [found[at][:half], found[at][half:]]
    return [(piece, True) for piece in found] + [(found[-1], False)] * (count - len(found))
