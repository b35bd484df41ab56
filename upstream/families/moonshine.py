"""Moonshine's encoder: three convolutions over the waveform, blocks with rotary positions, a frame of 24 ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import UpstreamConfig, UpstreamSpec
from ..exact_padding import conv_length, group_norm_each, mask_if_padded, receptive_field
from ..hub.encoder import Encoder, Pass
from ..hub.family import BLOCK_OPTIONS, HubFamily, Source, Tiny
from ..hub.passes import run_blocks
from ..hub.register import register_family

_KERNELS, _STRIDES = (127, 7, 3), (64, 3, 2)
_SMALLEST = receptive_field(_KERNELS, _STRIDES)  # samples of one frame


class MoonshineEncoder(Encoder):
    """Moonshine's encoder; layer i is the input of block i, the last one the output after the final norm."""

    family = ("headwater.upstream.families.moonshine", "MoonshineEncoder")

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=16000,
            num_frames=_frames,
        )

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers; the convolutions run once for all views."""
        hidden = self._features(given.waveforms, given.num_samples).repeat(given.copies, 1, 1)  # (batch, frame, dim)
        valid = mask_if_padded(given.lengths, hidden.shape[1], hidden.device)
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        inputs = {
            "attention_mask": None if valid is None else valid[:, None, None, :],  # broadcasts over (batch, head, query, key)
            "position_embeddings": self.model.rotary_emb(hidden, position_ids=positions),
        }
        values = run_blocks(self.blocks()[: given.last], hidden, inputs, recomputes=self.recomputes)
        if len(values) == self.spec.num_layers:
            values[-1] = self.model.layer_norm(values[-1])
        return [values[index] for index in given.wanted]

    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over the waveform, and their norm."""
        return [self.model.conv1, self.model.groupnorm, self.model.conv2, self.model.conv3]

    @torch.no_grad()  # the front end stays frozen: this family has no option `front_end`
    def _features(self, waveforms: Tensor, num_samples: Sequence[int]) -> Tensor:
        """Return the convolutions' output (batch, frame, dim); the norm over time sees valid frames only."""
        model = self.model
        waveforms = F.pad(waveforms, (0, max(_SMALLEST - waveforms.shape[1], 0)))
        lengths = [conv_length(max(length, _SMALLEST), _KERNELS[:1], _STRIDES[:1]) for length in num_samples]
        hidden = torch.tanh(model.conv1(waveforms.unsqueeze(1)))  # (batch, dim, frame)
        hidden = F.gelu(model.conv2(group_norm_each(model.groupnorm, hidden, lengths)))
        return F.gelu(model.conv3(hidden)).transpose(1, 2)


def _frames(num_samples: int) -> int:
    return conv_length(max(num_samples, _SMALLEST), _KERNELS, _STRIDES)


def _wrapped(model: Any, config: UpstreamConfig, source: Source) -> MoonshineEncoder:  # noqa: ARG001
    return MoonshineEncoder(model)


register_family(
    HubFamily(
        "moonshine",
        "Moonshine's encoder",
        "moonshine.modeling_moonshine",
        "MoonshineEncoder",
        _wrapped,
        BLOCK_OPTIONS - {"dropout_of"},  # its attention alone has dropout
        blocks="layers",
        count="encoder_num_hidden_layers",
        # a folder holds the whole model: the encoder's weights lose the prefix, the decoder's are passed over
        loaded_with={"key_mapping": {r"^(model\.)?encoder\.": ""}},
        checkpoints={"moonshine_tiny": "UsefulSensors/moonshine-tiny", "moonshine_base": "UsefulSensors/moonshine-base"},
        tiny={
            "test_moonshine": Tiny(
                "Moonshine's encoder",
                {
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "encoder_num_hidden_layers": 4,
                    "decoder_num_hidden_layers": 4,
                    "encoder_num_attention_heads": 4,
                    "decoder_num_attention_heads": 4,
                    "initializer_range": 0.1,
                },
            )
        },
    )
)
