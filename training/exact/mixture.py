"""The best linear head on a convex mixture of standardised layers: each role's layers are mixed, roles stand side by side.

The problem, for one penalty and one evenness:

    mean loss + penalty / 2 * |weights|^2 + evenness * sum over roles of KL(mixture, even mixture)

For a mixture that does not move (one layer, or the even one) it is convex, and there is one answer. With the mixture it is
not: a search that starts from a solution ends no worse than it, so starts are the even mixture's solution and each layer's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .losses import Loss
from .minimize import minimize

Blocks = Mapping[str, Sequence[Tensor]]  # role -> parts of its standardised layers, each (layer, row, dim), in the rows' order
CERTAIN = 30.0  # logit above the others at which a layer has all the weight, to the last bit
MOST_STEPS = 400
LEAST_BEND = 1e-5  # of the value in a logit


@dataclass(frozen=True)
class Heads:
    """Linear heads, one for each problem."""

    weights: Mapping[str, Tensor]  # role -> (problem, output, dim)
    bias: Tensor  # (problem, output)
    logits: Mapping[str, Tensor]  # role -> (problem, layer): the mixture before its softmax
    values: Tensor  # (problem): what was minimised
    steps: int = 0

    def take(self, problems: Sequence[int]) -> Heads:
        """Return some of the heads, in the order given."""
        index = torch.tensor(list(problems), device=self.bias.device)
        return Heads(
            {role: weights[index] for role, weights in self.weights.items()},
            self.bias[index],
            {role: logits[index] for role, logits in self.logits.items()},
            self.values[index],
            self.steps,
        )

    def mixtures(self, role: str) -> Tensor:
        """Return the weights of a role's layers: (problem, layer), each row sums to one."""
        return self.logits[role].softmax(dim=1)

    def outputs(self, blocks: Blocks) -> Tensor:
        """Return what the heads make of utterances: (problem, row, output)."""
        parts = []
        for chunk in zip(*blocks.values(), strict=True):
            total = self.bias[:, None, :].clone()
            for role, values in zip(blocks, chunk, strict=True):
                total = total + mixed(values.to(self.bias), self.mixtures(role)) @ self.weights[role].transpose(1, 2)
            parts.append(total)
        return torch.cat(parts, dim=1)


def mixed(values: Tensor, mixtures: Tensor) -> Tensor:
    """Return mixed layers: (problem or 1, row, dim)."""
    layers, rows, dim = values.shape
    if layers == 1:
        return values
    flat = values.reshape(layers, rows * dim)  # one product by vector each: a matrix of few rows is twice as slow
    return torch.stack([one @ flat for one in mixtures]).view(-1, rows, dim)


class Conditioner:
    """Turns weights so that the problem is round: along eigenvectors of the features' products, stretched as the loss bends."""

    def __init__(self, parts: Sequence[Tensor], bends: Tensor | None = None) -> None:
        total, rows = torch.zeros((), device=parts[0].device), 0
        for values in parts:
            even = values.float().mean(dim=0)  # (row, dim)
            bent = even if bends is None else even * bends[rows : rows + len(even), None].float() * len(bends)
            total, rows = total + even.T @ bent, rows + len(even)
        self.values, self.vectors = torch.linalg.eigh(total / rows)  # in float32: it decides how fast, not what is found
        self.values = self.values.clamp(min=0)

    def to(self, dtype: torch.dtype) -> Conditioner:
        """Return the same in another type."""
        other = copy.copy(self)
        other.values, other.vectors = self.values.to(dtype), self.vectors.to(dtype)
        return other

    def stretch(self, curvature: float, penalties: Tensor) -> Tensor:
        """Return the length of a step along each eigenvector: (problem, dim)."""
        return 1 / torch.sqrt(curvature * self.values[None] + penalties[:, None])


