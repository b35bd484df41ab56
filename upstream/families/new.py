"""Models that start from random weights, at any size: `-u new/hubert`, to be pretrained or distilled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from ...core.errors import UserError, first_line, nearest
from ..base import Registered, Upstream, UpstreamConfig
from ..hub.family import ADAPTER_OPTIONS, families, family_of
from ..hub.models import class_of, configure, new_model, wrap
from ..hub.refusals import refuse_vast_sizes

PREFIX = "new/"


def row_of(config: UpstreamConfig) -> Registered:
    """Return the line of a new model: nothing of it is built."""
    kind = config.name.removeprefix(PREFIX)
    kinds = sorted(kind for kind, family in families().items() if family.from_random)
    if kind not in kinds:
        raise UserError(
            f"Expected {PREFIX} and one of {', '.join(kinds)}, found '{config.name}'.{nearest(kind, kinds)} "
            f"For instance: -u {PREFIX}hubert"
        )
    options = family_of(kind).options - ADAPTER_OPTIONS - {"front_end"} | {"config", "filters"}
    return Registered(config.name, partial(build, kind=kind), "new", "random weights", options=frozenset(options))


def build(config: UpstreamConfig, *, kind: str) -> Upstream:
    """Return a model of the sizes in `upstream.config`, the others as the family's base model; the weights are always the same.

    All of it is trained, convolutions too; where it is frozen, results are marked.
    """
    model = new_model(configure(settings_of(kind, config.config or {}), config))
    if config.filters == "gabor":
        start_from_gabor(model)
    upstream = wrap(model, config, is_new=True)
    upstream.untrained = not config.trainable
    return upstream


_LOWEST_HZ, _HIGHEST_HZ, _PHASES = 60.0, 7600.0, 4


def start_from_gabor(model: Any) -> None:
    """Let the first convolution start as a filter bank: tones under a window, mel-spaced, in four phases each.

    Rectified they are much of what a spectrogram knows; random filters of that length need thousands of steps for it.
    """
    weight = model.feature_extractor.conv_layers[0].conv.weight  # (channel, 1, sample)
    count, size = len(weight) // _PHASES, weight.shape[2]
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    mel = torch.linspace(low, high, count, dtype=torch.float64)
    hz = 700 * (10 ** (mel / 2595) - 1)
    times = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / 16_000
    phases = torch.arange(_PHASES, dtype=torch.float64) * (2 * math.pi / _PHASES)
    tones = torch.hann_window(size, periodic=False, dtype=torch.float64) * torch.cos(
        2 * math.pi * hz[:, None, None] * times + phases[:, None]
    )  # (tone, phase, sample)
    tones = tones / tones.norm(dim=2, keepdim=True) * 3 * (hz[:, None, None] / 1000 + 0.3) ** 0.7  # speech falls with frequency
    with torch.no_grad():
        weight[: count * _PHASES] = tones.reshape(-1, 1, size).to(weight.dtype)


def settings_of(kind: str, sizes: Mapping[str, Any]) -> Any:
    """Return transformers' config with these sizes, or say which of them no such model has."""
    config_class = class_of(kind).config_class
    known = vars(config_class())
    for key in sizes:
        if key not in known:
            raise UserError(
                f"Expected a size of {config_class.__name__} at 'upstream.config.{key}', found none of that name."
                f"{nearest(str(key), known)} They are those of the model's config.json."
            )
    refuse_vast_sizes({**known, **sizes}, "upstream.config")
    try:
        settings = config_class(**sizes)
        if settings.hidden_size % settings.num_attention_heads:
            raise ValueError(f"hidden_size {settings.hidden_size} for {settings.num_attention_heads} attention heads")
        if settings.hidden_size % settings.num_conv_pos_embedding_groups:
            groups = settings.num_conv_pos_embedding_groups
            raise ValueError(f"hidden_size {settings.hidden_size} for {groups} num_conv_pos_embedding_groups")
    except Exception as error:  # transformers checks a few of them, each in its own way
        raise UserError(
            f"Expected sizes that fit each other in 'upstream.config', found {first_line(error)}. Mend them."
        ) from None
    return settings
