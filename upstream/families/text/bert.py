"""BERT, RoBERTa, XLM-R and DistilBERT: every token attends to every other, at positions of its own."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...hub.family import HubFamily, HubTokenizer, Tiny
from ...hub.register import register_family
from ...hub.text_encoder import TEXT_OPTIONS, BlockInputs, TextFamily
from ...hub.tiny import SMALL_TEXT

_WITHOUT_POOLER = {"add_pooling_layer": False}  # behind the last block: no layer of ours
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_TINY_DISTILBERT = {
    "vocab_size": 1024,
    "dim": 64,
    "hidden_dim": 128,
    "n_layers": 4,
    "n_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}


def begin(model: Any, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> tuple[Tensor, BlockInputs]:
    """Return the input of the first block (batch, token, dim), and the mask that each block is given."""
    return model.embeddings(input_ids=tokens, position_ids=positions), lambda _: {"attention_mask": mask}


_BERT, _ROBERTA = TextFamily(begin), TextFamily(begin, positions_behind_padding=True)
_DISTILBERT = TextFamily(begin, blocks="transformer.layer")

register_family(
    HubFamily(
        "bert",
        "BERT",
        "bert.modeling_bert",
        "BertModel",
        _BERT.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_BERT.blocks,
        made_with=_WITHOUT_POOLER,
        tokenizer=HubTokenizer("bert.tokenization_bert", "BertTokenizer", ("vocab.txt",)),
        checkpoints={
            "bert": "google-bert/bert-base-uncased",
            "bert_base_uncased": "google-bert/bert-base-uncased",
            "bert_base_cased": "google-bert/bert-base-cased",
            "bert_large": "google-bert/bert-large-uncased",
            "minilm": "sentence-transformers/all-MiniLM-L6-v2",  # of sentences: a mean over its last layer's tokens
            "minilm_multilingual": "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
            "tinybert": "huawei-noah/TinyBERT_General_4L_312D",
            "tinybert_6_layers": "huawei-noah/TinyBERT_General_6L_768D",
        },
        tiny={"test_bert": Tiny("BERT", SMALL_TEXT)},
    )
)
register_family(
    HubFamily(
        "distilbert",
        "DistilBERT",
        "distilbert.modeling_distilbert",
        "DistilBertModel",
        _DISTILBERT.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_DISTILBERT.blocks,
        tokenizer=HubTokenizer("distilbert.tokenization_distilbert", "DistilBertTokenizer", ("vocab.txt",)),
        checkpoints={
            "distilbert": "distilbert/distilbert-base-uncased",
            "distilbert_base_cased": "distilbert/distilbert-base-cased",
        },
        tiny={"test_distilbert": Tiny("DistilBERT", _TINY_DISTILBERT)},
    )
)
register_family(
    HubFamily(
        "roberta",
        "RoBERTa",
        "roberta.modeling_roberta",
        "RobertaModel",
        _ROBERTA.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_ROBERTA.blocks,
        made_with=_WITHOUT_POOLER,
        tokenizer=HubTokenizer(
            *("roberta.tokenization_roberta", "RobertaTokenizer", ("vocab.json", "merges.txt"), "byte pairs", _ROBERTA_TOKENS)
        ),
        checkpoints={
            "roberta": "FacebookAI/roberta-base",
            "roberta_large": "FacebookAI/roberta-large",
            "distilroberta": "distilbert/distilroberta-base",
        },
        tiny={"test_roberta": Tiny("RoBERTa", SMALL_TEXT | {"max_position_embeddings": 130})},
    )
)
register_family(
    HubFamily(
        "xlm-roberta",
        "XLM-R",
        "xlm_roberta.modeling_xlm_roberta",
        "XLMRobertaModel",
        _ROBERTA.wrapped,
        TEXT_OPTIONS,
        modality="text",
        blocks=_ROBERTA.blocks,
        made_with=_WITHOUT_POOLER,
        tokenizer=HubTokenizer(
            *("xlm_roberta.tokenization_xlm_roberta", "XLMRobertaTokenizer", ("sentencepiece.bpe.model",), "unigrams"),
            _ROBERTA_TOKENS,
        ),
        checkpoints={
            "xlm_roberta": "FacebookAI/xlm-roberta-base",  # 100 languages
            "xlm_roberta_large": "FacebookAI/xlm-roberta-large",
            "multilingual_e5_base": "intfloat/multilingual-e5-base",  # of sentences
        },
        tiny={"test_xlm_roberta": Tiny("XLM-R", SMALL_TEXT | {"max_position_embeddings": 130})},
    )
)
