"""ModernBERT: rotary positions, and in two of three blocks attention to the neighbourhood alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...hub.family import HubFamily, HubTokenizer, Tiny
from ...hub.register import register_family
from ...hub.text_encoder import TEXT_OPTIONS, BlockInputs, TextFamily
from ...hub.tiny import SMALL_TEXT

_SPECIAL = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
_NAMES = {"bos_token": "[CLS]", "cls_token": "[CLS]", "eos_token": "[SEP]", "sep_token": "[SEP]", "unk_token": "[UNK]"} | {
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_TOKENS = {"cls_token_id": 0, "bos_token_id": 0, "pad_token_id": 1, "sep_token_id": 2, "eos_token_id": 2}


def _begin(model: Any, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> tuple[Tensor, BlockInputs]:
    """Return the input of the first block (batch, token, dim), and what each block is given: its mask, its rotations."""
    hidden, kinds = model.embeddings(input_ids=tokens), model.config.layer_types
    distance = (positions.unsqueeze(2) - positions.unsqueeze(1)).abs()  # (1, token, token)
    near = (distance <= model.config.sliding_window).unsqueeze(1)
    masks = {"full_attention": mask, "sliding_attention": near if mask is None else near & mask}
    rotations = {kind: model.rotary_emb(hidden, positions, kind) for kind in sorted({*kinds})}
    return hidden, lambda number: {
        "attention_mask": masks[kinds[number]],
        "position_embeddings": rotations[kinds[number]],
    }


_MODERNBERT = TextFamily(_begin, end=lambda model, hidden: model.final_norm(hidden), blocks="layers")

register_family(
    HubFamily(
        "modernbert",
        "ModernBERT",
        "modernbert.modeling_modernbert",
        "ModernBertModel",
        _MODERNBERT.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_MODERNBERT.blocks,
        # a checkpoint has a tokenizer.json; the tiny one's is cut as RoBERTa's
        tokenizer=HubTokenizer("roberta.tokenization_roberta", "RobertaTokenizer", (), "byte pairs", _SPECIAL, _NAMES),
        checkpoints={
            "modernbert": "answerdotai/ModernBERT-base",
            "modernbert_base": "answerdotai/ModernBERT-base",
            "modernbert_large": "answerdotai/ModernBERT-large",
        },
        tiny={"test_modernbert": Tiny("ModernBERT", SMALL_TEXT | _TOKENS | {"local_attention": 8, "mlp_dropout": 0.1})},
    )
)
