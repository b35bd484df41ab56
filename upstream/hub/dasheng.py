"""Dasheng as a model of transformers: a vision transformer over a spectrogram, a patch being all bins of 40 ms."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

_SIZES = {  # what a config.json may say by a name alone
    "dasheng-base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "dasheng-0.6B": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
    "dasheng-1.2B": {"embed_dim": 1536, "depth": 40, "num_heads": 24},
}
_FIELDS = {  # of its own config.json -> ours
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "n_mels": "num_mel_bins",
    "drop_rate": "hidden_dropout",
    "attn_drop_rate": "attention_dropout",
    "mlp_ratio": "mlp_ratio",
    "target_length": "target_length",
}


@strict
class DashengConfig(PreTrainedConfig):
    """Sizes of a Dasheng, by our names or by those of its own config.json."""

    model_type = "dasheng"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: float | int = 4.0
    num_mel_bins: int = 64
    patch_columns: int = 4
    target_length: int = 1008  # columns that attend to one another
    hidden_dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    name: str | None = None
    encoder_kwargs: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        given = {**_SIZES.get(self.name or "", {}), **kwargs, **(self.encoder_kwargs or {})}
        for theirs, ours in _FIELDS.items():
            if theirs in given:
                setattr(self, ours, given[theirs])
                kwargs.pop(theirs, None)
        self.name = self.encoder_kwargs = None  # said by the others from now on
        super().__post_init__(**kwargs)


class DashengAttention(nn.Module):
    """Attention of every patch to every one that is there."""

    def __init__(self, config: DashengConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.attention_dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Return (batch, patch, dim)."""
        query, key, value = self.qkv(hidden).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, dropout_p=dropout)
        return self.proj(attended.transpose(1, 2).flatten(2))


class DashengFeedForward(nn.Module):
    """Two layers and what is between them."""

    def __init__(self, config: DashengConfig) -> None:
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1, self.fc2 = nn.Linear(config.hidden_size, inner), nn.Linear(inner, config.hidden_size)
        self.drop = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (batch, patch, dim)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(hidden)))))


class DashengBlock(nn.Module):
    """A transformer block that normalises its input."""

    def __init__(self, config: DashengConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = DashengAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = DashengFeedForward(config)
        self.drop = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return (batch, patch, dim)."""
        hidden = hidden + self.drop(self.attn(self.norm1(hidden), attention_mask))
        return hidden + self.mlp(self.norm2(hidden))


class DashengEncoder(nn.Module):
    """The parts of a Dasheng under the names of its checkpoints."""

    def __init__(self, config: DashengConfig) -> None:
        super().__init__()
        dim, patch = config.hidden_size, (config.num_mel_bins, config.patch_columns)
        self.init_bn = nn.ModuleDict({"1": nn.BatchNorm2d(config.num_mel_bins)})  # of each bin
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, dim, kernel_size=patch, stride=patch)})
        self.time_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, config.target_length // config.patch_columns))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, 1))
        self.pos_drop = nn.Dropout(config.hidden_dropout)
        self.blocks = nn.ModuleList([DashengBlock(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)

    def patches(self, columns: Tensor) -> Tensor:
        """Return the input of the first block (piece, patch, dim) of decibels (piece, column, bin)."""
        hidden = self.patch_embed["proj"](columns.transpose(1, 2).unsqueeze(1))  # (piece, dim, 1, patch)
        hidden = hidden + self.time_pos_embed[..., : hidden.shape[3]] + self.freq_pos_embed
        return self.pos_drop(hidden.squeeze(2).transpose(1, 2))

    def normed(self, decibels: Tensor) -> Tensor:
        """Return (…, bin) with the mean and deviation of pretraining, in training too: a batch's would tie it to its mates."""
        norm: Any = self.init_bn["1"]
        return (decibels - norm.running_mean) * (norm.running_var + norm.eps).rsqrt() * norm.weight + norm.bias


class DashengModel(PreTrainedModel):
    """The weights of a Dasheng (Dinkel et al. 2024, https://arxiv.org/abs/2406.06992); the pass through them is the family's."""

    config_class = DashengConfig
    config: DashengConfig
    base_model_prefix = "dasheng"
    _supports_sdpa = True

    def __init__(self, config: DashengConfig) -> None:
        super().__init__(config)
        self.encoder = DashengEncoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DashengEncoder):
            nn.init.normal_(module.time_pos_embed, std=self.config.initializer_range)
            nn.init.normal_(module.freq_pos_embed, std=self.config.initializer_range)
