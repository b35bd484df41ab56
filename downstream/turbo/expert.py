"""The Turbo expert: audio and text in a joint space, classified together, and separated by contrast."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.options import ABOVE_0, SHARE, SHARE_OR_1
from ...corpus.batch import Batch
from ...upstream.base import Frames, UpstreamSpec
from ...upstream.families.text.hashed_words import words_of
from ..base import Expert, Outcome, Output, Question, Task
from ..classification import Classifier
from ..gather import gathered
from ..heads import Pooled
from ..load import load_question
from .contrast import METHODS, TERMS, alike, info_nce, views_of
from .geometry import by_role, geometry_of

ROLES = ("audio", "text")
_LEAST_TEMPERATURE = 0.01  # of a learned one, as in CLIP


@dataclass(frozen=True)
class TurboConfig:
    """The `turbo:` section."""

    task: Literal["emotion", "dsd"] = "emotion"  # the question that is asked
    method: Literal["vanilla", "cl_cross", "turbo"] = (
        "turbo"  # vanilla: no contrast; cl_cross: between audio and text; turbo: within each of them too
    )
    terms: list[Literal["in_audio", "in_text", "cross_11", "cross_12", "cross_21", "cross_22"]] | None = (
        None  # None: the method's
    )
    balance: Annotated[float, SHARE_OR_1] = 0.5  # the paper's lambda: balance x cross entropy + (1 - balance) x contrast
    reduce: Literal["sum", "mean"] = "sum"  # of the terms
    temperature: Annotated[float, ABOVE_0] = 0.05  # the paper gives none; SimCSE's
    learn_temperature: bool = False  # train the temperature too
    symmetric: bool = False  # each term in both directions; the paper's anchors are audio, and the first view
    printed: bool = False  # the loss as eq. 2 and 3 are printed: a diagnostic
    mask_same_text: bool = False  # an utterance with the same words is no negative
    mask_same_label: bool = False  # nor is one of the same class
    classify: Literal["first", "both"] = "first"  # which view the cross entropy sees
    pooling: Literal["mean", "attentive"] = "mean"  # over frames and tokens
    text_pooling: Literal["mean", "attentive", "cls", "last"] | None = (
        None  # cls: the first token, last: the last; None: as pooling
    )
    joint: bool = True  # False: no joint space, encoder outputs are put together as they are (the paper's vanilla)
    joint_dim: Annotated[int, ABOVE_0] = 768  # of the space in which audio and text are compared
    dropout: Annotated[float, SHARE] = 0.2  # behind the layer into the joint space
    class_weights: bool = False  # cross entropy weighted with 1 / the class' share
    operating_point: str = "eer"  # of dsd


class Turbo(Expert):
    """Answers a classification question from audio and text, whose representations are trained by contrast beside it."""

    roles = ROLES

    def __init__(self, options: TurboConfig, vocabulary: Mapping[str, Any], dims: Mapping[str, int]) -> None:
        super().__init__()
        self.options, self.vocabulary = options, dict(vocabulary)
        self.terms = terms_of(options)
        self.views = views_of(self.terms)
        self.loss_needs = "whole_batch" if self.terms else "piece"
        pooling = {"audio": options.pooling, "text": options.text_pooling or options.pooling}
        pooled = {role: Pooled(dims[role], pooling=pooling[role]) for role in ROLES}
        self.pooled = nn.ModuleDict(pooled)
        size = {role: options.joint_dim if options.joint else dims[role] for role in ROLES}
        self.joint = nn.ModuleDict(
            {role: nn.Linear(dims[role], size[role]) if options.joint else nn.Identity() for role in ROLES}
        )
        self.dropout = nn.Dropout(options.dropout)
        self.split_at = size["audio"]
        self.pools = {role: branch.pools for role, branch in pooled.items()}
        self.answers = Classifier(vocabulary, nn.Identity(), sum(size.values()), options.class_weights)
        start = torch.tensor(math.log(1 / options.temperature))
        # without a term nothing would train it, and DDP would wait for its gradient
        self.log_scale = nn.Parameter(start) if options.learn_temperature and self.terms else None

    def refuse_equal_views(self, varies: Mapping[str, bool]) -> None:
        """Refuse a setting in which dropout has nowhere to act: both views would be the same."""
        still = [role for role in ROLES if not varies[role]]
        if self.views > 1 and self.dropout.p == 0 and still:
            raise UserError(
                f"Expected dropout that makes two views of {' and '.join(still)}, found turbo.dropout=0 above an upstream "
                "without dropout (frozen, or upstream.dropout=0). Set -o turbo.dropout=0.2, or -o turbo.method=cl_cross"
            )

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return a logit for each class from each view, and the joint space's vectors, audio's first."""
        placed = [self.dropout(self.joint[role](self.pooled[role](frames[role]))) for role in ROLES]
        together = torch.cat(placed, dim=1)  # (view x batch, audio and text)
        return Output(self.answers.classifier(together), embeddings=together)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the cross entropy and the contrastive terms of a step."""
        views = [replace(output, values=values) for values in output.values.split(len(batch))]
        classified = views if self.options.classify == "both" else views[:1]
        crossed = torch.stack([self.answers.loss(view, batch) for view in classified]).mean()
        if not self.terms or not self.training:
            return crossed
        if self.loss_needs == "whole_batch":  # of all processes: the contrast is, so that the cross entropy has to be
            crossed = gathered(crossed.unsqueeze(0)).mean()
        balance = self.options.balance
        return balance * crossed + (1 - balance) * self.contrast(output, batch)

    def contrast(self, output: Output, batch: Batch) -> Tensor:
        """Return the sum (or mean) of the terms over the utterances of all processes."""
        assert output.embeddings is not None, "forward gives them"
        views = torch.cat(output.embeddings.split(len(batch)), dim=1)  # (batch, view x (audio and text))
        everybody = gathered(views).chunk(self.views, dim=1)
        placed = {("audio", view): values[:, : self.split_at] for view, values in enumerate(everybody)}
        placed |= {("text", view): values[:, self.split_at :] for view, values in enumerate(everybody)}
        excluded = self.no_negatives(batch, views.device)
        options, temperature = self.options, self.temperature()
        reduction: Literal["mean", "printed"] = "printed" if options.printed else "mean"
        losses = [
            info_nce(placed[a], placed[b], temperature, excluded=excluded, symmetric=options.symmetric, reduction=reduction)
            for a, b in (TERMS[term] for term in self.terms)
        ]
        total = torch.stack(losses)
        return total.sum() if options.reduce == "sum" else total.mean()

    def temperature(self) -> float | Tensor:
        """Return the temperature, learned or fixed."""
        if self.log_scale is None:
            return self.options.temperature
        with torch.no_grad():  # the weight itself: a clamp in the graph has no gradient, and would hold it there for ever
            self.log_scale.clamp_(max=-math.log(_LEAST_TEMPERATURE))
        return self.log_scale.float().neg().exp()

    def no_negatives(self, batch: Batch, device: torch.device) -> Tensor:
        """Return which pairs of the step are no negatives: the same utterance drawn twice, and what the options say."""
        texts = [number_of(" ".join(words_of(text or ""))) for text in batch.texts]  # "Yes." says what "yes" says
        own = torch.tensor([[number_of(name) for name in batch.ids], texts, [*batch.targets]], device=device).T.contiguous()
        names, words, classes = gathered(own).T  # each (batch)
        excluded = alike(names)
        excluded = excluded | alike(words) if self.options.mask_same_text else excluded
        return excluded | alike(classes) if self.options.mask_same_label else excluded

    def split_loss(self, outcome: Outcome) -> float:
        """Return the cross entropy of a split; contrast is one of steps."""
        assert outcome.scores is not None, "a classification has scores"
        classes = list(self.vocabulary["classes"])
        truth = torch.tensor([classes.index(name) for name in outcome.references])
        return float(F.nll_loss(outcome.scores.double().clamp(min=1e-12).log(), truth))

    def decode(self, output: Output) -> Tensor:
        """Return the probability of each class."""
        return self.answers.decode(output)


def terms_of(options: TurboConfig) -> tuple[str, ...]:
    """Return the contrastive terms: those named, else the method's."""
    return METHODS[options.method] if options.terms is None else tuple(options.terms)


