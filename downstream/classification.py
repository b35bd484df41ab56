"""Classification: the expert of every task that asks for one class of an utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..corpus.base import Corpus, Utterance
from ..corpus.batch import Batch
from ..training.strict import ABOVE_0, SHARE
from ..upstream.base import Frames, UpstreamSpec
from .base import Expert, Outcome, Output, Question
from .heads import Fusion, Pooled
from .labels import Classes, LabelsConfig, classes_of, require_trainable


@dataclass(frozen=True)
class ClassifierConfig:
    """The section of a task that asks for a class: [projection -> pooling] of each modality -> linear."""

    projector_dim: Annotated[int, ABOVE_0] = 256
    activation: Literal["auto", "none", "relu"] = "auto"  # auto: relu where the upstream's frames have mean zero
    pooling: Literal["mean", "avgmax", "attentive"] = "mean"
    dropout: Annotated[float, SHARE] = 0.0
    class_weights: bool = False  # cross entropy weighted with 1 / the class' share
    modality_dropout: Annotated[float, SHARE] = 0.0  # share trained without its text; above 0: it may be missing


class Classifier(Expert):
    """Answers with one of a few classes: a question, what each modality says, and a linear layer over it."""

    class_weights: Tensor

    def __init__(
        self, question: Question, vocabulary: Mapping[str, Any], fusion: nn.Module, output_dim: int, class_weights: bool = False
    ) -> None:
        super().__init__()
        self.question, self.vocabulary = question, dict(vocabulary)
        self.classes = Classes.from_vocabulary(vocabulary)
        self.fusion = fusion
        self.classifier = nn.Linear(output_dim, len(self.classes.names))
        if isinstance(fusion, Fusion):
            self.roles, self.pools, self.optional_roles = tuple(fusion.dims), fusion.pools, fusion.optional
        counts = torch.tensor([max(self.classes.counts.get(name, 0), 1) for name in self.classes.names], dtype=torch.float32)
        weights = counts.sum() / (len(counts) * counts) if class_weights else torch.ones(len(counts))
        self.register_buffer("class_weights", weights, persistent=False)

    def target(self, utterance: Utterance) -> int:
        """Return the index of the utterance's class."""
        name = self.classes.of(utterance)
        assert name is not None, f"'{utterance.id}' has no class here: select() leaves such utterances out"
        return self.classes.names.index(name)

    def reference(self, target: int) -> str:
        """Return a target as a user reads it."""
        return self.classes.names[target]

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return one logit for each class."""
        return Output(self.classifier(self.fusion(frames)))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross entropy, averaged over utterances (not over class weights, so that pieces add up)."""
        targets = torch.tensor(batch.targets, device=output.values.device)
        return F.cross_entropy(output.values.float(), targets, weight=self.class_weights, reduction="none").mean()

    def decode(self, output: Output) -> tuple[tuple[Any, ...], Tensor | None]:
        """Return class names and probabilities."""
        scores = output.values.detach().float().softmax(dim=-1).cpu()  # (batch, class)
        return self.question.decide(self.vocabulary, scores), scores

    def score(self, outcome: Outcome) -> dict[str, float]:
        """Return every metric of the question."""
        return self.question.score(self.vocabulary, outcome)

    def calibrate(self, outcome: Outcome) -> None:
        """Take what the question decides on dev into the vocabulary."""
        self.vocabulary = self.question.calibrate(self.vocabulary, outcome)

    def join(self, windows: Sequence[tuple[float, Tensor]]) -> tuple[str, Tensor]:
        """Return the class of a long file: probabilities averaged by seconds."""
        mean = mean_by_seconds(windows)
        return self.question.decide(self.vocabulary, mean.unsqueeze(0))[0], mean


def mean_by_seconds(windows: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the mean of a long file's scores, windows weighted by their length."""
    seconds = torch.tensor([length for length, _ in windows])
    scores = torch.stack([scores for _, scores in windows])  # (window, class)
    return (seconds.unsqueeze(1) * scores).sum(dim=0) / seconds.sum()


def build_classifier(
    question: Question, options: ClassifierConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]
) -> Classifier:
    """Return the expert for a vocabulary and what the upstreams promise."""
    branches = {}
    for role, spec in specs.items():
        activation: str = options.activation
        if activation == "auto":
            # with frames of mean zero, linear -> mean is a constant: nothing could be learnt
            activation = "relu" if spec.centred else "none"
        branches[role] = Pooled(spec.dim, options.projector_dim, activation, options.dropout, options.pooling)
    fusion = Fusion(branches, options.modality_dropout)
    return Classifier(question, vocabulary, fusion, fusion.output_dim, options.class_weights)


def make_vocabulary(key: str, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the classes of a run over a corpus, as the run folder keeps them."""
    classes = classes_of(corpus, key, labels)
    require_trainable(classes, corpus)
    return classes.vocabulary()


def select(vocabulary: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances that have one of the classes."""
    classes = Classes.from_vocabulary(vocabulary)
    return [utterance for utterance in utterances if classes.of(utterance) is not None]
