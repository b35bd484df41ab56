"""The diarization expert: LSTM -> linear, a binary cross entropy over the order of speakers that fits best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.options import ABOVE_0
from ...corpus.batch import Batch
from ...upstream.base import Frames, UpstreamSpec
from ..base import Expert, Output, Task
from ..recurrent import Recurrent
from . import question
from .answer import ORDERS, Spoken


@dataclass(frozen=True)
class SdConfig:
    """The `sd:` section."""

    speakers: Annotated[int, ABOVE_0] | None = None  # told apart at most; None: as many as a recording of train or dev has
    hidden_dim: Annotated[int, ABOVE_0] = 512  # of each direction
    layers: Annotated[int, ABOVE_0] = 1  # LSTMs
    bidirectional: bool = False  # LSTMs that read backwards too


class Diarizer(Expert):
    """Answers with how likely each speaker is active in each frame."""

    def __init__(self, vocabulary: Mapping[str, Any], spec: UpstreamSpec, options: SdConfig) -> None:
        super().__init__()
        self.frame_seconds = spec.frame_seconds
        self.vocabulary = {**vocabulary, "frame_seconds": self.frame_seconds}
        self.recurrent = Recurrent(spec.dim, options.hidden_dim, options.layers, 0.0, bidirectional=options.bidirectional)
        self.classifier = nn.Linear(self.recurrent.output_dim, vocabulary["speakers"])

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return a logit for each speaker, frame by frame: (batch, frame, speaker)."""
        audio = frames["audio"]
        return Output(self.classifier(self.recurrent(audio.values, audio.lengths)), audio.lengths)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean over recordings of the cross entropy of the speakers' best order."""
        losses = [
            best_order_loss(values[:length].float(), self.active(target, length).to(values.device))
            for values, length, target in zip(output.values, output.lengths, batch.targets, strict=True)
        ]
        return torch.stack(losses).mean()

    def active(self, target: Spoken, frames: int) -> Tensor:
        """Return 1 where a speaker speaks in the middle of a frame: (frame, speaker); those who say least are left out."""
        moments = (torch.arange(frames, dtype=torch.float64) + 0.5) * self.frame_seconds
        seconds: dict[str, float] = {}
        for speaker, start, end in target.turns:
            seconds[speaker] = seconds.get(speaker, 0.0) + end - start
        count = self.classifier.out_features
        places = {name: place for place, name in enumerate(sorted(seconds, key=lambda name: (-seconds[name], name))[:count])}
        found = torch.zeros(frames, count)
        for speaker, start, end in target.turns:
            if speaker in places:
                found[(moments >= start) & (moments < end), places[speaker]] = 1
        return found

    def decode(self, output: Output) -> tuple[Spoken, ...]:
        """Return how likely each speaker is active, for each recording."""
        shares = output.values.detach().float().sigmoid().cpu().numpy()
        return tuple(Spoken((), row[:length], self.frame_seconds) for row, length in zip(shares, output.lengths, strict=True))


def best_order_loss(logits: Tensor, active: Tensor) -> Tensor:
    """Return the mean binary cross entropy over frames and speakers, of the order of speakers in which it is least.

    Both are (frame, speaker).
    """
    count = logits.shape[1]
    # (predicted, true): the cross entropy of each pair, a mean over frames
    pairs = F.softplus(logits).mean(dim=0)[:, None] - logits.T @ active / len(logits)
    orders = ORDERS[count].to(logits.device)
    return pairs[torch.arange(count, device=logits.device), orders].mean(dim=1).min()


def build(options: SdConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Diarizer:
    """Return the expert for a vocabulary and what the upstream promises."""
    if {*specs} != {"audio"}:
        raise UserError(
            f"Expected an upstream of audio alone for sd, found {' and '.join(specs)}: a text has no voices. "
            "Name an audio model with -u, and leave out --text-upstream."
        )
    return Diarizer(vocabulary, specs["audio"], options)


TASK = Task(name="sd", options=SdConfig, question=lambda _: question.QUESTION, build=build)
