"""fbank and mfcc: Kaldi's, by an independent implementation; deltas and normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dct

from headwater.core.errors import UserError
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.families.spectrogram import deltas, normalize_over_time
from headwater.upstream.load import load_upstream


def kaldi_log_mel(waveform: np.ndarray, num_bins: int) -> np.ndarray:
    """Return transformers' log-mel energies (frame, bin) with Kaldi's settings."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    filters = mel_filter_bank(257, num_bins, 20, 8000, 16000, mel_scale="kaldi", triangularize_in_mel_space=True)
    return spectrogram(
        waveform,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=filters,
        mel_floor=1.192092955078125e-07,
        log_mel="log",
        remove_dc_offset=True,
    ).T


def test_fbank_equals_an_independent_implementation_of_kaldis(speechlike: Any, difference: Any) -> None:
    (waveform,) = speechlike(8000)
    found = load_upstream("fbank_no_cmvn")([waveform]).values[0][0]
    expected = torch.from_numpy(kaldi_log_mel(waveform.numpy(), 80)).float()
    assert difference(found[:, :80], expected) < 1e-5


def test_mfcc_equals_a_cosine_transform_of_kaldis_fbank(speechlike: Any, difference: Any) -> None:
    (waveform,) = speechlike(8000)
    cepstra = dct(kaldi_log_mel(waveform.numpy(), 23), type=2, norm="ortho", axis=1)[:, :13]
    cepstra = cepstra * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    expected = (cepstra - cepstra.mean(axis=0)) / cepstra.std(axis=0, ddof=1)
    found = load_upstream("mfcc")([waveform]).values[0][0, :, :13]
    assert difference(found, torch.from_numpy(expected).float()) < 1e-4


def test_deltas_equal_librosas_and_stop_at_the_utterances_own_ends(speechlike: Any, difference: Any) -> None:
    import librosa

    (values,) = speechlike(20 * 3)
    frames = values.view(1, 20, 3)
    padded = torch.cat([frames[:, :12], torch.full((1, 8, 3), 1e6)], dim=1)
    expected = librosa.feature.delta(frames[0, :12].numpy(), width=5, axis=0, mode="nearest")
    assert difference(deltas(padded, (12,))[0, :12], torch.from_numpy(expected)) < 1e-5


@pytest.mark.parametrize(("name", "dim", "centred"), [("fbank", 240, True), ("fbank_no_cmvn", 240, False), ("mfcc", 39, True)])
def test_the_spec_says_what_comes_out(name: str, dim: int, centred: bool, speechlike: Any) -> None:
    upstream = load_upstream(name)
    layers = upstream(speechlike(16000, 400))
    assert (upstream.spec.num_layers, upstream.spec.dim, upstream.spec.centred) == (1, dim, centred)
    assert layers.values[0].shape == (2, 98, dim)
    assert layers.lengths == (98, 1)
    if centred:
        assert layers.values[0][0].mean(dim=0).abs().max() < 1e-5
        assert torch.allclose(layers.values[0][0].std(dim=0), torch.ones(dim), atol=1e-4)


@pytest.mark.parametrize("name", ["fbank", "mfcc"])
def test_silence_and_single_frames_are_zeros(name: str) -> None:
    values = load_upstream(name)([torch.zeros(5000), torch.ones(10)]).values[0]
    assert not values.any()


def test_normalisation_equals_the_plain_formula(speechlike: Any) -> None:
    (values,) = speechlike(30)
    found = normalize_over_time(values.view(1, 10, 3), (10,))
    plain = values.view(10, 3)
    assert torch.allclose(found[0], (plain - plain.mean(dim=0)) / plain.std(dim=0), atol=1e-5)


def test_views_repeat_in_train_mode_only(speechlike: Any) -> None:
    upstream = load_upstream("fbank")
    assert len(upstream(speechlike(4000), views=2).values[0]) == 1
    assert len(upstream.train()(speechlike(4000), views=2).values[0]) == 2


@pytest.mark.parametrize("option", [{"spec_augment": True}, {"dropout": 0.1}, {"keep_layers": 1}])
def test_a_spectrogram_has_no_option_but_padding(option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"has no option .* \(it has: padding\)"):
        load_upstream(UpstreamConfig(name="fbank", **option))


def test_s3prls_padding_rounds_lengths_and_ends_in_zeros(speechlike: Any) -> None:
    samples = [speechlike(16000)[0], speechlike(8000)[0]]
    exact = load_upstream("fbank")(samples)
    theirs = load_upstream(UpstreamConfig(name="fbank", padding="s3prl"))(samples)
    assert exact.lengths == (98, 48)
    assert theirs.lengths == (98, 50)
    assert torch.equal(theirs.values[0][1, :48], exact.values[0][1, :48])
    assert not theirs.values[0][1, 48:].any()
