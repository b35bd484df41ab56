"""Tiny untrained models: each family of the hub at a size for tests and first tries, with the same random weights anywhere."""

from __future__ import annotations

import string
from functools import partial
from typing import Any

from ..base import Upstream, UpstreamConfig, register_upstream
from .huggingface import class_of, configure, modality_of, new_model, options_of, wrap
from .tokenizer import tokenizer_class

# the true strides (320 samples a frame); wide initial weights, so that the layers differ as those of a trained model do
_SMALL = {
    "conv_dim": (32, 32, 32, 32, 32, 64, 64),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "initializer_range": 0.1,
}
_LARGE_STYLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
_WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "init_std": 0.1,
}
_BERT = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}
_DISTILBERT = {
    "vocab_size": 1024,
    "dim": 64,
    "hidden_dim": 128,
    "n_layers": 4,
    "n_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,
}
_GPT2 = {
    "vocab_size": 1024,
    "n_embd": 64,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": 128,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_WORDS = """the of and to a in is you that it he was for on are as with his they i at be this have from or one had by word but
not what all were we when your can said there use an each which she do how their if will up other about out many then them these
so some her would make like him into time has look two more write go see number no way could people my than first water been
call who its now find long down day did get come made may part over new sound take only little work know place year live me back
give most very after thing our just name good sentence man think say great where help through much before line right too mean
old any same tell boy follow came want show also around form three small set put end does another well large must big even such
because turn here why ask went men read need land different home us move try kind hand again change off play spell air away
animal house point page letter mother"""
# public name -> model_type, its settings, what it looks like
_TINY: dict[str, tuple[str, dict[str, Any], str]] = {
    "test_hubert": ("hubert", _SMALL, "HuBERT Base"),
    "test_hubert_large": ("hubert", _SMALL | _LARGE_STYLE, "HuBERT Large"),
    "test_distilhubert": ("hubert", _SMALL | {"num_hidden_layers": 2, "feat_proj_layer_norm": False}, "DistilHuBERT"),
    "test_wav2vec2": ("wav2vec2", _SMALL, "wav2vec 2.0 Base"),
    "test_wavlm": ("wavlm", _SMALL, "WavLM Base"),
    "test_unispeech_sat": ("unispeech-sat", _SMALL, "UniSpeech-SAT Base"),
    "test_data2vec": ("data2vec-audio", _SMALL | {"num_conv_pos_embeddings": 5}, "data2vec Base"),
    "test_whisper": ("whisper", _WHISPER, "Whisper's encoder"),
    "test_bert": ("bert", _BERT, "BERT"),
    "test_distilbert": ("distilbert", _DISTILBERT, "DistilBERT"),
    "test_roberta": ("roberta", _BERT | {"max_position_embeddings": 130}, "RoBERTa"),
    "test_gpt2": ("gpt2", _GPT2, "GPT-2"),
}


def tiny_model(name: str, config: UpstreamConfig | None = None, **settings: Any) -> Any:
    """Return the transformers model behind a name, leaving the caller's random generator as it was."""
    model_type, defaults, _ = _TINY[name]
    model_class = class_of(model_type)
    configured = configure(model_class.config_class(**(defaults | settings)), config or UpstreamConfig())
    return new_model(configured).eval()


def tiny_tokenizer(name: str) -> Any:
    """Return transformers' tokenizer of a text model behind a name: letters, and the commonest words in one piece."""
    from tokenizers.pre_tokenizers import ByteLevel

    model_type, _, _ = _TINY[name]
    if model_type in {"bert", "distilbert"}:
        letters = sorted({*string.ascii_lowercase, *string.digits, *string.punctuation})
        pieces = [*letters, *(f"##{letter}" for letter in letters), *_WORDS.split()]
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]
        return tokenizer_class(model_type)(vocab={piece: number for number, piece in enumerate(vocabulary)})
    special = ["<|endoftext|>"] if model_type == "gpt2" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = list(dict.fromkeys(pair for word in _WORDS.split() for pair in _merges(f"\u0120{word}")))
    vocabulary = [*special, *sorted(ByteLevel.alphabet()), *dict.fromkeys(left + right for left, right in merges)]
    return tokenizer_class(model_type)(vocab={piece: number for number, piece in enumerate(vocabulary)}, merges=merges)


def _merges(word: str) -> list[tuple[str, str]]:
    """Return the pairs that make one piece of a word, from its front to its end."""
    return [(word[:end], word[end]) for end in range(1, len(word))]


def _build(config: UpstreamConfig, *, name: str) -> Upstream:
    model_type, _, _ = _TINY[name]
    made = {"tokenizer": tiny_tokenizer(name).backend_tokenizer.to_str()} if modality_of(model_type) == "text" else None
    upstream = wrap(tiny_model(name, config), config, architecture=made)
    upstream.source = "built in"
    return upstream


for _name, (_type, _, _like) in _TINY.items():
    register_upstream(
        partial(_build, name=_name),
        name=_name,
        description=f"untrained: a tiny {_like} with random weights",
        untrained=True,
        modality=modality_of(_type),
        options=sorted(options_of(_type)),
    )
