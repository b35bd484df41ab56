"""HuBERT and its relatives: convolutions over the waveform, a projection, transformer blocks."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...corpus.batch import Batch, as_batch
from ..base import Layers, Upstream, UpstreamConfig, UpstreamSpec, checked_waveforms, named_layers
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
from .cpu_dropout import attend, speed_up
from .family import Source, share
from .passes import augmented, is_maskable, replace_frames, run_blocks


def _begin(encoder: Any, hidden: Tensor, valid: Tensor | None, exact: bool) -> tuple[Tensor, dict[str, Any]]:
    positional = positions(encoder.pos_conv_embed, hidden, valid) if exact else encoder.pos_conv_embed(hidden)
    hidden = hidden + positional
    hidden = encoder.dropout(hidden if norms_output(encoder) else encoder.layer_norm(hidden))
    # broadcasts over (batch, head, query, key)
    return hidden, {"attention_mask": None if valid is None else valid[:, None, None, :]}


def norms_output(encoder: Any) -> bool:
    """Tell whether each block normalises its input, and the encoder its output."""
    return getattr(encoder.config, "do_stable_layer_norm", False)


@dataclass(frozen=True)
class Around:
    """What stands around the blocks of a relative's encoder; the defaults are HuBERT's."""

    project: Callable[[Any, Tensor], Any] = lambda model, features: model.feature_projection(features)
    # encoder, frames with zeros behind each end, mask (batch, frame) or None, exact -> input of block 1, what each block gets
    begin: Callable[[Any, Tensor, Tensor | None, bool], tuple[Tensor, dict[str, Any]]] = _begin
    norms_output: Callable[[Any], bool] = norms_output
    squeeze: Callable[[Any], int] = lambda _: 1  # config -> frames of the convolutions that become one of the blocks
    tokens: Callable[[Any], int] = lambda _: 0  # config -> what `begin` puts in front of the frames, which is in no layer of ours


HUBERT = Around()


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
        around: Around = HUBERT,
    ) -> None:
        super().__init__()
        self.model, self._around, self._squeeze = model, around, around.squeeze(model.config)
        self.config: Any = model.config
        self.exact = padding == "exact"
        self.spec_augment = spec_augment
        self.model.feature_extractor.requires_grad_(False)  # until `front_end: trained` says otherwise
        # of training alone: no part of what the store keeps, whose keys take the public attributes
        self._layerdrop, self._front_end_gradient, self._is_new = layerdrop, front_end_gradient, is_new
        self.recomputes = False
        # a mean over frames counts as one more convolution
        self._kernels, self._strides = [*self.config.conv_kernel, self._squeeze], [*self.config.conv_stride, self._squeeze]
        self.smallest = receptive_field(self._kernels, self._strides)
        self.stable = around.norms_output(model.encoder)
        speed_up(model.encoder, self.config)
        for block in self.blocks():
            attention: Any = getattr(block, "attention", None)
            if hasattr(attention, "torch_multi_head_self_attention"):
                attention.torch_multi_head_self_attention = types.MethodType(attend_with_bias, attention)
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=16000,
            num_frames=self._num_frames,
            normalize=normalize,
            maskable=is_maskable(model),
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
        projected = self._around.project(self.model, features.repeat(copies, 1, 1))
        hidden = projected[0] if isinstance(projected, tuple) else projected  # (batch, frame, dim)
        if masked is not None:
            masked = masked.to(hidden.device).repeat(len(hidden) // len(masked), 1)
            hidden = replace_frames(self.model, hidden, self._widened(masked, lengths, hidden.shape[1]))
        if self.spec_augment and self.training:
            hidden = augmented(self.model, hidden, attended)
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
        frames = conv_length(max(num_samples, self.smallest), self._kernels, self._strides)
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
        encoder, around = self.model.encoder, self._around
        hidden, inputs = around.begin(encoder, zero_padding(hidden, valid), valid, self.exact)
        layerdrop = self._layerdrop if self.training else 0.0
        blocks = encoder.layers[:last]
        values = run_blocks(blocks, hidden, inputs, views=views, layerdrop=layerdrop, recomputes=self.recomputes)
        if self.stable and len(values) == self.spec.num_layers:
            values[-1] = encoder.layer_norm(values[-1])
        tokens = around.tokens(self.config)
        return [value[:, tokens:] for value in values] if tokens else values

    def _widened(self, masked: Tensor, lengths: Sequence[int], num_frames: int) -> Tensor:
        """Return a mask of the blocks' frames as one of the convolutions': what is left over at an end goes with the last one."""
        if self._squeeze == 1:
            return masked
        ends = torch.tensor(lengths, device=masked.device).unsqueeze(1) - 1
        index = torch.arange(num_frames, device=masked.device).unsqueeze(0) // self._squeeze
        return masked.gather(1, torch.minimum(index, ends))


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
    attended, _ = attend(attention, query, key, value, bias, attention.dropout if attention.training else 0.0)
    return attention.out_proj(attended.reshape(hidden.shape)), None


def wrapped(model: Any, config: UpstreamConfig, source: Source, around: Around = HUBERT) -> HubertFamily:
    """Return a transformers model as an upstream whose waveforms are prepared as in its training."""
    settings, given = model.config, source.input_options
    # models with layer norms in the convolutions got normalised waveforms, the others raw ones
    # (the hub's preprocessor_config.json says do_normalize for those too, which is wrong)
    trained = settings.model_type == "data2vec-audio" or settings.feat_extract_norm == "layer"
    trained = getattr(settings, "normalize_waveform", trained)  # said where a file of s3prl's departs from that
    normalize = {"auto": trained, "yes": True, "no": False}[config.normalize_waveform]
    return HubertFamily(
        model,
        normalize=given.get("normalize", normalize),
        padding=given.get("padding", config.padding),
        spec_augment=config.spec_augment,
        layerdrop=source.trained_layerdrop if config.layerdrop is None else share(config.layerdrop, "layerdrop"),
        front_end_gradient=config.front_end_gradient,
        is_new=source.is_new,
        around=around,
    )
