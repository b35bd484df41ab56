"""Many smooth problems minimised side by side: one step for all of them costs one pass over the data that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# (parameters of the problems that still move (problem, parameter), their indices) -> values (problem), gradients
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ENOUGH, SHRINK, TRIES = 1e-4, 0.5, 30  # Armijo's share of the slope; the next length over the last one; how many are tried
MEMORY = 10  # pairs of steps and changes of the gradient that the direction is made of


@dataclass(frozen=True)
class Minimum:
    """Where each problem ended."""

    parameters: Tensor  # (problem, parameter)
    values: Tensor  # (problem)
    gradients: Tensor  # (problem): the largest entry of each gradient
    steps: int


def minimize(objective: Objective, start: Tensor, *, tolerance: float, gain: float = 0.0, most: int = 500) -> Minimum:
    """Return the minimum that L-BFGS reaches for each problem from its start.

    It ends where no entry of the gradient is above tolerance, or where a step would lower the value by less than a share of
    it, `gain`: whatever the scale of the problem, what is left to win is then small beside what there is.
    A value never rises on the way: who starts at a solution ends at one that is as good or better.
    """
    place = start.clone()
    everything = torch.arange(len(place), device=place.device)
    value, gradient = objective(place, everything)
    steps_before: list[Tensor] = []  # each (problem, parameter), newest last
    changes: list[Tensor] = []
    # no step goes down any more, since rounding is all that is left, or none goes down far enough
    settled = torch.zeros(len(place), dtype=torch.bool, device=place.device)
    moving = everything[gradient.abs().amax(dim=1) > tolerance]
    step = 0
    while len(moving) and step < most:
        step += 1
        here, slope = place[moving], gradient[moving]
        pairs = list(zip(steps_before, changes, strict=True))
        if len(moving) < len(place):
            pairs = [(moved[moving], turned[moving]) for moved, turned in pairs]
        direction = _direction(slope, pairs)
        along = _products(direction, slope)
        uphill = along >= 0  # a memory that curves the wrong way: start anew from the gradient
        if bool(uphill.any()):
            direction[uphill] = -slope[uphill]
            along = _products(direction, slope)
        hopeful = along.abs() > 2 * gain * value[moving].abs()
        if not bool(hopeful.all()):
            settled[moving[~hopeful]] = True
            moving, here, slope, direction, along = (one[hopeful] for one in (moving, here, slope, direction, along))
            if not len(moving):
                break
        length = torch.ones(len(moving), dtype=place.dtype, device=place.device)
        if not steps_before:
            length = (1 / slope.abs().sum(dim=1)).clamp(max=1.0)
        new, reached, bend = here.clone(), value[moving].clone(), slope.clone()
        unsettled = torch.arange(len(moving), device=place.device)
        for _ in range(TRIES):
            tried = here[unsettled] + length[unsettled, None] * direction[unsettled]
            found, slopes = objective(tried, moving[unsettled])
            good = found <= value[moving[unsettled]] + ENOUGH * length[unsettled] * along[unsettled]
            kept = unsettled[good]
            new[kept], reached[kept], bend[kept] = tried[good], found[good], slopes[good]
            unsettled = unsettled[~good]
            if not len(unsettled):
                break
            length[unsettled] *= SHRINK
        moved, turned = torch.zeros_like(place), torch.zeros_like(place)
        moved[moving], turned[moving] = new - here, bend - slope
        steps_before, changes = [*steps_before, moved][-MEMORY:], [*changes, turned][-MEMORY:]
        place[moving], value[moving], gradient[moving] = new, reached, bend
        settled[moving[unsettled]] = True
        moving = everything[(gradient.abs().amax(dim=1) > tolerance) & ~settled]
    return Minimum(place, value, gradient.abs().amax(dim=1), step)


def _direction(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return L-BFGS' direction (two loops) for each problem; a pair without curvature counts for nothing."""
    direction = -slope
    if not pairs:
        return direction
    inverses, shares = [], []
    for moved, turned in reversed(pairs):
        curve = _products(moved, turned)
        inverses.append(torch.where(curve > 0, 1 / curve.clamp(min=torch.finfo(curve.dtype).tiny), 0.0))
        shares.append(inverses[-1] * _products(moved, direction))
        direction = torch.addcmul(direction, shares[-1][:, None], turned, value=-1)
    moved, turned = pairs[-1]
    square = _products(turned, turned)
    scale = torch.where((inverses[0] > 0) & (square > 0), 1 / (inverses[0] * square).clamp(min=1e-30), 1.0)
    direction = direction * scale[:, None]
    for (moved, turned), inverse, share in zip(pairs, reversed(inverses), reversed(shares), strict=True):
        back = inverse * _products(turned, direction)
        direction = torch.addcmul(direction, (share - back)[:, None], moved)
    return direction


def _products(one: Tensor, other: Tensor) -> Tensor:
    """Return the inner product of each problem's vectors."""
    return torch.linalg.vecdot(one, other)
