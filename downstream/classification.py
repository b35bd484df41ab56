"""Classification: the expert of every task with one class for each utterance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.options import ABOVE_0, SHARE
from ..corpus.base import Corpus, Utterance
from ..corpus.batch import Batch
from ..upstream.base import Frames, UpstreamSpec
from .answer import OneClass
from .base import Expert, Outcome, Output, Question, Tables
from .heads import Fusion, Pooled
from .labels import Classes, LabelsConfig, classes_of, label_key, require_trainable


@dataclass(frozen=True)
class PooledConfig:
    """What a section says of [projection -> pooling] of each modality -> linear."""

    projector_dim: Annotated[int, ABOVE_0] | None = 256  # None: no projection, the head is one linear layer
    activation: Literal["auto", "none", "relu"] = "auto"  # auto: relu where the upstream's frames have mean zero
    # mean+std, mean+max: of each layer, before their sum; avgmax: of the sum. auto: mean, of spectra more
    pooling: Literal["mean", "mean+std", "mean+max", "avgmax", "attentive", "auto"] = "mean"
    # of tokens; cls: the first, BERT's [CLS]; last: of GPT-2 and Qwen3, which read in one direction; None: as pooling
    text_pooling: Literal["mean", "attentive", "cls", "last"] | None = None
    dropout: Annotated[float, SHARE] = 0.0  # after the activation
    modality_dropout: Annotated[float, SHARE] = 0.0  # share trained without its text; above 0: it may be missing


@dataclass(frozen=True)
class ClassifierConfig(PooledConfig):
    """The section of a task with classes."""

    class_weights: bool = False  # cross entropy weighted with 1 / the class' share


# with these the head is one linear layer over pooled layers
LINEAR: Mapping[str, Any] = {
    "projector_dim": None,
    "activation": "none",
    "pooling": "auto",
    "text_pooling": None,
    "dropout": 0.0,
    "modality_dropout": 0.0,
}


class Classifier(Expert):
    """Answers with one of a few classes: what each modality says, and a linear layer over it."""

    class_weights: Tensor

    def __init__(
        self,
        vocabulary: Mapping[str, Any],
        fusion: nn.Module,
        output_dim: int,
        class_weights: bool = False,
        *,
        crop_seconds: float | None = None,  # seconds that a training step uses of a longer utterance
        even_classes: bool = False,  # training draws each class as often as any other
    ) -> None:
        super().__init__()
        self.crop_seconds, self.even_classes = crop_seconds, even_classes
        self.crops = crop_seconds is not None
        self.vocabulary = dict(vocabulary)
        self.classes = Classes.from_vocabulary(vocabulary)
        self.fusion = fusion
        self.classifier = nn.Linear(output_dim, len(self.classes.names))
        if isinstance(fusion, Fusion):
            self.roles, self.pools, self.optional_roles = tuple(fusion.dims), fusion.pools, fusion.optional
        counts = torch.tensor([max(self.classes.counts.get(name, 0), 1) for name in self.classes.names], dtype=torch.float32)
        weights = counts.sum() / (len(counts) * counts) if class_weights else torch.ones(len(counts))
        self.register_buffer("class_weights", weights, persistent=False)

    def weight(self, utterance: Utterance) -> float:
        """Return how often the utterance is drawn: all alike, or all classes alike."""
        name = self.classes.of(utterance)
        return 1.0 / max(self.classes.counts.get(name or "", 1), 1) if self.even_classes else 1.0

    def crop(self, utterance: Utterance, generator: torch.Generator) -> Utterance:
        """Return the stretch that a training step uses."""
        return utterance if self.crop_seconds is None else random_crop(utterance, self.crop_seconds, generator)

    def linear(self) -> nn.Linear | None:
        """Return the classifier, where nothing but pooling is in front of it."""
        bare = isinstance(self.fusion, Fusion) and self.fusion.is_bare and not self.crops
        return self.classifier if bare else None

    def importance(self, target: int) -> float:
        """Return the weight of a class in the loss."""
        return float(self.class_weights[target])

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return one logit for each class."""
        return Output(self.classifier(self.fusion(frames)))

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross entropy, averaged over utterances (not over class weights, so that pieces add up)."""
        targets = torch.tensor(batch.targets, device=output.values.device)
        return F.cross_entropy(output.values.float(), targets, weight=self.class_weights, reduction="none").mean()

    def decode(self, output: Output) -> Tensor:
        """Return the probability of each class."""
        return output.values.detach().float().softmax(dim=-1).cpu()  # (batch, class)


def random_crop(utterance: Utterance, seconds: float, generator: torch.Generator) -> Utterance:
    """Return a stretch of so many seconds anywhere in an utterance of known duration; a shorter one as it is."""
    assert utterance.duration is not None, f"nobody has looked how long '{utterance.id}' is"
    spare = utterance.duration - seconds
    if spare <= 0:
        return utterance
    place = torch.rand((), generator=generator, dtype=torch.float64).item()
    return replace(utterance, start=utterance.start + place * spare, duration=seconds)


def build_classifier(
    options: ClassifierConfig,
    vocabulary: Mapping[str, Any],
    specs: Mapping[str, UpstreamSpec],
    *,
    crop_seconds: float | None = None,
    even_classes: bool = False,
) -> Classifier:
    """Return the expert for a vocabulary and what the upstreams promise."""
    fusion = fusion_of(options, specs)
    return Classifier(
        vocabulary,
        fusion,
        fusion.output_dim,
        options.class_weights,
        crop_seconds=crop_seconds,
        even_classes=even_classes,
    )


def fusion_of(options: PooledConfig, specs: Mapping[str, UpstreamSpec]) -> Fusion:
    """Return what is in front of the last linear layer, for what the upstreams promise."""
    branches = {}
    for role, spec in specs.items():
        activation: str = options.activation
        if activation == "auto":
            # with frames of mean zero, linear -> mean is a constant: nothing could be trained
            activation = "relu" if spec.centred else "none"
        pooling = pooling_of(role, spec, options.pooling, options.text_pooling)
        branches[role] = Pooled(spec.dim, options.projector_dim, activation, options.dropout, pooling)
    return Fusion(branches, options.modality_dropout)


def pooling_of(role: str, spec: UpstreamSpec, pooling: str, of_text: str | None) -> str:
    """Return how a role's frames become one vector: a text's as it is said apart, if it is."""
    chosen = of_text if role == "text" and of_text is not None else pooling
    return usual_pooling(spec) if chosen == "auto" else chosen


def usual_pooling(spec: UpstreamSpec) -> str:
    """Return the statistics that a linear head gets: of learned layers the mean, of spectra more.

    Frames with mean zero have a fixed deviation too: of them the maximum says something.
    """
    if spec.centred:
        return "mean+max"
    return "mean+std" if spec.num_layers == 1 else "mean"


def make_vocabulary(key: str, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the classes of a run over a corpus, as the run folder keeps them."""
    classes = classes_of(corpus, key, labels)
    require_trainable(classes, corpus)
    return classes.vocabulary()


