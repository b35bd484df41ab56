"""w2v-BERT 2.0: log-mel energies, two frames of 10 ms side by side, and conformer blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import UpstreamConfig, UpstreamSpec
from ..exact_padding import mask_if_padded, zero_padding
from ..hub.conformer import block_inputs
from ..hub.encoder import Encoder, Pass
from ..hub.family import TRAINING_OPTIONS, HubFamily, Source, Tiny, share
from ..hub.passes import augmented, is_maskable, replace_frames, run_blocks
from ..hub.register import register_family
from ..kaldi import SAMPLE_RATE, SHIFT, WINDOW, frames_of, log_mel, mel_filters, povey_window

_STACKED = 2  # frames side by side
_SMALLEST = WINDOW + (_STACKED - 1) * SHIFT  # samples of one frame
_LOUDEST = 2**15  # as Kaldi reads 16-bit samples


class Wav2Vec2Bert(Encoder):
    """w2v-BERT 2.0; layer i is the input of block i, the last one the output of the last block, which ends in a norm of its own.

    A feed-forward part that finetuned models may have between their blocks and an adapter is no layer.
    """

    family = ("headwater.upstream.families.wav2vec2_bert", "Wav2Vec2Bert")

    def __init__(self, model: Any, *, spec_augment: bool = False, layerdrop: float = 0.0) -> None:
        super().__init__(model)
        self.spec_augment, self._layerdrop = spec_augment, layerdrop
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=SAMPLE_RATE,
            num_frames=_frames,
            maskable=is_maskable(model),
        )

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers."""
        features = stacked_log_mel(given.waveforms, given.num_samples, self.config.feature_projection_input_dim // _STACKED)
        hidden, _ = self.model.feature_projection(features.repeat(given.copies, 1, 1))  # (batch, frame, dim)
        if given.masked is not None:
            hidden = replace_frames(self.model, hidden, given.masked.to(hidden.device).repeat(given.copies, 1))
        if self.spec_augment and self.training:
            hidden = augmented(self.model, hidden, given.lengths)
        values = self._encode(hidden, given.lengths, last=given.last, views=given.copies)
        return [values[index] for index in given.wanted]

    def blocks(self) -> list[nn.Module]:
        """Return the conformer blocks in order."""
        return list(self.model.encoder.layers)

    def _encode(self, hidden: Tensor, lengths: Sequence[int], *, last: int, views: int) -> list[Tensor]:
        """Return the layers up to the last one named, running no block behind it."""
        encoder = self.model.encoder
        valid = mask_if_padded(lengths, hidden.shape[1], hidden.device)
        hidden = encoder.dropout(zero_padding(hidden, valid))
        inputs = block_inputs(encoder, hidden, valid)
        layerdrop = self._layerdrop if self.training else 0.0
        blocks = self.blocks()[:last]
        return run_blocks(blocks, hidden, inputs, views=views, layerdrop=layerdrop, recomputes=self.recomputes)


def _frames(num_samples: int) -> int:
    """Return the pairs of windows that an utterance has; a window that is left over makes no frame."""
    return frames_of(max(num_samples, _SMALLEST)) // _STACKED


@cache
def _tables(num_bins: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the window (sample) and the filters (frequency, bin): as precise as the device can."""
    kind = torch.float32 if device.type == "mps" else torch.float64
    return povey_window().to(device, kind), mel_filters(num_bins).to(device, kind)


@torch.no_grad()
def stacked_log_mel(waveforms: Tensor, lengths: Sequence[int], num_bins: int) -> Tensor:
    """Return what transformers' SeamlessM4TFeatureExtractor makes of waveforms: (batch, frame, 2 x bin), zeros behind each end.

    Each bin has mean 0 and variance 1 over all windows of an utterance, also over one that is left over.
    """
    window, mel = _tables(num_bins, waveforms.device)
    padded = F.pad(waveforms, (0, max(_SMALLEST - waveforms.shape[1], 0)))
    with torch.autocast(waveforms.device.type, enabled=False):
        energies = log_mel(padded.to(window.dtype) * _LOUDEST, window, mel)  # (batch, window, bin)
        rows = []
        for row, length in zip(energies, lengths, strict=True):
            windows = row[: frames_of(max(length, _SMALLEST))]
            standard = (windows - windows.mean(dim=0)) / (windows.var(dim=0) + 1e-7).sqrt()
            rows.append(standard[: len(standard) // _STACKED * _STACKED].unflatten(0, (-1, _STACKED)).flatten(1))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True).float()


def _wrapped(model: Any, config: UpstreamConfig, source: Source) -> Wav2Vec2Bert:
    layerdrop = source.trained_layerdrop if config.layerdrop is None else share(config.layerdrop, "layerdrop")
    return Wav2Vec2Bert(model, spec_augment=config.spec_augment, layerdrop=layerdrop)


register_family(
    HubFamily(
        "wav2vec2-bert",
        "w2v-BERT 2.0",
        "wav2vec2_bert.modeling_wav2vec2_bert",
        "Wav2Vec2BertModel",
        _wrapped,
        TRAINING_OPTIONS,
        checkpoints={"w2v_bert_2": "facebook/w2v-bert-2.0"},  # 580 M weights, 4.5 M hours, 143 languages
        tiny={
            "test_w2v_bert": Tiny(
                "w2v-BERT 2.0",
                {
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 4,
                    "conv_depthwise_kernel_size": 7,
                    "initializer_range": 0.1,
                    "hidden_dropout": 0.1,
                },
            )
        },
    )
)
