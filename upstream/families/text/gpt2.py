"""GPT-2: each token attends to those before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...hub.family import HubFamily, HubTokenizer, Tiny
from ...hub.register import register_family
from ...hub.text_encoder import TEXT_OPTIONS, BlockInputs, TextFamily

_TINY = {
    "vocab_size": 1024,
    "n_embd": 64,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 128,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _begin(model: Any, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> tuple[Tensor, BlockInputs]:
    """Return the input of the first block (batch, token, dim)."""
    return model.drop(model.wte(tokens) + model.wpe(positions)), lambda _: {"attention_mask": mask}


_GPT2 = TextFamily(_begin, end=lambda model, hidden: model.ln_f(hidden), blocks="h", causal=True)

register_family(
    HubFamily(
        "gpt2",
        "GPT-2",
        "gpt2.modeling_gpt2",
        "GPT2Model",
        _GPT2.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_GPT2.blocks,
        tokenizer=HubTokenizer(
            *("gpt2.tokenization_gpt2", "GPT2Tokenizer", ("vocab.json", "merges.txt"), "byte pairs", ("<|endoftext|>",))
        ),
        checkpoints={
            "gpt2": "openai-community/gpt2",
            "gpt2_medium": "openai-community/gpt2-medium",
            "gpt2_large": "openai-community/gpt2-large",
            "distilgpt2": "distilbert/distilgpt2",
        },
        tiny={"test_gpt2": Tiny("GPT-2", _TINY)},
    )
)
