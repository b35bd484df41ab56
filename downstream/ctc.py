"""Connectionist temporal classification: the expert of every task that writes tokens, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.options import ABOVE_0, AT_LEAST_0, SHARE
from ..corpus.base import Utterance
from ..corpus.batch import Batch
from ..upstream.base import Frames, UpstreamSpec
from .base import Expert, Output
from .masks import Fill, MasksConfig, mask
from .recurrent import Recurrent, put_side_by_side
from .spelling import BLANK, encode, frames_needed, read_greedily


@dataclass(frozen=True)
class CtcConfig:
    """The section of a task that writes: linear -> [bidirectional LSTMs ->] linear over tokens and a blank."""

    projector_dim: Annotated[int, ABOVE_0] = 1024  # of the linear layer before the LSTMs
    hidden_dim: Annotated[int, ABOVE_0] = 1024  # of each direction
    layers: Annotated[int, AT_LEAST_0] = 2  # LSTMs; 0: none, both linear layers see a frame at a time
    dropout: Annotated[float, SHARE] = 0.2  # behind each LSTM
    downsample: Annotated[int, ABOVE_0] = 1  # so many frames go in side by side
    loss_over: Literal["tokens", "characters", "utterance"] = "tokens"  # an utterance's loss is a mean over these
    zero_infinity: bool = False  # a target that is too long for its frames teaches nothing, instead of stopping the run
    spec_augment: bool = False  # masks over the weighted sum, in training
    time_masks: Annotated[int, AT_LEAST_0] = 2  # spans of frames
    time_width: Annotated[int, AT_LEAST_0] = 40  # frames, at most
    dim_masks: Annotated[int, AT_LEAST_0] = 4  # spans of dimensions
    dim_width: Annotated[int, AT_LEAST_0] = 50  # dimensions, at most
    mask_fill: Fill = "mean"  # what stands in a mask

    @property
    def masks(self) -> MasksConfig:
        """The masks of this task alone: a time warp is in the `masks:` of a run."""
        if not self.spec_augment:
            return MasksConfig()
        return MasksConfig(0, self.time_masks, self.time_width, self.dim_masks, self.dim_width, self.mask_fill)


@dataclass(frozen=True)
class Writing:
    """What a task writes: its tokens, how a target is split into them, and how they are joined again."""

    task: str
    unit: str  # what a token is, in the plural
    tokens: tuple[str, ...]
    split: Callable[[str], Iterable[str]]
    join: Callable[[Sequence[str]], str]


class Ctc(Expert):
    """Writes a target's tokens: trained over all alignments of them with the frames, read off the best token of each frame."""

    def __init__(self, vocabulary: Mapping[str, Any], spec: UpstreamSpec, options: CtcConfig, writing: Writing) -> None:
        super().__init__()
        self.vocabulary, self.spec, self.options, self.writing = dict(vocabulary), spec, options, writing
        self.projector = nn.Linear(spec.dim * options.downsample, options.projector_dim)
        self.recurrent = Recurrent(options.projector_dim, options.hidden_dim, options.layers, options.dropout)
        self.classifier = nn.Linear(self.recurrent.output_dim, 1 + len(writing.tokens))  # blank first

    def can_train_on(self, target: str, seconds: float) -> bool:
        """Return whether an utterance of so many seconds has the frames that its target takes."""
        frames = self.spec.num_frames(round(seconds * self.spec.sample_rate))
        return self.options.zero_infinity or frames_needed(self.encoded(target)) <= -(-frames // self.options.downsample)

    def encoded(self, target: str) -> list[int]:
        """Return the numbers of a target's tokens; those that training had none of are left out."""
        return encode(self.writing.tokens, self.writing.split(target))

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        """Return a logit for the blank and for each token, frame by frame: (batch, frame, token)."""
        audio = mask(frames["audio"], self.options.masks) if self.training else frames["audio"]
        audio = put_side_by_side(audio, self.options.downsample)
        hidden = self.recurrent(self.projector(audio.values), audio.lengths)
        return Output(self.classifier(hidden), audio.lengths)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean over utterances of -log p(target), each divided by its number of tokens."""
        spelt = [self.encoded(target) for target in batch.targets]
        if self.training and not self.options.zero_infinity:
            self._refuse_long(spelt, output.lengths, batch)
        device = output.values.device
        counts = torch.tensor([len(tokens) for tokens in spelt])
        targets = nn.utils.rnn.pad_sequence([torch.tensor(tokens or [BLANK]) for tokens in spelt], batch_first=True).to(device)
        with torch.autocast(device.type, enabled=False):
            logs = output.values.float().log_softmax(dim=2).transpose(0, 1)  # (frame, batch, token)
            # what dev and test cannot spell counts in their error rates, not in their loss
            losses = F.ctc_loss(logs, targets, torch.tensor(output.lengths), counts, BLANK, "none", zero_infinity=True)
        if self.options.loss_over != "utterance":
            losses = losses / counts.clamp(min=1).to(device)
        return losses.mean()

    def _refuse_long(self, spelt: Sequence[Sequence[int]], lengths: Sequence[int], batch: Batch) -> None:
        task, unit = self.writing.task, self.writing.unit
        for tokens, frames, name in zip(spelt, lengths, batch.ids, strict=True):
            if frames_needed(tokens) > frames:
                raise UserError(
                    f"Expected at least {frames_needed(tokens)} frames for the {len(tokens)} {unit} of '{name}', found {frames}. "
                    f"Lower {task}.downsample, fix its text, or ignore such utterances: -o {task}.zero_infinity=true"
                )

    def decode(self, output: Output) -> tuple[Any, ...]:
        """Return what the best token of each frame spells."""
        return self.read(output)

    def read(self, output: Output) -> tuple[str, ...]:
        """Return what the best token of each frame spells."""
        best = output.values.detach().argmax(dim=2).cpu().tolist()
        read = (read_greedily(self.writing.tokens, row[:length]) for row, length in zip(best, output.lengths, strict=True))
        return tuple(map(self.writing.join, read))


def build_ctc(
    options: CtcConfig,
    vocabulary: Mapping[str, Any],
    specs: Mapping[str, UpstreamSpec],
    writing: Writing,
    kind: type[Ctc] = Ctc,
) -> Ctc:
    """Return the expert for a vocabulary and what the upstream promises."""
    if {*specs} != {"audio"}:
        raise UserError(
            f"Expected an upstream of audio alone for {writing.task}, found {' and '.join(specs)}: the text is what it is to "
            "write. Name an audio model with -u, and leave out --text-upstream."
        )
    return kind(vocabulary, specs["audio"], options, writing)


def left_out(splits: Mapping[str, Sequence[Utterance]], has_target: Callable[[Utterance], bool]) -> tuple[str, list[Utterance]]:
    """Return which utterances of a corpus have no target: how many of each split in words, and the utterances."""
    without = {split: [row for row in rows if not has_target(row)] for split, rows in splits.items()}
    counts = ", ".join(f"{len(rows)} of {len(splits[split])} in {split}" for split, rows in without.items() if rows)
    return counts, [row for rows in without.values() for row in rows]
