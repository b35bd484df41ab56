"""Conformer blocks of transformers, made exact: a convolution sees no padding, a batch norm no other utterance."""

from __future__ import annotations

import types
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def make_exact(block: Any) -> None:
    """Let a block of wav2vec 2.0 Conformer take `conv_attention_mask` (batch, frame), as w2v-BERT's does."""
    block.forward = types.MethodType(_forward, block)


def _forward(
    block: Any,
    hidden: Tensor,
    attention_mask: Tensor | None = None,
    relative_position_embeddings: Tensor | None = None,
    conv_attention_mask: Tensor | None = None,
) -> Tensor:
    hidden = block.ffn1(block.ffn1_layer_norm(hidden)) * 0.5 + hidden
    attended, _ = block.self_attn(
        hidden_states=block.self_attn_layer_norm(hidden),
        attention_mask=attention_mask,
        relative_position_embeddings=relative_position_embeddings,
    )
    hidden = block.self_attn_dropout(attended) + hidden
    hidden = _convolve(block.conv_module, hidden, conv_attention_mask) + hidden
    hidden = block.ffn2(block.ffn2_layer_norm(hidden)) * 0.5 + hidden
    return block.final_layer_norm(hidden)


def _convolve(module: Any, hidden: Tensor, valid: Tensor | None) -> Tensor:
    hidden = module.layer_norm(hidden).transpose(1, 2)  # (batch, dim, frame)
    hidden = module.glu(module.pointwise_conv1(hidden))
    if valid is not None:
        hidden = hidden * valid.unsqueeze(1)
    norm, hidden = module.batch_norm, module.depthwise_conv(hidden)
    # statistics of a batch would tie an utterance to its mates: those of pretraining stay
    hidden = F.batch_norm(hidden, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)
    hidden = module.dropout(module.pointwise_conv2(module.activation(hidden)))
    return hidden.transpose(1, 2)


def block_inputs(encoder: Any, hidden: Tensor, valid: Tensor | None) -> dict[str, Any]:
    """Return what each block is given: positions, and the mask (batch, frame) for attention and for convolutions."""
    positions = None if encoder.embed_positions is None else encoder.embed_positions(hidden)
    mask = None if valid is None else valid[:, None, None, :]  # broadcasts over (batch, head, query, key)
    return {"attention_mask": mask, "relative_position_embeddings": positions, "conv_attention_mask": valid}