@dataclass(frozen=True)
class Problem:
    """Utterances with their loss, and how their search is conditioned."""

    blocks: Blocks
    loss: Loss
    conditioners: Mapping[str, Conditioner]
    curvature: float | None = None  # of the loss where the conditioners were made; None: what it says

    @classmethod
    def of(cls, blocks: Blocks, loss: Loss, dtype: torch.dtype) -> Problem:
        """Return the problem of some utterances."""
        return cls(blocks, loss, {role: Conditioner(parts) for role, parts in blocks.items()}).to(dtype)

    def near(self, heads: Heads) -> Problem:
        """Return the same, conditioned by how the loss bends about a head: where most classes are sure, few utterances do."""
        bends = self.loss.bends(heads.outputs(self.blocks)[0])
        conditioners = {role: Conditioner(parts, bends).to(self.example.dtype) for role, parts in self.blocks.items()}
        return replace(self, conditioners=conditioners, curvature=1.0)

    def to(self, dtype: torch.dtype) -> Problem:
        """Return the same, computed in another type."""
        conditioners = {role: one.to(dtype) for role, one in self.conditioners.items()}
        return Problem(self.blocks, self.loss.to(next(iter(conditioners.values())).vectors), conditioners)

    @property
    def example(self) -> Tensor:
        """A tensor of the type and the device that is computed with."""
        return next(iter(self.conditioners.values())).vectors

    def solve(
        self,
        penalties: Sequence[float],
        evenness: Sequence[float],
        *,
        tolerance: float = 0.0,
        gain: float = 0.0,
        start: Heads | None = None,
        weights: Tensor | None = None,
        shares: Mapping[str, Tensor] | None = None,
    ) -> Heads:
        """Return the heads of as many problems as there are penalties, each with its evenness; `start` has as many heads.

        `weights` (problem, row) stand for those of the loss: of problems that leave utterances out. The penalty of a role's
        weights is divided by its share (problem), where there are shares.
        """
        of_weights, of_mixtures = (self.example.new_tensor(list(of_problems)) for of_problems in (penalties, evenness))
        search = _Search(self, of_weights, of_mixtures, weights, shares, start)
        found = minimize(search.objective, search.start(start), tolerance=tolerance, gain=gain, most=MOST_STEPS)
        everything = torch.arange(len(found.parameters), device=found.parameters.device)
        return Heads(*search.parts(found.parameters, everything), found.values, found.steps)

    def values_of(self, heads: Heads, penalties: Sequence[float], evenness: Sequence[float]) -> Tensor:
        """Return what is minimised, for heads as they are."""
        search = _Search(self, self.example.new_tensor(list(penalties)), self.example.new_tensor(list(evenness)))
        start = search.start(heads)
        return search.objective(start, torch.arange(len(start), device=start.device))[0]


