"""Fit one layer many times: on shuffled labels, and without the utterances that are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...training.exact.losses import Multinomial, Squares
from ...training.exact.mixture import Heads, Problem
from ...training.exact.probe import ROUGH, Split

SHUFFLES = 20
HELD_OUT = 5  # parts of a corpus, each predicted by a head that was fitted without it


def shuffled_heads(train: Split, penalty: float, seed: int) -> Heads:
    """Return the head on one layer that fits shuffled labels, with the penalty of the true ones."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(train.loss.weights)))
    loss = cast(Multinomial | Squares, train.loss)
    mixed_up = replace(loss, targets=loss.targets[order.to(loss.targets.device)])
    return Problem.of(train.blocks, mixed_up, torch.float32).solve([penalty], [0.0], tolerance=ROUGH)


def held_out_outputs(everything: Split, parts: Tensor, penalty: float) -> NDArray:
    """Return outputs (utterance, class) of heads on one layer, each fitted without the part that it is applied to."""
    numbers = parts.unique().tolist()
    weights = torch.stack([(parts != number).double() * everything.loss.weights for number in numbers])
    weights = weights / weights.sum(dim=1, keepdim=True)
    problem = Problem.of(everything.blocks, everything.loss, torch.float64).to(torch.float32)
    count = len(numbers)
    heads = problem.solve([penalty] * count, [0.0] * count, tolerance=ROUGH, weights=weights)
    outputs = heads.outputs(everything.blocks).double().cpu().numpy()  # (part, utterance, class)
    found = np.empty(outputs.shape[1:])
    for place, number in enumerate(numbers):
        rows = (parts == number).numpy()
        found[rows] = outputs[place, rows]
    return found


def joined(splits: Sequence[Split]) -> Split:
    """Return classes of several splits as one split."""
    losses = [cast(Multinomial, split.loss) for split in splits]
    targets = torch.cat([loss.targets for loss in losses])
    weights = torch.full((len(targets),), 1 / len(targets), dtype=torch.float64)
    blocks = {role: [part for split in splits for part in split.blocks[role]] for role in splits[0].blocks}
    return Split(blocks, Multinomial(targets, weights, losses[0].num_outputs))


def parts_for_noise(targets: Sequence[int], groups: Sequence[str]) -> Tensor:
    """Return the part of each utterance: speakers stay together, unless a class would be missing from the rest."""
    names, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    truth = np.asarray(targets)
    if all(groups) and len(names) >= HELD_OUT:
        sizes = np.bincount(codes)
        fill, part_of = np.zeros(HELD_OUT), np.zeros(len(names), int)
        for code in np.argsort(-sizes, kind="stable"):
            part_of[code] = int(fill.argmin())
            fill[part_of[code]] += sizes[code]
        parts = part_of[codes]
        if all({*truth[parts != part]} >= {*truth[parts == part]} for part in range(HELD_OUT)):
            return torch.from_numpy(parts)
    parts = np.empty(len(truth), int)
    parts[np.argsort(truth, kind="stable")] = np.arange(len(truth)) % HELD_OUT
    return torch.from_numpy(parts)
