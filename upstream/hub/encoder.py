"""What encoders of audio share: a pass over the views of a batch, and what transformers calls their parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...corpus.batch import Batch, as_batch
from ..base import Layers, Upstream, checked_waveforms, named_layers


@dataclass(frozen=True)
class Pass:
    """What one pass of an encoder is about."""

    waveforms: Tensor  # (utterance, sample)
    num_samples: tuple[int, ...]  # of each utterance
    copies: int  # views: in eval mode two would be the same
    lengths: tuple[int, ...]  # frames of each utterance, view-major
    masked: Tensor | None  # frames of each utterance to replace (utterance, frame), where the model has a mask embedding
    wanted: tuple[int, ...]  # layers, in the order in which they are returned

    @property
    def last(self) -> int:
        """How many blocks have to run."""
        return max(self.wanted)


class Encoder(Upstream):
    """An encoder that gives each utterance as many frames as its spec says; a family adds how layers come about."""

    model: Any  # transformers', or of its kind
    config: Any
    recomputes: bool

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.recomputes = model, model.config, False

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,
        masked: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers of each utterance."""
        wanted = tuple(named_layers(layers, self.spec.num_layers))
        waveforms, num_samples = checked_waveforms(as_batch(batch), next(self.parameters()).device)
        copies = views if self.training else 1
        lengths = tuple(self.spec.num_frames(length) for length in num_samples) * copies
        return Layers(self.encode(Pass(waveforms, num_samples, copies, lengths, masked, wanted)), lengths)

    @abstractmethod
    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers (view x utterance, frame, dim), in that order; no block behind the last one runs."""

    def architecture(self) -> dict[str, Any] | None:
        """Return the encoder's config."""
        return {"model": self.config.to_dict()}

    def blocks(self) -> list[nn.Module]:
        """Return the blocks in order."""
        return list(self.model.layers)

    def recompute_blocks(self) -> None:
        """From now on keep nothing inside a block in training: the backward pass runs it again."""
        self.recomputes = True