class _Search:
    """The problems as one vector each: turned weights of each role, bias, logits of each role that has several layers."""

    def __init__(
        self,
        problem: Problem,
        penalties: Tensor,
        evenness: Tensor,
        weights: Tensor | None = None,
        shares: Mapping[str, Tensor] | None = None,
        near: Heads | None = None,
    ) -> None:
        self.problem, self.evenness = problem, evenness
        self.penalties = {role: penalties / shares[role].to(penalties) if shares else penalties for role in problem.blocks}
        self.count, self.row_weights = len(penalties), None if weights is None else weights.to(penalties)
        self.layers = {role: parts[0].shape[0] for role, parts in problem.blocks.items()}
        self.dims = {role: parts[0].shape[2] for role, parts in problem.blocks.items()}
        self.outputs = problem.loss.num_outputs
        curvature = problem.curvature or problem.loss.curvature
        self.stretches = {role: one.stretch(curvature, self.penalties[role]) for role, one in problem.conditioners.items()}
        self.logit_stretches = {role: 1 / bends.clamp(min=LEAST_BEND).sqrt() for role, bends in self.logit_bends(near).items()}

    @torch.no_grad()
    def logit_bends(self, heads: Heads | None) -> dict[str, Tensor]:
        """Return about how strongly the value bends in each logit near some heads: (problem, layer); it conditions the search."""
        logits = {
            role: self.evenness.new_zeros(self.count, number) if heads is None else heads.logits[role].to(self.evenness)
            for role, number in self.layers.items()
        }
        mixtures = {role: of_role.softmax(dim=1) for role, of_role in logits.items()}
        bends = {role: self.evenness[:, None] * mixture for role, mixture in mixtures.items()}
        if heads is None or max(self.layers.values()) == 1:
            return bends
        outputs = heads.outputs(self.problem.blocks).to(self.evenness)
        of_rows = torch.stack([self.problem.loss.bends(of_problem) for of_problem in outputs])  # (problem, row)
        for role, parts in self.problem.blocks.items():
            first, weights = 0, heads.weights[role].to(self.evenness)
            for values in parts:
                rows = slice(first, first + values.shape[1])
                first = rows.stop
                for place, mixture in enumerate(mixtures[role]):
                    of_layers = values.to(weights) @ weights[place].T  # (layer, row, output)
                    apart = (of_layers - torch.einsum("l,lro->ro", mixture, of_layers)).square().sum(dim=2)
                    bends[role][place] += mixture.square() * (apart @ of_rows[place, rows])
        return bends

    def start(self, heads: Heads | None) -> Tensor:
        """Return the vectors of heads, or of none: no weights, even mixtures."""
        count, like = self.count, self.evenness
        if heads is None:
            size = sum(self.outputs * dim for dim in self.dims.values()) + self.outputs
            size += sum(count for count in self.layers.values() if count > 1)
            return like.new_zeros(count, size)
        pieces = []
        for role in self.layers:
            turned = heads.weights[role].to(like) @ self.problem.conditioners[role].vectors
            pieces.append((turned / self.stretches[role][:, None]).reshape(count, -1))
        pieces.append(heads.bias.to(like))
        pieces += [heads.logits[role].to(like) / self.logit_stretches[role] for role, number in self.layers.items() if number > 1]
        return torch.cat(pieces, dim=1)

    def parts(self, vectors: Tensor, index: Tensor) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Return weights, bias and logits of some problems."""
        count, place = len(vectors), 0
        weights, logits = {}, {}
        for role, dim in self.dims.items():
            turned = vectors[:, place : place + self.outputs * dim].reshape(count, self.outputs, dim)
            weights[role] = (turned * self.stretches[role][index][:, None]) @ self.problem.conditioners[role].vectors.T
            place += self.outputs * dim
        bias = vectors[:, place : place + self.outputs]
        place += self.outputs
        for role, number in self.layers.items():
            shifted = vectors[:, place : place + number] * self.logit_stretches[role][index] if number > 1 else None
            logits[role] = vectors.new_zeros(count, 1) if shifted is None else shifted
            place += number if number > 1 else 0
        return weights, bias, logits

    def objective(self, vectors: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient of some problems."""
        weights, bias, logits = self.parts(vectors, index)
        logs = {role: of_role.log_softmax(dim=1) for role, of_role in logits.items()}
        mixtures = {role: of_role.exp() for role, of_role in logs.items()}
        penalties = {role: of_role[index] for role, of_role in self.penalties.items()}
        evenness = self.evenness[index]
        value = vectors.new_zeros(len(vectors))
        of_weights = {role: penalties[role][:, None, None] * of_role for role, of_role in weights.items()}
        of_bias = torch.zeros_like(bias)
        of_mixture = {role: torch.zeros_like(of_role) for role, of_role in mixtures.items()}
        first, every = 0, self.problem.loss.weights[None]
        row_weights = every if self.row_weights is None else self.row_weights[index]
        for chunk in zip(*self.problem.blocks.values(), strict=True):
            rows = slice(first, first + chunk[0].shape[1])
            first = rows.stop
            layers = {role: values.to(vectors) for role, values in zip(self.layers, chunk, strict=True)}
            means = {role: mixed(values, mixtures[role]) for role, values in layers.items()}
            outputs = bias[:, None, :]
            for role, of_role in means.items():
                outputs = outputs + of_role @ weights[role].transpose(1, 2)
            share, errors = self.problem.loss.part(outputs, rows, row_weights[:, rows])  # (problem), (problem, row, output)
            value, of_bias = value + share, of_bias + errors.sum(dim=1)
            for role, of_role in means.items():
                of_weights[role] = of_weights[role] + errors.transpose(1, 2) @ of_role
                if self.layers[role] > 1:
                    back = (errors @ weights[role]).reshape(len(vectors), -1)  # (problem, row x dim)
                    flat = layers[role].reshape(self.layers[role], -1)
                    of_mixture[role] = of_mixture[role] + torch.stack([flat @ one for one in back])
        pieces = []
        for role, of_role in of_weights.items():
            value = value + 0.5 * penalties[role] * weights[role].square().sum(dim=(1, 2))
            turned = (of_role @ self.problem.conditioners[role].vectors) * self.stretches[role][index][:, None]
            pieces.append(turned.reshape(len(vectors), -1))
        pieces.append(of_bias)
        for role, mixture in mixtures.items():
            if self.layers[role] > 1:
                value = value + evenness * ((mixture * logs[role]).sum(dim=1) + math.log(self.layers[role]))
                slope = of_mixture[role] + evenness[:, None] * (logs[role] + 1)
                of_logits = mixture * (slope - (mixture * slope).sum(dim=1, keepdim=True))
                pieces.append(of_logits * self.logit_stretches[role][index])
        return value, torch.cat(pieces, dim=1)
