"""Encoders of speech recognisers: taken out of the whole model's folder, layers as transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headwater.core.errors import UserError
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.load import load_upstream


def whole(name: str, folder: Path) -> Any:
    """Save a whole recogniser as the hub has it, and return its encoder."""
    import transformers

    config = tiny_model(f"test_{name}").config
    if name == "moonshine":
        config.vocab_size = 64
        model = transformers.MoonshineForConditionalGeneration(config).eval()
        encoder = model.model.encoder
    else:
        model = transformers.ParakeetForCTC(transformers.ParakeetCTCConfig(vocab_size=9, encoder_config=config.to_dict())).eval()
        encoder = model.encoder
        transformers.ParakeetFeatureExtractor().save_pretrained(folder)
        for block in encoder.layers:
            torch.nn.init.uniform_(block.conv.norm.running_mean)
    model.save_pretrained(folder)
    return encoder


def layers(name: str, encoder: Any, waveforms: list[Tensor]) -> list[Tensor]:
    """Return transformers' own layers, the last one being the encoder's output."""
    import transformers

    given: dict[str, Tensor] = {"input_values": torch.stack(waveforms)} if name == "moonshine" else {}
    if name == "parakeet":
        rows = [waveform.numpy() for waveform in waveforms]
        given = {**transformers.ParakeetFeatureExtractor()(rows, sampling_rate=16000, return_tensors="pt")}
    with torch.no_grad():
        output = encoder(**given, output_hidden_states=True)
    return [*output.hidden_states[:-1], output.last_hidden_state]


@pytest.mark.parametrize(("name", "length"), [("moonshine", 9000), ("parakeet", 12_960), ("parakeet", 9000)])
def test_layers_equal_those_of_transformers(name: str, length: int, tmp_path: Path, speechlike: Any, difference: Any) -> None:
    encoder = whole(name, tmp_path)
    upstream = load_upstream(str(tmp_path))
    assert {*upstream.state_dict()} == {f"model.{key}" for key in encoder.state_dict()}
    expected = layers(name, encoder, speechlike(length))
    with torch.no_grad():
        found = upstream(speechlike(length))
    (frames,) = found.lengths
    assert len(found.values) == len(expected) == upstream.spec.num_layers == 5
    assert frames == upstream.spec.num_frames(length)
    for ours, theirs in zip(found.values, expected, strict=True):
        assert difference(ours[0], theirs[0, :frames]) < 1e-5


def test_parakeet_in_a_batch_equals_transformers_with_its_mask(tmp_path: Path, speechlike: Any, difference: Any) -> None:
    encoder, lengths = whole("parakeet", tmp_path), (12_960, 9000)
    expected = layers("parakeet", encoder, speechlike(*lengths))
    with torch.no_grad():
        found = load_upstream(str(tmp_path))(speechlike(*lengths))
    assert found.lengths == (11, 7)
    for ours, theirs in zip(found.values, expected, strict=True):
        for row, frames in enumerate(found.lengths):
            assert difference(ours[row, :frames], theirs[row, :frames]) < 1e-5


@pytest.mark.parametrize(("name", "seconds"), [("moonshine", 0.024), ("parakeet", 0.08)])
def test_the_rate_of_frames(name: str, seconds: float) -> None:
    assert load_upstream(f"test_{name}").spec.frame_seconds == pytest.approx(seconds, rel=0.01)


def test_parakeets_batch_norms_keep_their_statistics_in_training(speechlike: Any) -> None:
    upstream = load_upstream("test_parakeet").train()
    before = {key: value.clone() for key, value in upstream.state_dict().items()}
    upstream(speechlike(6000, 5000))
    assert all(torch.equal(value, before[key]) for key, value in upstream.state_dict().items())


def test_a_spectrogram_of_other_sizes_than_parakeets_is_refused(tmp_path: Path) -> None:
    whole("parakeet", tmp_path)
    path = tmp_path / "preprocessor_config.json"
    for change, words in (({"feature_size": 40}, "80 bins, .* found 40 and 160"), ({"hop_length": 0}, "found 80 and 0")):
        described = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(described | change), encoding="utf-8")
        with pytest.raises(UserError, match=words):
            load_upstream(str(tmp_path))
        path.write_text(json.dumps(described), encoding="utf-8")