def number_of(name: str) -> int:
    """Return a number that is the same for the same words on every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1


def question_of(options: TurboConfig) -> Question:
    """Return the question of `turbo.task`, with the geometry of the joint space among its details."""
    base = load_question(options.task)

    def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
        """Return the question's details of a split, and the geometry of its embeddings."""
        found = base.details(vocabulary, outcome)
        if outcome.embeddings is None:
            return found
        return {**found, **geometry_of(**by_role(vocabulary, outcome.embeddings))}

    return replace(base, details=details)


def build(options: TurboConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Turbo:
    """Return the expert for a vocabulary and what the upstreams promise."""
    if {*specs} != {*ROLES}:
        missing = {"audio": "-u NAME", "text": "--text-upstream NAME"}
        lacking = ", ".join(missing[role] for role in ROLES if role not in specs)
        raise UserError(f"Expected an upstream of audio and one of text for turbo, found one only. Add {lacking}.")
    dims = {role: spec.dim for role, spec in specs.items()}
    crossing = [term for term in terms_of(options) if term.startswith("cross")]
    if not options.joint and dims["audio"] != dims["text"] and crossing:
        raise UserError(
            f"Expected a joint space for the terms {', '.join(crossing)}, since audio has {dims['audio']} dimensions and text "
            f"{dims['text']}, found turbo.joint=false. Leave it out."
        )
    size = options.joint_dim if options.joint else dims["audio"]
    return Turbo(options, {**vocabulary, "audio_dim": size}, dims)


TASK = Task(name="turbo", options=TurboConfig, question=question_of, build=build)
