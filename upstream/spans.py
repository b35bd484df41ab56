"""Random spans of frames, as wav2vec 2.0, HuBERT and SpecAugment in their models draw them."""

from __future__ import annotations

import torch
from torch import Tensor


def random_spans(size: int, prob: float, length: int, least: int, generator: torch.Generator | None = None) -> Tensor:
    """Return a mask (size) of spans of `length`, which may overlap: so many that `prob` of the size were masked if they did not.

    As fairseq's: the count is rounded up or down by chance, starts are drawn without replacement. Without a generator torch's
    own is drawn from.
    """
    mask = torch.zeros(size, dtype=torch.bool)
    count = max(int(prob * size / length + torch.rand((), generator=generator).item()), least)
    starts = torch.randperm(max(size - length + 1, 0), generator=generator)[: min(count, size // length)]
    for start in starts.tolist():
        mask[start : start + length] = True
    return mask
