"""Exact padding: alone = padded in a batch, in every layer of every audio upstream that needs no download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from headwater.corpus.batch import Batch, as_batch
from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.exact_padding import conv_length, receptive_field
from headwater.upstream.hub.models import class_of, configure, wrap
from headwater.upstream.load import list_upstreams, load_upstream

BUILT_IN = [row.name for row in list_upstreams(modality="audio") if row.source == "built in"]
LENGTHS = (12000, 7001, 4321, 300, 1)  # the last two are shorter than a frame


def worst_difference(upstream: Upstream, waveforms: list[torch.Tensor], difference: Callable[..., float]) -> float:
    """Return the largest difference of a layer between a batch padded to twice its length and each utterance alone."""
    batch = as_batch(waveforms)
    assert batch.waveforms is not None, "a batch made of waveforms has them"
    twice = Batch(torch.nn.functional.pad(batch.waveforms, (0, batch.waveforms.shape[1])), batch.lengths, batch.ids)
    with torch.no_grad():
        together, padded = upstream(batch), upstream(twice)
        worst = 0.0
        for row, waveform in enumerate(waveforms):
            alone = upstream([waveform])
            frames = alone.lengths[0]
            assert frames == together.lengths[row] == padded.lengths[row] == upstream.spec.num_frames(len(waveform))
            assert frames == alone.values[0].shape[1] >= 1
            for one, many, more in zip(alone.values, together.values, padded.values, strict=True):
                worst = max(worst, difference(many[row, :frames], one[0]), difference(more[row, :frames], one[0]))
    return worst


def test_upstreams_without_download_are_found() -> None:
    assert len(BUILT_IN) >= 11


@pytest.mark.parametrize("name", BUILT_IN)
def test_alone_equals_padded(name: str, speechlike: Any, difference: Any) -> None:
    assert worst_difference(load_upstream(name), speechlike(*LENGTHS), difference) < 1e-5


@pytest.mark.parametrize("model_type", ["hubert", "wav2vec2", "data2vec-audio"])
def test_alone_equals_padded_at_base_size(model_type: str, speechlike: Any, difference: Any) -> None:
    model_class = class_of(model_type)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(configure(model_class.config_class(), UpstreamConfig())).eval()
    upstream = wrap(model, UpstreamConfig()).eval()
    assert upstream.spec.dim == 768
    assert upstream.spec.num_layers == 13
    assert worst_difference(upstream, speechlike(8000, 4321), difference) < 1e-5


@pytest.mark.parametrize("name", ["test_hubert", "test_wavlm"])
def test_s3prl_padding_depends_on_batch_mates(name: str, speechlike: Any, difference: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, padding="s3prl"))
    waveforms = speechlike(12000, 4321)
    with torch.no_grad():
        together, alone = upstream(waveforms), upstream(waveforms[1:])
    frames = alone.lengths[0]
    assert difference(together.values[-1][1, :frames], alone.values[-1][0]) > 1e-2
    assert together.lengths == (37, 14), "s3prl counts round(samples / 320), at most the tensor's frames"


def test_batch_norm_of_positions_is_exact_too(speechlike: Any, difference: Any) -> None:
    model_class = class_of("hubert")
    settings = model_class.config_class(
        conv_dim=(32,) * 7,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        conv_pos_batch_norm=True,
    )
    model = model_class(configure(settings, UpstreamConfig()))
    norm = model.encoder.pos_conv_embed.batch_norm
    torch.nn.init.uniform_(norm.running_mean)
    torch.nn.init.uniform_(norm.bias)
    upstream = wrap(model, UpstreamConfig()).eval()
    assert worst_difference(upstream, speechlike(*LENGTHS), difference) < 1e-5
    waveforms = speechlike(6000)
    with torch.no_grad():
        assert difference(upstream(waveforms).values[-1], model(waveforms[0][None]).last_hidden_state) < 1e-5


def test_dropping_the_attention_mask_would_be_seen(monkeypatch: pytest.MonkeyPatch, speechlike: Any, difference: Any) -> None:
    monkeypatch.setattr("headwater.upstream.hub.hubert_family.mask_if_padded", lambda *_: None)
    assert worst_difference(load_upstream("test_hubert"), speechlike(12000, 4321), difference) > 1e-3


def test_receptive_field_is_the_fewest_samples_of_one_frame() -> None:
    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    field = receptive_field(kernels, strides)
    assert field == 400
    assert [conv_length(field + more, kernels, strides) for more in (-1, 0, 319, 320)] == [0, 1, 1, 2]
