"""The ASR expert: linear -> bidirectional LSTMs -> linear over characters, trained by CTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.options import ABOVE_0, AT_LEAST_0, SHARE
from ...corpus.batch import Batch
from ...upstream.base import Frames, UpstreamSpec
from ..base import Expert, Output, Task
from ..masks import Fill, MasksConfig, mask
from ..recurrent import Recurrent, put_side_by_side
from . import question
from .spelling import BLANK, decode, encode, frames_needed


@dataclass(frozen=True)
class AsrConfig:
    """The `asr:` section."""

    normalize: Literal["upper", "none"] = "upper"  # upper: capital letters, digits and apostrophes; none: texts as they are
    projector_dim: Annotated[int, ABOVE_0] = 1024
    hidden_dim: Annotated[int, ABOVE_0] = 1024  # of each direction
    layers: Annotated[int, ABOVE_0] = 2
    dropout: Annotated[float, SHARE] = 0.2  # behind each layer
    downsample: Annotated[int, ABOVE_0] = 1  # so many frames go in side by side
    loss_over: Literal["characters", "utterance"] = "characters"  # an utterance's loss is a mean over these
    zero_infinity: bool = False  # a text that is too long for its frames teaches nothing, instead of stopping the run
    spec_augment: bool = False  # masks over the weighted sum, in training
    time_masks: Annotated[int, AT_LEAST_0] = 2
    time_width: Annotated[int, AT_LEAST_0] = 40  # frames, at most
    dim_masks: Annotated[int, AT_LEAST_0] = 4
    dim_width: Annotated[int, AT_LEAST_0] = 50  # dimensions, at most
    mask_fill: Fill = "mean"


class Asr(Expert):
    """Answers with a text."""

    def __init__(self, vocabulary: Mapping[str, Any], spec: UpstreamSpec, options: AsrConfig) -> None:
        super().__init__()
        self.vocabulary, self.spec, self.options = dict(vocabulary), spec, options
        self.characters = tuple(vocabulary["characters"])
        self.masks = masks_of(options)
        self.projector = nn.Linear(spec.dim * options.downsample, options.projector_dim)
        self.recurrent = Recurrent(options.projector_dim, options.hidden_dim, options.layers, options.dropout)
        self.classifier = nn.Linear(self.recurrent.output_dim, 1 + len(self.characters))  # blank first

    def can_train_on(self, target: str, seconds: float) -> bool:
        """Return whether an utterance of so many seconds has the frames that its text takes."""
        frames = self.spec.num_frames(round(seconds * self.spec.sample_rate))
        return self.options.zero_infinity or frames_needed(encode(self.characters, target)) <= -(
            -frames // self.options.downsample
        )

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return a logit for the blank and for each character, frame by frame: (batch, frame, character)."""
        audio = mask(frames["audio"], self.masks) if self.training else frames["audio"]
        audio = put_side_by_side(audio, self.options.downsample)
        hidden = self.recurrent(self.projector(audio.values), audio.lengths)
        return Output(self.classifier(hidden), audio.lengths)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean over utterances of -log p(text), each divided by its number of characters."""
        spelt = [encode(self.characters, text) for text in batch.targets]
        if self.training and not self.options.zero_infinity:
            self._refuse_long(spelt, output.lengths, batch)
        device = output.values.device
        counts = torch.tensor([len(text) for text in spelt])
        targets = nn.utils.rnn.pad_sequence([torch.tensor(text or [BLANK]) for text in spelt], batch_first=True).to(device)
        with torch.autocast(device.type, enabled=False):
            logs = output.values.float().log_softmax(dim=2).transpose(0, 1)  # (frame, batch, character)
            # what dev and test cannot spell counts in their error rates, not in their loss
            losses = F.ctc_loss(logs, targets, torch.tensor(output.lengths), counts, BLANK, "none", zero_infinity=True)
        if self.options.loss_over == "characters":
            losses = losses / counts.clamp(min=1).to(device)
        return losses.mean()

    def _refuse_long(self, spelt: Sequence[Sequence[int]], lengths: Sequence[int], batch: Batch) -> None:
        for text, frames, name in zip(spelt, lengths, batch.ids, strict=True):
            if frames_needed(text) > frames:
                raise UserError(
                    f"Expected at least {frames_needed(text)} frames for the {len(text)} characters of '{name}', found {frames}. "
                    "Lower asr.downsample, fix its text, or ignore such utterances: -o asr.zero_infinity=true"
                )

    def decode(self, output: Output) -> tuple[str, ...]:
        """Return the text that the best character of each frame spells."""
        best = output.values.detach().argmax(dim=2).cpu().tolist()
        return tuple(decode(self.characters, row[:length]) for row, length in zip(best, output.lengths, strict=True))


def masks_of(options: AsrConfig) -> MasksConfig:
    """Return the masks of this task alone: a time warp is in the `masks:` of a run."""
    if not options.spec_augment:
        return MasksConfig()
    return MasksConfig(0, options.time_masks, options.time_width, options.dim_masks, options.dim_width, options.mask_fill)


def build(options: AsrConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Asr:
    """Return the expert for a vocabulary and what the upstream promises."""
    if {*specs} != {"audio"}:
        raise UserError(
            f"Expected an upstream of audio alone for asr, found {' and '.join(specs)}: the text is what it is to write. "
            "Name an audio model with -u, and leave out --text-upstream."
        )
    return Asr(vocabulary, specs["audio"], options)


TASK = Task(name="asr", options=AsrConfig, question=lambda _: question.QUESTION, build=build)
