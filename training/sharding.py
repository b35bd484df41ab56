"""One large model over several processes: each keeps a part of every weight, its gradient and the optimizer's memory of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.parts import is_part
from ..corpus.batch import Example
from ..upstream.base import Role, UpstreamConfig
from .balance import Balancer
from .config import TrainingConfig
from .model import Model


def refuse_unshardable(training: TrainingConfig, sections: Mapping[Role, UpstreamConfig]) -> None:
    """Refuse what has no meaning, or would wait for ever, where a model's weights lie in parts."""
    if not any(section.trainable for section in sections.values()):
        raise UserError("Expected -f beside --shard (training.shard=true), found a frozen upstream. Add -f, or leave it out.")
    if training.precision == "fp16":
        raise UserError("Expected training.precision=bf16 or float32 beside --shard, found fp16. Take bf16.")
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
    """Share out the weights of every upstream, block by block; heads and weighted sums stay whole on each process.

    In bf16 a block's weights are gathered as bf16: autocast's own copies of them would lie whole in every process until the
    backward pass. What flows between blocks stays float32, as it does in one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = half if precision == "bf16" else MixedPrecisionPolicy(cast_forward_inputs=False)
    for role in model.configs:
        upstream = model.upstream(role)
        if not any(True for _ in upstream.parameters()):
            continue
        for block in upstream.blocks():  # moved to the device one by one: it never holds all of them
            fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        fully_shard(upstream, mesh=mesh, reshard_after_forward=True, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    model.sharded = True


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
