"""The best linear head on all layers at once, each with weights of its own, under a penalty that lets go of whole layers.

    mean loss + penalty / 2 * (sum over layers of |weights of the layer|)^2

This is the group lasso, squared. It is the least, over shares of the layers that sum to one, of

    mean loss + penalty / 2 * sum over layers of |weights of the layer|^2 / share

which is convex in weights and shares together. For given shares it is a ridge problem; for given weights, shares are as
their norms. Each in turn goes down to the one minimum. A head on a mixture is one of these, with the same penalty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .mixture import Heads, Problem
from .probe import FINER, FIRST, STEP, WORTH, Fitted, Split, Trial

LEAST = 1e-4  # share of a layer that is let go of
ROUNDS, MOST_ROUNDS = 4, 30  # while penalties are tried, and of the one that is chosen
SETTLED = 1e-3  # largest change of a share in the last round
ENOUGH = 1e-6  # share of its value by which a round lowers it (float32): the head is drawn beside the curve, and predicts nothing


@dataclass(frozen=True)
class Together:
    """A head on all layers of all roles at once."""

    fitted: Fitted  # its heads' roles are layers, as `apart` names them
    shares: Mapping[str, Tensor]  # role -> share of each layer in the norms of the weights: (layer); all roles sum to one


def apart(split: Split) -> Split:
    """Return a split in which each layer is a role of its own."""
    blocks = {
        f"{role}/{layer}": [part[layer : layer + 1] for part in parts]
        for role, parts in split.blocks.items()
        for layer in range(len(parts[0]))
    }
    return Split(blocks, split.loss, split.parts)


def fit_together(train: Split, dev: Split | None, penalty: float | None, near: float = FIRST) -> Together:
    """Return the head on all layers; its penalty is chosen as that of a single layer is."""
    whole = apart(train)
    problem = Problem.of(whole.blocks, whole.loss, torch.float32)
    trial: AllLayers | None = None
    start = None
    if penalty is None:
        assert dev is not None, "a penalty is chosen on dev"
        trial = AllLayers(problem, whole, apart(dev))
        trial.attempt([(near * STEP, 0.0), (near, 0.0)])
        while True:
            best, loss = trial.best, trial.losses[trial.best]
            trial.attempt([(best[0] * STEP, 0.0), (best[0] / STEP, 0.0)], trial.heads[best])
            if trial.losses[trial.best] >= WORTH * loss:
                break
        best = trial.best
        trial.attempt([(best[0] * FINER, 0.0), (best[0] / FINER, 0.0)], trial.heads[best])
        penalty, start = trial.best[0], trial.heads[trial.best].take([0])
    heads = alternate(problem, [penalty], ENOUGH, start, None, MOST_ROUNDS)
    found: dict[str, list[Tensor]] = {}
    for name, share in shares_of(heads).items():
        found.setdefault(name.rsplit("/", 1)[0], []).append(share[0])
    shares = {role: torch.stack(of_role) for role, of_role in found.items()}
    return Together(Fitted(heads, penalty, 0.0, trial.losses if trial else {}), shares)


class AllLayers(Trial):
    """Fits penalties with the shares that belong to them."""

    def fit(self, settings: Sequence[tuple[float, float]], start: Heads | None, weights: Tensor | None) -> Heads:
        """Return the heads of some settings."""
        return alternate(self.rough, [penalty for penalty, _ in settings], self.gain, start, weights, ROUNDS)


def alternate(
    problem: Problem, penalties: Sequence[float], gain: float, start: Heads | None, weights: Tensor | None, rounds: int
) -> Heads:
    """Return the heads after some rounds of weights and shares."""
    even = torch.full((len(penalties),), 1 / len(problem.blocks), dtype=torch.float64)
    shares = dict.fromkeys(problem.blocks, even) if start is None else shares_of(start)
    none = [0.0] * len(penalties)
    heads = problem.solve(penalties, none, gain=gain, start=start, weights=weights, shares=shares)
    for _ in range(rounds - 1):
        before, shares = shares, shares_of(heads)
        heads = problem.solve(penalties, none, gain=gain, start=heads, weights=weights, shares=shares)
        if max(float((shares[name] - before[name]).abs().max()) for name in shares) < SETTLED:
            break
    return heads


def shares_of(heads: Heads) -> dict[str, Tensor]:
    """Return the share of each layer in the norms of the weights: (problem)."""
    norms = {name: values.flatten(1).norm(dim=1).double() for name, values in heads.weights.items()}
    total = torch.stack([*norms.values()]).sum(dim=0).clamp(min=1e-30)
    kept = {name: (norm / total).clamp(min=LEAST) for name, norm in norms.items()}
    total = torch.stack([*kept.values()]).sum(dim=0)
    return {name: share / total for name, share in kept.items()}
