"""emotion2vec as a model of transformers: data2vec 2.0's encoder, with tokens in front and biases by distance."""

from __future__ import annotations

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import Data2VecAudioConfig
from transformers.models.data2vec.modeling_data2vec_audio import (
    Data2VecAudioEncoder,
    Data2VecAudioFeatureEncoder,
    Data2VecAudioFeatureProjection,
    Data2VecAudioPreTrainedModel,
)


@strict
class Emotion2vecConfig(Data2VecAudioConfig):
    """Sizes of an emotion2vec; its convolutions, positions and blocks are data2vec's."""

    model_type = "emotion2vec"

    num_extra_tokens: int = 10
    feat_extract_norm: str = "layer"
    activation_dropout: float | int = 0.0
    layerdrop: float | int = 0.05


class Emotion2vecEncoder(Data2VecAudioEncoder):
    """Data2vec's encoder over the extra tokens and the frames behind them (Ma et al. 2023, https://arxiv.org/abs/2312.15185).

    The first blocks, which the paper counts as part of the front end, and the others are the same kind, one behind another.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.extra_tokens = nn.Parameter(torch.zeros(1, config.num_extra_tokens, config.hidden_size))
        self.alibi_scale = nn.Parameter(torch.ones(1, config.num_attention_heads, 1, 1))


class Emotion2vecModel(Data2VecAudioPreTrainedModel):
    """The weights of an emotion2vec; the pass through them is that of the family."""

    config_class = Emotion2vecConfig
    config: Emotion2vecConfig

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__(config)
        self.feature_extractor = Data2VecAudioFeatureEncoder(config)
        self.feature_projection = Data2VecAudioFeatureProjection(config)
        self.encoder = Emotion2vecEncoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Emotion2vecEncoder):
            nn.init.ones_(module.alibi_scale)
            nn.init.normal_(module.extra_tokens)
