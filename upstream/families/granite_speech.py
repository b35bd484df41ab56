"""Granite Speech's encoder: log-mel energies, two columns of 10 ms a frame, conformer blocks that attend within four seconds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import UpstreamConfig, UpstreamSpec
from ..exact_padding import mask_if_padded
from ..hub.encoder import Encoder, Pass
from ..hub.family import BLOCK_OPTIONS, HubFamily, Source, Tiny
from ..hub.htk_mel import HOP, mel_power
from ..hub.passes import run_blocks
from ..hub.register import register_family

_STACKED, _WINDOW = 2, 400  # columns of a frame; samples of a column
_SMALLEST = 2 * HOP  # samples of one frame
_CONDITIONED = "conditioned_block"  # in the config: the block whose output gets what its own CTC head says


class GraniteSpeechEncoder(Encoder):
    """Granite Speech's encoder; layer i is the input of block i, the last one the last block's output, which ends in its norm.

    The block in the middle adds the characters that it recognises to its output, as in training: they are in the layer behind it.
    Batch norms keep the statistics of pretraining, in training too: those of a batch would tie an utterance to its mates.
    """

    family = ("headwater.upstream.families.granite_speech", "GraniteSpeechEncoder")

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        if getattr(self.config, _CONDITIONED, None) is None:  # of a pruned model it stays where it was
            setattr(self.config, _CONDITIONED, model.num_layers // 2)
        for number, block in enumerate(self.blocks(), start=1):
            block.forward = partial(_forward, block, model if number == getattr(self.config, _CONDITIONED) else None)
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_dim,
            sample_rate=16000,
            num_frames=_frames,
        )

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers."""
        stacked = log_mel_pairs(given.waveforms, given.num_samples, self.config.input_dim // _STACKED)
        hidden = self.model.input_linear(stacked).repeat(given.copies, 1, 1)  # (batch, frame, dim)
        valid = mask_if_padded(given.lengths, hidden.shape[1], hidden.device)
        inputs = {"valid": valid, "distances": self.model.attention_dists}
        values = run_blocks(self.blocks()[: given.last], hidden, inputs, views=given.copies, recomputes=self.recomputes)
        return [values[index] for index in given.wanted]


def _frames(num_samples: int) -> int:
    return (max(num_samples, _SMALLEST) // HOP + 1) // _STACKED


@torch.no_grad()
def log_mel_pairs(waveforms: Tensor, num_samples: Sequence[int], num_bins: int) -> Tensor:
    """Return log-mel energies (batch, frame, bin), two columns side by side, of each utterance as if it were alone."""
    waveforms = F.pad(waveforms, (0, max(_SMALLEST - waveforms.shape[1], 0)))
    rows = []
    for row, length in zip(waveforms, num_samples, strict=True):
        energies = mel_power(row[: max(length, _SMALLEST)], num_bins, _WINDOW).clamp(min=1e-10).log10()
        energies = torch.maximum(energies, energies.max() - 8.0) / 4 + 1
        rows.append(energies[: _frames(length) * _STACKED].reshape(-1, _STACKED * num_bins))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _forward(block: Any, conditioning: Any, hidden: Tensor, *, valid: Tensor | None, distances: Tensor) -> Tensor:
    """Return a block's output (batch, frame, dim): nothing valid depends on what is not."""
    hidden = 0.5 * block.ff1(hidden) + hidden
    hidden = _attend(block.attn, hidden, valid, distances) + hidden
    hidden = _convolve(block.conv, hidden, valid) + hidden
    hidden = block.post_norm(0.5 * block.ff2(hidden) + hidden)
    if conditioning is None:
        return hidden
    return hidden + conditioning.out_mid(conditioning.out(hidden).softmax(dim=-1))


def _attend(attention: Any, hidden: Tensor, valid: Tensor | None, distances: Tensor) -> Tensor:
    """Attend within pieces of `context_size` frames; a shorter utterance is one piece of its own size."""
    batch, frames, _ = hidden.shape
    size = min(attention.context_size, frames)
    behind = -frames % size
    hidden = F.pad(attention.pre_norm(hidden), (0, 0, 0, behind))
    # (piece, head, frame, dim)
    query, key, value = (
        part.reshape(-1, size, attention.num_heads, attention.dim_head).transpose(1, 2)
        for part in (attention.to_q(hidden), *attention.to_kv(hidden).chunk(2, dim=2))
    )
    scale, table = attention.dim_head**-0.5, attention.rel_pos_emb(distances[:size, :size]).to(query.dtype)
    bias = torch.einsum("bhcd,crd->bhcr", query, table) * scale
    if valid is not None or behind:
        seen = hidden.new_ones(batch, frames, dtype=torch.bool) if valid is None else valid
        seen = F.pad(seen, (0, behind)).view(-1, 1, 1, size)
        bias = bias.masked_fill(~seen, torch.finfo(bias.dtype).min)  # finite: a piece may be padding alone
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
    attended = attended.transpose(1, 2).reshape(batch, frames + behind, -1)[:, :frames]
    return attention.dropout(attention.to_out(attended))


def _convolve(module: Any, hidden: Tensor, valid: Tensor | None) -> Tensor:
    hidden = module.glu(module.up_conv(module.norm(hidden).transpose(1, 2)))  # (batch, dim, frame)
    if valid is not None:
        hidden = hidden * valid.unsqueeze(1)
    norm, hidden = module.batch_norm, module.depth_conv(hidden)
    hidden = F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)
    return module.dropout(module.down_conv(module.silu(hidden)).transpose(1, 2))


def _wrapped(model: Any, config: UpstreamConfig, source: Source) -> GraniteSpeechEncoder:  # noqa: ARG001
    return GraniteSpeechEncoder(model)


register_family(
    HubFamily(
        "granite_speech_encoder",
        "Granite Speech's encoder",
        "granite_speech.modeling_granite_speech",
        "GraniteSpeechCTCEncoder",
        _wrapped,
        BLOCK_OPTIONS,
        blocks="layers",
        inside={"granite_speech": "encoder_config"},
        loaded_with={"key_mapping": {r"^(model\.)?encoder\.": ""}},
        checkpoints={
            "granite_speech": "ibm-granite/granite-speech-3.3-2b",
            "granite_speech_8b": "ibm-granite/granite-speech-3.3-8b",
        },
        tiny={
            "test_granite_speech": Tiny(
                "Granite Speech's encoder",
                {"hidden_dim": 64, "num_layers": 4, "num_heads": 4, "input_dim": 160, "output_dim": 12, "feedforward_mult": 2}
                | {"context_size": 20, "max_pos_emb": 32, "initializer_range": 0.3},
            )
        },
    )
)
