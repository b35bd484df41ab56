"""Qwen3 and its embeddings: rotary positions, each token attends to those before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...hub.family import HubFamily, HubTokenizer, Tiny
from ...hub.register import register_family
from ...hub.text_encoder import TEXT_OPTIONS, BlockInputs, TextFamily
from ...hub.tiny import SMALL_TEXT

_SIZES = {"num_key_value_heads": 2, "head_dim": 16, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def _begin(model: Any, tokens: Tensor, positions: Tensor, _: Tensor | None) -> tuple[Tensor, BlockInputs]:
    """Return the input of the first block (batch, token, dim), and what each block is given: its mask, the rotations."""
    hidden, kinds = model.embed_tokens(tokens), model.config.layer_types
    rotations = model.rotary_emb(hidden, positions)
    behind = positions.unsqueeze(2) - positions.unsqueeze(1)  # (1, token, token)
    # without a mask attention is causal by itself
    near = None if not model.has_sliding_layers else ((behind >= 0) & (behind < model.config.sliding_window)).unsqueeze(1)
    return hidden, lambda number: {
        "attention_mask": near if kinds[number] == "sliding_attention" else None,
        "position_embeddings": rotations,
    }


_QWEN3 = TextFamily(_begin, end=lambda model, hidden: model.norm(hidden), blocks="layers", causal=True)

register_family(
    HubFamily(
        "qwen3",
        "Qwen3",
        "qwen3.modeling_qwen3",
        "Qwen3Model",
        _QWEN3.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_QWEN3.blocks,
        tokenizer=HubTokenizer(
            *("qwen2.tokenization_qwen2", "Qwen2Tokenizer", ("vocab.json", "merges.txt"), "byte pairs", ("<|endoftext|>",))
        ),
        checkpoints={
            "qwen3_embedding": "Qwen/Qwen3-Embedding-0.6B",  # of texts: its last token
            "qwen3_embedding_4b": "Qwen/Qwen3-Embedding-4B",
            "qwen3_embedding_8b": "Qwen/Qwen3-Embedding-8B",
        },
        tiny={"test_qwen3": Tiny("Qwen3", SMALL_TEXT | _SIZES)},
    )
)
