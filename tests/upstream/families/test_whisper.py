"""Whisper's encoder: windows of 30 s, valid frames, only the encoder's weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headwater.core.errors import UserError
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.families.tiny import tiny_model
from headwater.upstream.families.whisper import feature_extractor, frames_of
from headwater.upstream.load import load_upstream

WINDOW = 480_000  # samples of 30 s


@pytest.fixture
def whole_model(tmp_path: Path) -> Any:
    """A folder with a whole Whisper model, decoder and task head included, and that model."""
    import transformers

    encoder = tiny_model("test_whisper", vocab_size=60, pad_token_id=0, bos_token_id=0, eos_token_id=0)
    encoder.config.decoder_start_token_id = 0
    encoder.config._attn_implementation = "eager"
    model = transformers.WhisperForConditionalGeneration(encoder.config).eval()
    model.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    return tmp_path, model


def test_layers_equal_those_of_transformers_on_thirty_seconds(whole_model: Any, speechlike: Any, difference: Any) -> None:
    import transformers

    folder, model = whole_model
    upstream = load_upstream(str(folder))
    (waveform,) = speechlike(WINDOW)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    mel = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = model.model.encoder(mel, output_hidden_states=True)
        found = upstream([waveform])
    theirs = [*expected.hidden_states[:-1], expected.last_hidden_state]
    assert found.lengths == (1500,)
    assert len(found.values) == len(theirs) == 3
    assert max(difference(ours, other) for ours, other in zip(found.values, theirs, strict=True)) < 1e-5


def test_only_the_encoders_weights_are_kept(whole_model: Any) -> None:
    folder, model = whole_model
    kept = {key.removeprefix("model.") for key in load_upstream(str(folder)).state_dict()}
    assert kept == set(model.model.encoder.state_dict())


def test_the_number_of_mel_bins_comes_from_the_folder_or_the_config(tmp_path: Path) -> None:
    tiny_model("test_whisper", num_mel_bins=128).save_pretrained(tmp_path)
    upstream: Any = load_upstream(str(tmp_path))
    assert upstream([torch.ones(3200)]).lengths == (10,)
    assert upstream.extractor.feature_size == 128


def test_longer_audio_goes_through_in_windows_whose_frames_are_joined(speechlike: Any) -> None:
    upstream = load_upstream("test_whisper")
    (waveform,) = speechlike(2 * WINDOW + 5000)
    with torch.no_grad():
        joined = upstream([waveform, waveform[:9000]])
        parts = [upstream([part]) for part in waveform.split(WINDOW)]
        short = upstream([waveform[:9000]])
    assert joined.lengths == (3016, 29) == (frames_of(len(waveform)), frames_of(9000))
    for layer, values in enumerate(joined.values):
        assert torch.allclose(values[0], torch.cat([part.values[layer][0] for part in parts]), atol=1e-5)
        assert torch.allclose(values[1, :29], short.values[layer][0], atol=1e-5)
        assert not values[1, 29:].any()


def test_a_short_clip_costs_no_spectrogram_and_no_convolution_of_thirty_seconds(speechlike: Any, difference: Any) -> None:
    upstream: Any = load_upstream(UpstreamConfig(name="test_whisper", attend="valid"))
    sizes: list[int] = []
    hook = upstream.model.conv1.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[2]))
    for length in (9000, 16_000, WINDOW - 100, WINDOW):
        (waveform,) = speechlike(length)
        found = upstream([waveform])
        padded = upstream.extractor(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
        convolved = torch.nn.functional.gelu(upstream.model.conv1(padded))
        whole = torch.nn.functional.gelu(upstream.model.conv2(convolved)).transpose(1, 2)
        expected = upstream._encode(whole, [frames_of(length)], last=upstream.spec.num_layers - 1)
        for ours, other in zip(found.values, expected, strict=True):
            assert difference(ours, other[:, : frames_of(length)]) < 1e-5
    hook.remove()
    assert sizes[::2] == [60, 102, 3000, 3000]


def test_attending_to_valid_frames_only_is_an_option_and_exact(speechlike: Any, difference: Any) -> None:
    every, valid = load_upstream("test_whisper"), load_upstream(UpstreamConfig(name="test_whisper", attend="valid"))
    waveforms = speechlike(9000, 3000)
    with torch.no_grad():
        together = valid(waveforms).values[-1]
        assert difference(together[1, :10], valid(waveforms[1:]).values[-1][0]) < 1e-5
        assert difference(together[1, :10], every(waveforms[1:]).values[-1][0]) > 1e-3


@pytest.mark.parametrize(
    ("described", "settings", "words"),
    [
        ({"hop_length": 0}, {}, "found one that it refuses: ZeroDivisionError"),
        ({"feature_size": 40}, {}, "80 bins and 1,500 positions, as config.json of the Whisper says, found 40 and 1,500"),
        ({}, {"max_source_positions": 3}, "found 80 and 1,500"),
        ({}, {"num_mel_bins": 0}, "num_mel_bins from 1 to 512 of a Whisper, found 0"),
    ],
)
def test_a_spectrogram_that_no_position_table_fits_is_refused(
    described: dict[str, int], settings: dict[str, int], words: str
) -> None:
    made = SimpleNamespace(**{"num_mel_bins": 80, "max_source_positions": 1500, **settings})
    with pytest.raises(UserError, match=words):
        feature_extractor(made, None, {"feature_extractor_type": "WhisperFeatureExtractor", **described})
