"""The AVD expert: pooled modalities -> linear -> tanh -> linear, trained on the concordance of a whole step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ...core.options import ABOVE_0, SHARE
from ...corpus.batch import Batch
from ...upstream.base import Frames, UpstreamSpec
from ..base import Expert, Outcome, Output, Task
from ..classification import pooling_of
from ..gather import gathered
from ..heads import Fusion, Pooled
from . import question

_LOG = logging.getLogger(__name__)
_EPSILON = 1e-8


@dataclass(frozen=True)
class AvdConfig:
    """The `avd:` section."""

    # what is rated
    dimensions: list[Literal["arousal", "valence", "dominance"]] = field(
        default_factory=lambda: ["arousal", "valence", "dominance"]
    )
    scale: list[float] | None = None  # lowest and highest rating; None: as the corpus says
    pooling: Literal["avg+max", "mean", "mean+std", "mean+max", "attentive", "auto"] = (
        "avg+max"  # the paper's; mean: the store needs one vector an utterance
    )
    text_pooling: Literal["mean", "attentive", "cls", "last"] | None = None  # of tokens; cls: the first; None: as pooling
    combine: Literal["mean", "sum", "concat"] = (
        "mean"  # of avg and max; the paper's dimensions say that they are not put side by side
    )
    hidden_dim: Annotated[int, ABOVE_0] | None = (
        768  # None: one linear layer; the paper is silent; with 768 its table's parameter counts come out
    )
    dropout: Annotated[float, SHARE] = 0.1  # in the head
    modality_dropout: Annotated[float, SHARE] = 0.0  # share trained without its text; above 0: it may be missing


class Avd(Expert):
    """Answers with a rating of each dimension."""

    loss_needs = "whole_batch"

    def __init__(self, vocabulary: Mapping[str, Any], fusion: Fusion, hidden_dim: int | None, dropout: float) -> None:
        super().__init__()
        self.vocabulary = dict(vocabulary)
        self.told: set[str] = set()  # dimensions of which a step's constant ratings were reported: once will do
        self.fusion = fusion
        self.roles, self.pools, self.optional_roles = tuple(fusion.dims), fusion.pools, fusion.optional
        count = len(vocabulary["dimensions"])
        self.regressor: nn.Module = (
            nn.Linear(fusion.output_dim, count)
            if hidden_dim is None
            else nn.Sequential(
                nn.Linear(fusion.output_dim, hidden_dim), nn.Dropout(dropout), nn.Tanh(), nn.Linear(hidden_dim, count)
            )
        )

    def linear(self) -> nn.Linear | None:
        """Return the regressor, where it is one layer with nothing but pooling in front of it."""
        return self.regressor if isinstance(self.regressor, nn.Linear) and self.fusion.is_bare else None

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return a number for each dimension, about 0 to 1."""
        return Output(self.regressor(self.fusion(frames)))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return 1 - CCC, averaged over dimensions, over all utterances of the step."""
        values = output.values.float()
        targets = torch.tensor(batch.targets, device=values.device)  # (batch, dimension)
        if self.training:
            values, targets = gathered(values), gathered(targets)
            self._note_constants(targets)
        with torch.autocast(values.device.type, enabled=False):
            return concordance_loss(values, targets)

    def _note_constants(self, targets: Tensor) -> None:
        for name, column in zip(self.vocabulary["dimensions"], targets.T, strict=True):
            if name not in self.told and bool((column == column[0]).all()):
                self.told.add(name)
                _LOG.warning("All %d utterances of a step have the same %s: it trains nothing there.", len(column), name)

    def split_loss(self, outcome: Outcome) -> float:
        """Return 1 - CCC of the whole split."""
        return 1.0 - question.score(self.vocabulary, outcome, {})["ccc"]

    def decode(self, output: Output) -> Tensor:
        """Return ratings on the corpus' scale."""
        low, high = self.vocabulary["scale"]
        return low + (high - low) * output.values.detach().cpu().double()  # (batch, dimension)


def concordance_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over dimensions of 1 - CCC; both (utterance, dimension).

    CCC = 2 cov / (var + var + (difference of means)^2), with population moments. Without a division by standard deviations
    it is defined for constant predictions, and 0 there and for constant targets.
    """
    mean, mean_target = values.mean(dim=0), targets.mean(dim=0)
    centred, centred_target = values - mean, targets - mean_target
    covariance = (centred * centred_target).mean(dim=0)
    spread = centred.square().mean(dim=0) + centred_target.square().mean(dim=0) + (mean - mean_target).square()
    return (1 - 2 * covariance / (spread + _EPSILON)).mean()


def build(options: AvdConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Avd:
    """Return the expert for a vocabulary and what the upstreams promise."""
    pooling = {"concat": "avgmax", "mean": "avgmax_mean", "sum": "avgmax_sum"}[options.combine]
    chosen = pooling if options.pooling == "avg+max" else options.pooling
    branches = {
        role: Pooled(spec.dim, pooling=pooling_of(role, spec, chosen, options.text_pooling)) for role, spec in specs.items()
    }
    fusion = Fusion(branches, options.modality_dropout)
    return Avd(vocabulary, fusion, options.hidden_dim, options.dropout)


TASK = Task(
    name="avd",
    options=AvdConfig,
    question=lambda options: question.question_of(options.dimensions),
    build=build,
    linear={"pooling": "auto", "text_pooling": None, "hidden_dim": None, "dropout": 0.0, "modality_dropout": 0.0},
)
