"""HuBERT and its relatives: convolutions over the waveform, a projection, transformer blocks."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...corpus.batch import Batch, as_batch
from ..base import Layers, Upstream, UpstreamSpec, checked_waveforms, named_layers, run_block
from ..exact_padding import (
    conv_length,
    convolve,
    mask_if_padded,
    padding_mask_as_fairseq,
    positions,
    receptive_field,
    standardize,
    zero_padding,
)
from ..spans import random_spans


class HubertFamily(Upstream):
    """A transformers model of the wav2vec 2.0 kind; layer i is the input of block i, the last one the encoder's output."""

    family = ("headwater.upstream.hubert_family", "HubertFamily")

    model: Any  # transformers' model

    def __init__(
        self,
        model: Any,
        *,
        normalize: bool,
        padding: Literal["exact", "s3prl"] = "exact",
        spec_augment: bool = False,
        layerdrop: float = 0.0,  # share of blocks that a training step skips
        front_end_gradient: float = 1.0,  # by which the gradient of trained convolutions is multiplied
        is_new: bool = False,  # its convolutions know nothing yet: they are trained as everything else
    ) -> None:
        super().__init__()
        self.model = model
        self.config: Any = model.config
        self.exact = padding == "exact"
        self.spec_augment = spec_augment
        self.model.feature_extractor.requires_grad_(False)  # until `front_end: trained` says otherwise
        # of training alone: no part of what the store keeps, whose keys take the public attributes
        self._layerdrop, self._front_end_gradient, self._is_new = layerdrop, front_end_gradient, is_new
        self.recomputes = False
        self.smallest = receptive_field(self.config.conv_kernel, self.config.conv_stride)
        # stable: each block normalises its input, and the encoder its output
        self.stable = getattr(self.config, "do_stable_layer_norm", False)
        for block in self.blocks():
            if hasattr(block.attention, "torch_multi_head_self_attention"):
                block.attention.torch_multi_head_self_attention = types.MethodType(attend_with_bias, block.attention)
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=16000,
            num_frames=self._num_frames,
            normalize=normalize,
            maskable=hasattr(model, "masked_spec_embed"),
        )

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,
        masked: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers of each utterance; the convolutions run once for all views."""
        wanted = named_layers(layers, self.spec.num_layers)
        features, num_samples = self._features(as_batch(batch))
        copies = views if self.training else 1  # in eval mode two views would be the same
        lengths = self._lengths(num_samples, features.shape[1]) * copies
        attended = self._attended(num_samples, features.shape[1]) * copies
        projected = self.model.feature_projection(features.repeat(copies, 1, 1))
        hidden = projected[0] if isinstance(projected, tuple) else projected  # (batch, frame, dim)
        if masked is not None:
            hidden = self._replace(hidden, masked.to(hidden.device).repeat(len(hidden) // len(masked), 1))
        if self.spec_augment and self.training:
            hidden = self._augment(hidden, attended)
        valid = mask_if_padded(attended, hidden.shape[1], hidden.device)
        values = self._encode(hidden, valid, last=max(wanted), views=copies)
        return Layers([values[index] for index in wanted], lengths)

    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over the waveform."""
        return [] if self._is_new else [self.model.feature_extractor]

    def architecture(self) -> dict[str, Any]:
        """Return the model's config, and how its waveforms are prepared: another run may have decided it."""
        input_options = {"normalize": self.spec.normalize, "padding": "exact" if self.exact else "s3prl"}
        return {"model": self.config.to_dict(), "heard": input_options}

    def blocks(self) -> list[nn.Module]:
        """Return the transformer blocks in order."""
        return list(self.model.encoder.layers)

    def recompute_blocks(self) -> None:
        """From now on keep nothing inside a block in training: the backward pass runs it again."""
        self.recomputes = True

    def _num_frames(self, num_samples: int) -> int:
        frames = conv_length(max(num_samples, self.smallest), self.config.conv_kernel, self.config.conv_stride)
        return frames if self.exact else max(min(round(num_samples / 320), frames), 1)

    def _lengths(self, num_samples: Sequence[int], num_frames: int) -> tuple[int, ...]:
        if self.exact:
            return tuple(self._num_frames(length) for length in num_samples)
        # s3prl's featurizer counts so: up to one frame of an utterance is made of its padding
        return tuple(max(min(round(length / 320), num_frames), 1) for length in num_samples)

    def _attended(self, num_samples: Sequence[int], num_frames: int) -> tuple[int, ...]:
        # s3prl: wav2vec 2.0, data2vec and DistilHuBERT (the one without a norm before the projection) count exactly
        counts_exactly = self.config.model_type in {"wav2vec2", "data2vec-audio"} or not getattr(
            self.config, "feat_proj_layer_norm", True
        )
        if self.exact or counts_exactly:
            kernels, strides = self.config.conv_kernel, self.config.conv_stride
            return tuple(conv_length(max(length, self.smallest), kernels, strides) for length in num_samples)
        return padding_mask_as_fairseq([max(length, self.smallest) for length in num_samples], num_frames)

    def _features(self, batch: Batch) -> tuple[Tensor, tuple[int, ...]]:
        """Return the convolutions' output (batch, frame, dim) and each utterance's samples."""
        waveforms, lengths = checked_waveforms(batch, next(self.parameters()).device)
        if self.spec.normalize:
            waveforms = standardize(waveforms, lengths)
        waveforms = F.pad(waveforms, (0, max(self.smallest - waveforms.shape[1], 0)))
        at_least = [max(length, self.smallest) for length in lengths]
        layers = self.model.feature_extractor.conv_layers
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in layers.parameters())
        with torch.set_grad_enabled(trained):
            features = convolve(layers, waveforms, at_least, exact=self.exact)
        if trained and self._front_end_gradient != 1.0:
            features.register_hook(lambda gradient: gradient * self._front_end_gradient)
        return features, lengths

    def _encode(self, hidden: Tensor, valid: Tensor | None, *, last: int, views: int) -> list[Tensor]:
        """Return the layers up to the last one named, running no block behind it."""
        encoder = self.model.encoder
        hidden = zero_padding(hidden, valid)
        hidden = hidden + (positions(encoder.pos_conv_embed, hidden, valid) if self.exact else encoder.pos_conv_embed(hidden))
        hidden = encoder.dropout(hidden if self.stable else encoder.layer_norm(hidden))
        mask = None if valid is None else valid[:, None, None, :]  # broadcasts over (batch, head, query, key)
        values = [hidden]
        position_bias: dict[str, Tensor] = {}  # WavLM: the first block makes it for all
        for index, block in enumerate(encoder.layers[:last]):
            # the first block is never skipped: WavLM's makes the position bias of all
            kept = self._kept(views) if index else [True] * views
            if not any(kept):
                values.append(hidden)
                continue
            output = run_block(block, hidden, self.recomputes, attention_mask=mask, **position_bias)
            if isinstance(output, tuple):
                output, position_bias = output[0], {"position_bias": output[1]}
            rows = zip(output.chunk(views), hidden.chunk(views), kept, strict=True)
            hidden = output if all(kept) else torch.cat([after if keep else before for after, before, keep in rows])
            values.append(hidden)
        if self.stable and len(values) == self.spec.num_layers:
            values[-1] = encoder.layer_norm(values[-1])
        return values

    def _kept(self, views: int) -> list[bool]:
        """Return which views go through a block: each draws for itself, as it would in a pass of its own."""
        if not (self.training and self._layerdrop):
            return [True] * views
        return [torch.rand(()).item() >= self._layerdrop for _ in range(views)]

    def _replace(self, hidden: Tensor, masked: Tensor) -> Tensor:
        """Return the frames (batch, frame, dim) with the model's mask embedding where masked (batch, frame)."""
        if not self.spec.maskable:
            raise ValueError(f"Expected a model with a mask embedding, found none in '{self.source}'. Leave `masked` out.")
        if masked.shape != hidden.shape[:2]:
            raise ValueError(f"Expected `masked` of shape {tuple(hidden.shape[:2])}, found {tuple(masked.shape)}.")
        return torch.where(masked.bool().unsqueeze(2), self.model.masked_spec_embed.to(hidden.dtype), hidden)

    def _augment(self, hidden: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the frames with spans of time replaced and spans of dims zeroed, as the model's config says."""
        batch, _, dim = hidden.shape
        config = self.config
        if config.mask_time_prob > 0 and self.spec.maskable:
            spans = [random_spans(n, config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks) for n in lengths]
            hidden = self._replace(hidden, nn.utils.rnn.pad_sequence(spans, batch_first=True).to(hidden.device))
        if config.mask_feature_prob > 0:
            prob, length, least = config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks
            zeroed = torch.stack([random_spans(dim, prob, length, least) for _ in range(batch)]).to(hidden.device)
            hidden = hidden.masked_fill(zeroed.unsqueeze(1), 0.0)
        return hidden


def attend_with_bias(attention: Any, hidden: Tensor, mask: Tensor | None, bias: Tensor) -> tuple[Tensor, None]:
    """Attend as WavLM does, by the fused kernel: transformers' own keeps every head's weights (1.16 times slower at 15 s)."""
    batch, frames, _ = hidden.shape
    shape = (batch, frames, attention.num_heads, attention.head_dim)
    query, key, value = (
        layer(hidden).view(shape).transpose(1, 2) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    bias = bias.view(batch, attention.num_heads, frames, frames).to(query.dtype)
    if mask is not None:
        bias = bias.masked_fill(~mask, float("-inf"))
    dropout = attention.dropout if attention.training else 0.0
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    return attention.out_proj(attended.transpose(1, 2).reshape(hidden.shape)), None
