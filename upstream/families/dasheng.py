"""Dasheng: a masked autoencoder of general audio, whose frames are patches of 40 ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import UpstreamConfig, UpstreamSpec
from ..exact_padding import mask_if_padded
from ..hub.encoder import Encoder, Pass
from ..hub.family import BLOCK_OPTIONS, HubFamily, Source, Tiny
from ..hub.htk_mel import HOP, mel_power
from ..hub.passes import join_windows, run_blocks
from ..hub.register import register_family

_WINDOW = 512  # samples of a column
_QUIETEST, _RANGE = -100.0, 120.0  # decibels: of silence, and below an utterance's loudest


class Dasheng(Encoder):
    """Dasheng; layer i is the input of block i, the last one the output after the final norm.

    Ten seconds attend to one another, and longer audio goes through in such pieces. As in its own code, the last piece is filled
    up with zeros to a whole one, which frames attend to; one that is whole counts (its code on the hub drops that).
    """

    family = ("headwater.upstream.families.dasheng", "Dasheng")

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.smallest = (self.config.patch_columns - 1) * HOP  # samples of one frame
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=16000,
            num_frames=self._num_frames,
        )

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers."""
        encoder = self.model.encoder
        pieces, counts = self._pieces(given.waveforms, given.num_samples)
        attended = [len(piece) // self.config.patch_columns for piece in pieces] * given.copies
        columns = nn.utils.rnn.pad_sequence(pieces, batch_first=True).repeat(given.copies, 1, 1)
        hidden = encoder.patches(columns)  # (piece, frame, dim)
        valid = mask_if_padded(attended, hidden.shape[1], hidden.device)
        inputs = {"attention_mask": None if valid is None else valid[:, None, None, :]}
        values = run_blocks(self.blocks()[: given.last], hidden, inputs, views=given.copies, recomputes=self.recomputes)
        if len(values) == self.spec.num_layers:
            values[-1] = encoder.norm(values[-1])
        whole = max(attended)
        kept = [min(whole, length - start) for length in given.lengths for start in range(0, length, self._whole)]
        return [join_windows(values[index], kept, counts * given.copies) for index in given.wanted]

    def blocks(self) -> list[nn.Module]:
        """Return the transformer blocks in order."""
        return list(self.model.encoder.blocks)

    @property
    def _whole(self) -> int:
        """The frames of a whole piece."""
        return self.config.target_length // self.config.patch_columns

    def _num_frames(self, num_samples: int) -> int:
        return (max(num_samples, self.smallest) // HOP + 1) // self.config.patch_columns

    def _pieces(self, waveforms: Tensor, num_samples: Sequence[int]) -> tuple[list[Tensor], list[int]]:
        """Return the pieces (column, bin) of all utterances in order, and the number of each."""
        waveforms = F.pad(waveforms, (0, max(self.smallest - waveforms.shape[1], 0)))
        size, pieces, counts = self.config.target_length, list[Tensor](), list[int]()
        for row, length in zip(waveforms, num_samples, strict=True):
            columns = self.model.encoder.normed(decibels(row[: max(length, self.smallest)], self.config.num_mel_bins))
            own = list(columns[: self._num_frames(length) * self.config.patch_columns].split(size))
            if len(own) > 1:
                rest = columns[size * (len(own) - 1) :][:size]  # with the columns of a frame that is not whole
                own[-1] = F.pad(rest, (0, 0, 0, size - len(rest)))
            pieces, counts = pieces + own, [*counts, len(own)]
        return pieces, counts


@torch.no_grad()
def decibels(waveform: Tensor, num_bins: int) -> Tensor:
    """Return the log-mel spectrum (column, bin) of one utterance, cut 120 dB below its loudest."""
    levels = 10 * mel_power(waveform, num_bins, _WINDOW).clamp(min=10 ** (_QUIETEST / 10)).log10()
    return levels.clamp(min=float(levels.max()) - _RANGE)


def _wrapped(model: Any, config: UpstreamConfig, source: Source) -> Dasheng:  # noqa: ARG001
    return Dasheng(model)


register_family(
    HubFamily(
        "dasheng",
        "Dasheng",
        "headwater.upstream.hub.dasheng",
        "DashengModel",
        _wrapped,
        BLOCK_OPTIONS,
        blocks="encoder.blocks",
        checkpoints={
            "dasheng": "mispeech/dasheng-base",
            "dasheng_600m": "mispeech/dasheng-0.6B",
            "dasheng_1b": "mispeech/dasheng-1.2B",
        },
        tiny={
            "test_dasheng": Tiny(
                "Dasheng",
                {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "target_length": 100}
                | {"mlp_ratio": 2, "num_mel_bins": 64, "initializer_range": 0.1},
            )
        },
    )
)
