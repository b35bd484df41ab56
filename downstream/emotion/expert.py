"""The emotion expert: linear -> mean -> linear over the weighted sum, cross entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...corpus.base import Corpus, Utterance
from ...corpus.batch import Batch
from ...training.strict import ABOVE_0, SHARE
from ...upstream.base import Frames, UpstreamSpec
from ..base import Expert, Outcome, Output, Task
from ..heads import MeanPoolLinear
from ..labels import Classes, LabelsConfig
from . import question


@dataclass(frozen=True)
class EmotionConfig:
    """The `emotion:` section."""

    projector_dim: Annotated[int, ABOVE_0] = 256
    activation: Literal["auto", "none", "relu"] = "auto"  # auto: relu where the upstream's frames have mean zero
    pooling: Literal["mean", "avgmax", "attentive"] = "mean"
    dropout: Annotated[float, SHARE] = 0.0
    class_weights: bool = False  # cross entropy weighted with 1 / the class' share


class Emotion(Expert):
    """Answers which emotion an utterance has."""

    metrics = question.METRICS
    primary_metric = question.PRIMARY_METRIC

    class_weights: Tensor

    def __init__(self, classes: Classes, head: torch.nn.Module, class_weights: bool = False) -> None:
        super().__init__()
        self.classes, self.head = classes, head
        self.vocabulary = classes.vocabulary()
        self.pools = {"audio": getattr(head, "pools", None)}
        counts = torch.tensor([max(classes.counts.get(name, 0), 1) for name in classes.names], dtype=torch.float32)
        weights = counts.sum() / (len(counts) * counts) if class_weights else torch.ones(len(counts))
        self.register_buffer("class_weights", weights, persistent=False)

    def target(self, utterance: Utterance) -> int:
        """Return the index of the utterance's class."""
        name = self.classes.of(utterance)
        assert name is not None, f"'{utterance.id}' has no class here: select() leaves such utterances out"
        return self.classes.names.index(name)

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return one logit for each class."""
        return Output(self.head(frames["audio"]))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross entropy, averaged over utterances (not over class weights, so that pieces add up)."""
        targets = torch.tensor(batch.targets, device=output.values.device)
        return F.cross_entropy(output.values.float(), targets, weight=self.class_weights, reduction="none").mean()

    def decode(self, output: Output) -> tuple[tuple[Any, ...], Tensor | None]:
        """Return class names and probabilities."""
        scores = output.values.detach().float().softmax(dim=-1).cpu()  # (batch, class)
        return tuple(self.classes.names[index] for index in scores.argmax(dim=-1).tolist()), scores

    def reference(self, target: int) -> str:
        """Return a target as a user reads it."""
        return self.classes.names[target]

    def score(self, outcome: Outcome) -> dict[str, float]:
        """Return WA, UA and macro-F1."""
        return question.score(outcome, self.classes.names)

    def join(self, windows: Sequence[tuple[float, Tensor]]) -> tuple[str, Tensor]:
        """Return the class of a long file: probabilities averaged by seconds."""
        seconds = torch.tensor([length for length, _ in windows])
        scores = torch.stack([scores for _, scores in windows])  # (window, class)
        mean = (seconds.unsqueeze(1) * scores).sum(dim=0) / seconds.sum()
        return self.classes.names[int(mean.argmax())], mean


def build(options: EmotionConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Emotion:
    """Return the expert for a vocabulary and what the upstreams promise."""
    classes = Classes.from_vocabulary(vocabulary)
    activation = options.activation
    if activation == "auto":
        # with frames of mean zero, linear -> mean is a constant: nothing could be learnt
        activation = "relu" if specs["audio"].centred else "none"
    head = MeanPoolLinear(
        input_dim=specs["audio"].dim,
        output_dim=len(classes.names),
        projector_dim=options.projector_dim,
        activation=activation,
        dropout=options.dropout,
        pooling=options.pooling,
    )
    return Emotion(classes, head, options.class_weights)


def make_vocabulary(options: EmotionConfig, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:  # noqa: ARG001
    """Return the run's classes; the section's options do not change them."""
    return question.make_vocabulary(labels, corpus)


TASK = Task(
    name="emotion",
    options=EmotionConfig,
    make_vocabulary=make_vocabulary,
    build=build,
    select=question.select,
    score=lambda vocabulary, outcome: question.score(outcome, vocabulary["classes"]),
    adapt=question.adapt,
    metrics=question.METRICS,
    primary_metric=question.PRIMARY_METRIC,
)