def select(vocabulary: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances that have one of the classes."""
    classes = Classes.from_vocabulary(vocabulary)
    return [utterance for utterance in utterances if classes.of(utterance) is not None]


def target(vocabulary: Mapping[str, Any], utterance: Utterance) -> int:
    """Return the place of an utterance's class among those of the vocabulary."""
    classes = Classes.from_vocabulary(vocabulary)
    name = classes.of(utterance)
    assert name is not None, f"'{utterance.id}' has no class here: select() leaves such utterances out"
    return classes.names.index(name)


def reference(vocabulary: Mapping[str, Any], place: int) -> str:
    """Return the class at a place."""
    return vocabulary["classes"][place]


def answer(vocabulary: Mapping[str, Any]) -> OneClass:
    """Return one of the vocabulary's classes as the kind of answer."""
    return OneClass(tuple(vocabulary["classes"]))


def adapt(
    key: str, same: Callable[[str, Classes], str | None], vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus
) -> tuple[dict[str, Any], str]:
    """Return the run's vocabulary for another corpus' labels, and a line that says what was matched and left out.

    `same` names the class that a label of the corpus means, where nobody says it by `labels.merge`.
    """
    classes = Classes.from_vocabulary(vocabulary)
    if labels.keep and {*labels.keep} != {*classes.names}:
        raise UserError(f"Expected no labels.keep, since a run predicts its own classes, found {labels.keep}. Leave it out.")
    key = labels.column or label_key(corpus, key)
    found = Counter(str(row.labels[key]) for rows in corpus.splits.values() for row in rows if row.labels.get(key) is not None)
    means = {name: (labels.merge or {}).get(name) or same(name, classes) for name in found}
    matched = {name: ours for name, ours in means.items() if ours in classes.names}
    if not matched:
        raise UserError(
            f"Expected labels of {corpus.name} among {_some(classes.names)}, found {_some(sorted(found))}. "
            "Say which is which: -o labels.merge='{THEIRS: ours}'"
        )
    others = [f"{theirs}={ours}" for theirs, ours in sorted(matched.items()) if theirs != ours]
    left = [f"{name} ({count})" for name, count in sorted(found.items()) if name not in matched]
    note = f"labels {_some(others)}" if others else f"{len(matched)} labels of the same names"
    adapted = {**vocabulary, "merge": {theirs: str(ours) for theirs, ours in matched.items() if theirs != ours}, "key": key}
    return adapted, note + (f"; left out {_some(left)}" if left else "")


def same_name(label: str, classes: Classes) -> str | None:
    """Return the class that is called as a corpus' label, if there is one."""
    return label if label in classes.names else None


def question_of_classes(
    name: str,
    key: str,  # of Utterance.labels; of a table, its label column whatever it is called
    metrics: Mapping[str, Literal["higher", "lower"]],  # the first one chooses the best step
    score: Callable[[Mapping[str, Any], Outcome, Tables], dict[str, float]],
    same: Callable[[str, Classes], str | None] = same_name,  # the class that a label of another corpus means
) -> Question:
    """Return the question which class of a few an utterance has, as a corpus' labels and the `labels:` section tell it."""
    return Question(
        name=name,
        metrics=metrics,
        primary_metric=next(iter(metrics), ""),
        make_vocabulary=lambda _, labels, corpus: make_vocabulary(key, labels, corpus),
        select=select,
        target=target,
        reference=reference,
        answer=answer,
        score=score,
        adapt=partial(adapt, key, same),
    )


def _some(words: Sequence[str], most: int = 20) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more or "none"
