"""The geometry of a joint space: how close pairs lie, and how evenly a modality covers the sphere (Wang and Isola, 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MOST_ROWS = 10_000  # pairs grow with the square: of more rows, so many are drawn
_BLOCK = 1024


def alignment(audio: Tensor, text: Tensor) -> float:
    """Return the mean squared distance of pairs on the unit sphere: 0 (the same) to 4."""
    return float((on_sphere(audio) - on_sphere(text)).square().sum(dim=1).mean())


def uniformity(values: Tensor, t: float = 2.0) -> float:
    """Return log mean exp(-t |x - y|^2) over pairs of rows on the unit sphere: 0 (all the same) to about -4."""
    rows = on_sphere(values)
    if len(rows) < 2:
        return math.nan
    if len(rows) > MOST_ROWS:
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MOST_ROWS]
        rows = rows[drawn]
    sums = []
    for first in range(0, len(rows), _BLOCK):
        block = rows[first : first + _BLOCK]
        similarity = block @ rows.T  # (block, row)
        places = torch.arange(len(block)).unsqueeze(1) + first
        later = torch.arange(len(rows)).unsqueeze(0) > places  # each pair once
        sums.append((-t * (2 - 2 * similarity)).masked_fill(~later, -torch.inf).logsumexp(dim=(0, 1)))
    pairs = len(rows) * (len(rows) - 1) / 2
    return float(torch.stack(sums).logsumexp(dim=0)) - math.log(pairs)


def by_role(vocabulary: Mapping[str, Any], embeddings: Tensor) -> dict[str, Tensor]:
    """Return a split's embeddings of audio and of text; nothing of a run without a joint space."""
    size = vocabulary.get("audio_dim")
    return {} if size is None else {"audio": embeddings[:, :size], "text": embeddings[:, size:]}


def on_sphere(values: Tensor) -> Tensor:
    """Return rows of length one, in float64."""
    return F.normalize(values.double(), dim=1)


def geometry_of(audio: Tensor, text: Tensor) -> dict[str, float]:
    """Return alignment and uniformity of a split's embeddings; alignment needs a space that both share."""
    by_role = {"uniformity_audio": uniformity(audio), "uniformity_text": uniformity(text)}
    both = {"uniformity": sum(by_role.values()) / 2, **by_role}
    return {"alignment": alignment(audio, text), **both} if audio.shape == text.shape else both
