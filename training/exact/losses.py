"""What a linear head is fitted by: cross entropy for classes, squares for ratings; each utterance with its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """A convex loss of the outputs of a linear head, summed over utterances whose weights sum to one."""

    @property
    def num_outputs(self) -> int:
        """The outputs of a head."""
        ...

    @property
    def curvature(self) -> float:
        """About how strongly the loss bends in each output: it conditions the search, and decides no result."""
        ...

    @property
    def weights(self) -> Tensor:
        """The weight of each utterance: (row), sum 1."""
        ...

    def bends(self, outputs: Tensor) -> Tensor:
        """Return how strongly each utterance's share of the loss bends, a mean over outputs: (row); outputs are (row, output)."""
        ...

    def part(self, outputs: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the share of some rows in the loss (problem), and its gradient.

        Outputs are (problem, row, output), weights (problem or 1, row).
        """
        ...

    def to(self, place: Tensor) -> Loss:
        """Return the same on the device and in the type of a tensor."""
        ...


@dataclass(frozen=True)
class Multinomial:
    """Cross entropy of softmax."""

    targets: Tensor  # (row): the class
    weights: Tensor  # (row), sum 1
    num_outputs: int

    @property
    def curvature(self) -> float:
        """Half of what it is where all classes are as likely: it falls on the way."""
        return 0.5 / self.num_outputs

    def bends(self, outputs: Tensor) -> Tensor:
        """Return the mean of p (1 - p) over the classes, weighted."""
        shares = outputs.softmax(dim=1)
        return (shares * (1 - shares)).mean(dim=1) * self.weights

    def part(self, outputs: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross entropy of some rows, and probability minus truth, weighted."""
        targets = self.targets[rows]
        logs = outputs.log_softmax(dim=-1)
        place = targets[None, :, None].expand(len(outputs), -1, 1)
        value = -(logs.gather(-1, place).squeeze(-1) * weights).sum(dim=1)
        gradient = logs.exp().scatter_add_(-1, place, -torch.ones_like(place, dtype=outputs.dtype))
        return value, gradient * weights[:, :, None]

    def to(self, place: Tensor) -> Multinomial:
        """Return the same on the device and in the type of a tensor."""
        return Multinomial(self.targets.to(place.device), self.weights.to(place), self.num_outputs)


@dataclass(frozen=True)
class Choices:
    """Cross entropies of several choices, summed: the outputs of each stand side by side."""

    targets: Tensor  # (row, choice): the class within the choice; below 0: none of them, which costs nothing
    weights: Tensor  # (row), sum 1
    sizes: tuple[int, ...]  # outputs of each choice

    @property
    def num_outputs(self) -> int:
        """The outputs of a head."""
        return sum(self.sizes)

    @property
    def curvature(self) -> float:
        """The mean of what it is for each choice."""
        return sum(0.5 / size for size in self.sizes) / len(self.sizes)

    def each(self, outputs: Tensor) -> list[tuple[Multinomial, Tensor, Tensor]]:
        """Return each choice alone: its loss, its outputs, and 1 for rows that have a class."""
        found = []
        for targets, part in zip(self.targets.T, outputs.split(self.sizes, dim=-1), strict=True):
            known = (targets >= 0).to(self.weights)
            found.append((Multinomial(targets.clamp(min=0), self.weights * known, part.shape[-1]), part, known))
        return found

    def bends(self, outputs: Tensor) -> Tensor:
        """Return the mean over the choices of what each bends."""
        return torch.stack([loss.bends(part) for loss, part, _ in self.each(outputs)]).mean(dim=0)

    def part(self, outputs: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross entropies of some rows, and probability minus truth, weighted."""
        found = [loss.part(part, rows, weights * known[rows]) for loss, part, known in self.each(outputs)]
        return torch.stack([value for value, _ in found]).sum(dim=0), torch.cat([errors for _, errors in found], dim=-1)

    def to(self, place: Tensor) -> Choices:
        """Return the same on the device and in the type of a tensor."""
        return Choices(self.targets.to(place.device), self.weights.to(place), self.sizes)


@dataclass(frozen=True)
class Squares:
    """Half the squared error, summed over the outputs."""

    targets: Tensor  # (row, output)
    weights: Tensor  # (row), sum 1

    @property
    def num_outputs(self) -> int:
        """The outputs of a head."""
        return self.targets.shape[1]

    @property
    def curvature(self) -> float:
        """What it is everywhere: the first step of a conditioned search ends at the closed form of ridge regression."""
        return 1.0

    def bends(self, outputs: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weights: squares bend everywhere alike."""
        return self.weights

    def part(self, outputs: Tensor, rows: slice, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return half the weighted squared error of some rows, and the weighted error."""
        error = outputs - self.targets[rows]
        weighted = error * weights[:, :, None]
        return 0.5 * (error * weighted).sum(dim=(1, 2)), weighted

    def to(self, place: Tensor) -> Squares:
        """Return the same on the device and in the type of a tensor."""
        return Squares(self.targets.to(place), self.weights.to(place))


def loss_of(loss: Loss, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the loss of all rows for each problem; outputs are (problem, row, output), weights those of the loss or others."""
    return loss.part(outputs, slice(None), loss.weights[None] if weights is None else weights)[0]
