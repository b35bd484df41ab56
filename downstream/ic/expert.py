"""The intent classification expert: linear -> mean -> linear, a cross entropy for each slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...corpus.batch import Batch
from ...upstream.base import Frames, UpstreamSpec
from ..base import Expert, Output, Task
from ..classification import LINEAR, PooledConfig, fusion_of
from ..heads import Fusion
from .answer import Slots
from .question import SLOTS, question_of

UNSEEN = -1  # the place of a value that training had not: it has no share in the loss, and counts as an error in the score


@dataclass(frozen=True)
class IcConfig(PooledConfig):
    """The `ic:` section."""

    slots: list[str] = field(default_factory=lambda: [*SLOTS])  # labels, or columns of a table


class IntentClassifier(Expert):
    """Answers with a value for each slot: what each modality says, and a linear layer over it."""

    def __init__(self, vocabulary: Mapping[str, Any], fusion: Fusion) -> None:
        super().__init__()
        self.vocabulary = dict(vocabulary)
        self.answer = Slots({slot: tuple(values) for slot, values in vocabulary["slots"].items()})
        self.fusion = fusion
        self.classifier = nn.Linear(fusion.output_dim, len(self.answer.score_names))
        self.roles, self.pools, self.optional_roles = tuple(fusion.dims), fusion.pools, fusion.optional

    def linear(self) -> nn.Linear | None:
        """Return the classifier, where nothing but pooling is in front of it."""
        return self.classifier if self.fusion.is_bare else None

    def choices(self) -> tuple[int, ...]:
        """Return how many values each slot has."""
        return tuple(len(values) for values in self.answer.values.values())

    def places(self, target: Sequence[str]) -> tuple[int, ...]:
        """Return the place of each slot's value; UNSEEN where training had none such."""
        known = self.answer.values.values()
        return tuple(values.index(word) if word in values else UNSEEN for values, word in zip(known, target, strict=True))

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return one logit for each value of each slot, slot after slot."""
        return Output(self.classifier(self.fusion(frames)))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the sum of the slots' cross entropies, averaged over utterances."""
        places = torch.tensor([self.places(target) for target in batch.targets], device=output.values.device)
        parts = self.answer.parts(output.values.float())
        losses = [
            F.cross_entropy(part, of_slot, ignore_index=UNSEEN, reduction="none")
            for part, of_slot in zip(parts, places.T, strict=True)
        ]
        return torch.stack(losses).sum(dim=0).mean()

    def decode(self, output: Output) -> Tensor:
        """Return the probability of each value among those of its slot."""
        return self.answer.shares(output.values.detach().float()).cpu()


def build(options: IcConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> IntentClassifier:
    """Return the expert for a vocabulary and what the upstreams promise."""
    return IntentClassifier(vocabulary, fusion_of(options, specs))


TASK = Task(name="ic", options=IcConfig, question=lambda options: question_of(options.slots), build=build, linear=LINEAR)
