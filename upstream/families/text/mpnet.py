"""MPNet, on which the best known sentence encoders stand: positions of its own, and a bias by distance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...hub.family import HubFamily, HubTokenizer, Tiny
from ...hub.register import register_family
from ...hub.text_encoder import TEXT_OPTIONS, BlockInputs, TextFamily
from ...hub.tiny import SMALL_TEXT

_TOKENS = ("<s>", "<pad>", "</s>", "[UNK]", "<mask>")


def _begin(model: Any, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> tuple[Tensor, BlockInputs]:
    """Return the input of the first block (batch, token, dim), and what each block is given beside it."""
    hidden = model.embeddings(input_ids=tokens, position_ids=positions)
    # its attention adds the mask
    added = None if mask is None else (~mask).to(hidden.dtype) * torch.finfo(hidden.dtype).min
    inputs = {"attention_mask": added, "position_bias": model.encoder.compute_position_bias(hidden)}
    return hidden, lambda _: inputs


_MPNET = TextFamily(_begin, take=lambda _, __, ___, returned, ____: returned[0], positions_behind_padding=True)

register_family(
    HubFamily(
        "mpnet",
        "MPNet",
        "mpnet.modeling_mpnet",
        "MPNetModel",
        _MPNET.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_MPNET.blocks,
        attention="eager",  # transformers has no other
        made_with={"add_pooling_layer": False},  # behind the last block: no layer of ours
        tokenizer=HubTokenizer("mpnet.tokenization_mpnet", "MPNetTokenizer", ("vocab.txt",), "word pieces", _TOKENS),
        checkpoints={
            "mpnet": "microsoft/mpnet-base",
            "all_mpnet": "sentence-transformers/all-mpnet-base-v2",  # of sentences: a mean over its last layer's tokens
        },
        tiny={"test_mpnet": Tiny("MPNet", SMALL_TEXT | {"max_position_embeddings": 130})},
    )
)
