"""Tensors that lie in parts on several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from torch import Tensor


def is_part(tensor: Any) -> TypeGuard[Any]:
    """Return whether a tensor lies in parts on several processes."""
    return hasattr(tensor, "full_tensor")


def whole(tensors: Mapping[str, Tensor], keeps: bool) -> dict[str, Tensor]:
    """Return tensors as one process would have them, on the host of those that keep them; every process must take part."""
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        gathered = value.full_tensor() if is_part(value) else value
        if keeps:
            found[key] = gathered.cpu() if is_part(value) else gathered
    return found


def as_part(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor as another one lies: this process' part of it, where that is one."""
    if not is_part(like) or is_part(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    part: Any = like
    return distribute_tensor(value.to(part.device), part.device_mesh, part.placements, src_data_rank=None)


def held_bytes(tensors: Iterable[Any]) -> int:
    """Return the bytes that this process holds of some tensors."""
    locals_ = [tensor.to_local() if is_part(tensor) else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in locals_)
