"""Tiny untrained models: each family of the hub at a size for tests and first tries, with the same random weights anywhere."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from .base import Upstream, UpstreamConfig, register_upstream
from .huggingface import class_of, configure, options_of, wrap

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
}


def tiny_model(name: str, config: UpstreamConfig | None = None, **settings: Any) -> Any:
    """Return the transformers model behind a name, leaving the caller's random generator as it was."""
    model_type, defaults, _ = _TINY[name]
    model_class = class_of(model_type)
    configured = configure(model_class.config_class(**(defaults | settings)), config or UpstreamConfig())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return model_class(configured).eval()


def _build(config: UpstreamConfig, *, name: str) -> Upstream:
    upstream = wrap(tiny_model(name, config), config)
    upstream.source = "built in"
    return upstream


for _name, (_type, _, _like) in _TINY.items():
    register_upstream(
        partial(_build, name=_name),
        name=_name,
        description=f"untrained: a tiny {_like} with random weights",
        untrained=True,
        options=sorted(options_of(_type)),
    )
