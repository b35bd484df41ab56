"""DeBERTa v2 and v3: attention by content and by relative position, each with weights of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...hub.family import HubFamily, HubTokenizer, Tiny
from ...hub.register import register_family
from ...hub.text_encoder import TEXT_OPTIONS, BlockInputs, TextFamily
from ...hub.tiny import SMALL_TEXT

_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
_V3 = {
    "relative_attention": True,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
}


def _begin(model: Any, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> tuple[Tensor, BlockInputs]:
    """Return the input of the first block (batch, token, dim), and what each block is given beside it."""
    encoder = model.encoder
    hidden = model.embeddings(input_ids=tokens, position_ids=positions)
    inputs = {
        "attention_mask": tokens.new_ones((1, 1, 1, 1), dtype=torch.bool) if mask is None else mask,
        "relative_pos": encoder.get_rel_pos(hidden),
        "rel_embeddings": encoder.get_rel_embedding(),
    }
    return hidden if mask is None else hidden * mask[:, 0, 0, :, None], lambda _: inputs


def _take(model: Any, number: int, before: Tensor, returned: Any, mask: Tensor | None) -> Tensor:
    """Return a block's output; version 2 adds a convolution behind the first block."""
    hidden, convolution = returned[0], model.encoder.conv
    if number or convolution is None:
        return hidden
    valid = torch.ones(before.shape[:2], dtype=torch.long, device=before.device) if mask is None else mask[:, 0, 0].long()
    return convolution(before, hidden, valid)


_DEBERTA = TextFamily(_begin, take=_take)

register_family(
    HubFamily(
        "deberta-v2",  # what version 3 is called too
        "DeBERTa v3",
        "deberta_v2.modeling_deberta_v2",
        "DebertaV2Model",
        _DEBERTA.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_DEBERTA.blocks,
        attention="eager",  # transformers has no other
        tokenizer=HubTokenizer("deberta_v2.tokenization_deberta_v2", "DebertaV2Tokenizer", ("spm.model",), "unigrams", _TOKENS),
        checkpoints={
            "deberta_v3": "microsoft/deberta-v3-base",
            "deberta_v3_small": "microsoft/deberta-v3-small",
            "deberta_v3_large": "microsoft/deberta-v3-large",
            "mdeberta_v3": "microsoft/mdeberta-v3-base",  # 100 languages
        },
        tiny={
            "test_deberta": Tiny("DeBERTa v3", SMALL_TEXT | _V3),
            "test_deberta_v2": Tiny("DeBERTa v2", SMALL_TEXT | _V3 | {"conv_kernel_size": 3, "conv_act": "gelu"}),
        },
    )
)
