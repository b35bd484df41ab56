"""The speaker verification expert: an x-vector, trained to tell the training speakers apart with additive margin softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.options import ABOVE_0, AT_LEAST_0
from ...corpus.base import Utterance
from ...corpus.batch import Batch
from ...upstream.base import Frames, UpstreamSpec
from ..base import Expert, Output, Task
from ..classification import random_crop
from .question import TrialsConfig, question_of
from .xvector import XVector, am_softmax

_FORGETS = 0.1  # share by which a training speaker's mean moves towards what a step sees


@dataclass(frozen=True)
class AsvConfig(TrialsConfig):
    """The `asv:` section."""

    pooled_dim: Annotated[int, ABOVE_0] = 1500  # of the last layer in front of the statistics
    scale: Annotated[float, ABOVE_0] = 30.0  # of the cosines in the loss
    margin: Annotated[float, AT_LEAST_0] = 0.4  # by which the own speaker's cosine is lowered there
    min_seconds: Annotated[float, AT_LEAST_0] = 2.0  # a shorter utterance is not trained on
    crop_seconds: Annotated[float, ABOVE_0] | None = None  # of a longer utterance used in a training step; None: all of it


class Asv(Expert):
    """Answers with an embedding."""

    cohort: Tensor  # (speaker, dim): a running mean of each training speaker's embeddings; zero: not seen yet

    def __init__(self, vocabulary: Mapping[str, Any], spec: UpstreamSpec, options: AsvConfig) -> None:
        super().__init__()
        self.vocabulary, self.options = dict(vocabulary), options
        self.crops = options.crop_seconds is not None
        self.long_enough_for = f"asv.min_seconds={options.min_seconds:g}"
        self.numbers = {name: number for number, name in enumerate(vocabulary["speakers"])}
        self.xvector = XVector(spec.dim, options.dim, options.pooled_dim)
        self.last = nn.Linear(options.dim, options.dim)
        self.speakers = nn.Parameter(torch.empty(len(self.numbers), options.dim))
        nn.init.xavier_normal_(self.speakers)
        if options.s_norm is not None:
            self.register_buffer("cohort", torch.zeros(len(self.numbers), options.dim))

    def can_train_on(self, target: str, seconds: float) -> bool:  # noqa: ARG002
        """Return whether an utterance is long enough to be trained on."""
        return seconds > self.options.min_seconds

    def crop(self, utterance: Utterance, generator: torch.Generator) -> Utterance:
        """Return the stretch that a training step uses."""
        seconds = self.options.crop_seconds
        return utterance if seconds is None else random_crop(utterance, seconds, generator)

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return the embedding of each utterance, of any length: (batch, dim)."""
        return Output(self.xvector(frames["audio"]))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean loss over the utterances of training speakers; not a number where there is none, as in dev."""
        known = [row for row, name in enumerate(batch.targets) if name in self.numbers]
        if not known:
            return output.values.new_full((), torch.nan)
        device = output.values.device
        targets = torch.tensor([self.numbers[batch.targets[row]] for row in known], device=device)
        embeddings = output.values[torch.tensor(known, device=device)]
        if self.training and self.options.s_norm is not None:
            self._remember(embeddings.detach().float(), targets)
        hidden = torch.relu(self.last(embeddings))
        return am_softmax(hidden, self.speakers, targets, self.options.scale, self.options.margin).mean()

    def _remember(self, embeddings: Tensor, targets: Tensor) -> None:
        """Move the training speakers' means towards the embeddings of a step."""
        members = F.one_hot(targets, len(self.numbers)).float()  # (batch, speaker)
        counts = members.sum(dim=0).unsqueeze(1)
        means = members.T @ F.normalize(embeddings, dim=1) / counts.clamp(min=1)
        new = (self.cohort == 0).all(dim=1, keepdim=True)
        moved = torch.where(new, means, self.cohort + _FORGETS * (means - self.cohort))
        self.cohort.copy_(torch.where(counts > 0, moved, self.cohort))

    def decode(self, output: Output) -> Tensor:
        """Return embeddings of length one, with mean and deviation of their cosines with the nearest training speakers."""
        embeddings = F.normalize(output.values.detach().float(), dim=1)
        if self.options.s_norm is None:
            return embeddings.cpu()
        cosines = embeddings @ F.normalize(self.cohort, dim=1).T  # (batch, speaker)
        nearest = cosines.topk(min(self.options.s_norm, len(self.numbers)), dim=1).values
        statistics = torch.stack([nearest.mean(dim=1), nearest.std(dim=1, correction=0)], dim=1)
        return torch.cat([embeddings, statistics], dim=1).cpu()


def build(options: AsvConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Asv:
    """Return the expert for a vocabulary and what the upstream promises."""
    if {*specs} != {"audio"}:
        raise UserError(
            f"Expected an upstream of audio alone for asv, found {' and '.join(specs)}: a voice is no matter of words. "
            "Name an audio model with -u, and leave out --text-upstream."
        )
    return Asv(vocabulary, specs["audio"], options)


TASK = Task(name="asv", options=AsvConfig, question=question_of, build=build)
