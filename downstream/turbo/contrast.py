"""Contrastive terms: InfoNCE between two views or two modalities of the same utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# term -> its anchors (role, view) and what they are compared with
TERMS: Mapping[str, tuple[tuple[str, int], tuple[str, int]]] = {
    "in_audio": (("audio", 0), ("audio", 1)),
    "in_text": (("text", 0), ("text", 1)),
    "cross_11": (("audio", 0), ("text", 0)),
    "cross_12": (("audio", 0), ("text", 1)),
    "cross_21": (("audio", 1), ("text", 0)),
    "cross_22": (("audio", 1), ("text", 1)),
}
METHODS: Mapping[str, tuple[str, ...]] = {"vanilla": (), "cl_cross": ("cross_11",), "turbo": tuple(TERMS)}


def views_of(terms: Sequence[str]) -> int:
    """Return how many views the terms need.

    >>> views_of(["cross_11"]), views_of(["in_audio"])
    (1, 2)
    """
    return 1 + max((view for term in terms for _, view in TERMS[term]), default=0)


def info_nce(
    anchors: Tensor,
    others: Tensor,
    temperature: float | Tensor,
    *,
    excluded: Tensor | None = None,
    symmetric: bool = False,
    reduction: Literal["mean", "printed"] = "mean",
) -> Tensor:
    """Return how badly each anchor (batch, dim) finds its own other among those of the batch, by cosine similarity.

    The mean over i of -log softmax_i(sim(a_i, o_j) / temperature), in float32. `excluded` (batch, batch) marks negatives that
    are none. The paper prints -log of the sum over i of the softmax ("printed"): its least value is -log N, and its gradient is
    that of the utterances solved already; a diagnostic.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        wide = torch.promote_types(anchors.dtype, torch.float32)
        similarity = F.normalize(anchors.to(wide), dim=1) @ F.normalize(others.to(wide), dim=1).T  # (anchor, other)
        logits = similarity / temperature
        if excluded is not None:
            itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            logits = logits.masked_fill(excluded & ~itself, -torch.inf)
        losses = [_reduced(logits, reduction)]
        if symmetric:
            losses.append(_reduced(logits.T, reduction))
        return torch.stack(losses).mean()


def _reduced(logits: Tensor, reduction: str) -> Tensor:
    found = logits.log_softmax(dim=1).diagonal()
    return -found.mean() if reduction == "mean" else -found.logsumexp(dim=0)


def alike(keys: Tensor) -> Tensor:
    """Return which rows have the same key: (batch, batch)."""
    return keys.unsqueeze(0) == keys.unsqueeze(1)
