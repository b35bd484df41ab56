"""Encoders of speech LLMs that are none of Whisper's: taken out of the whole model's folder, layers as transformers' own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headwater.core.errors import UserError
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.families.granite_speech import log_mel_pairs
from headwater.upstream.hub.models import rebuild
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.load import load_upstream

_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}


def whole(name: str, folder: Path) -> Any:
    """Save a whole speech LLM as the hub has it, and return its encoder."""
    import transformers
    from safetensors.torch import save_file

    encoder = tiny_model(f"test_{name}")
    sizes = encoder.config.to_dict()
    if name == "granite_speech":
        for block in encoder.layers:
            torch.nn.init.uniform_(block.conv.batch_norm.running_mean)
            torch.nn.init.uniform_(block.conv.batch_norm.running_var, 0.5, 1.5)
    if name == "qwen3_asr":
        text = {"vocab_size": 32, "head_dim": 8, **_TEXT, "model_type": "qwen3"}
        config = transformers.Qwen3ASRConfig(audio_config={**sizes, "output_dim": 16}, text_config=text)
        model = transformers.Qwen3ASRForConditionalGeneration(config)
        model.model.audio_tower.load_state_dict(encoder.state_dict())
        model.save_pretrained(folder)
    else:  # with the names that stand in their published files
        outer, place, prefix = {
            "granite_speech": ("granite_speech", {"encoder_config": sizes}, "encoder."),
            "qwen3_omni": ("qwen3_omni_moe", {"thinker_config": {"audio_config": sizes}}, "thinker.audio_tower."),
        }[name]
        (folder / "config.json").write_text(json.dumps({"model_type": outer, **place}), encoding="utf-8")
        state = {f"{prefix}{key}": value.contiguous() for key, value in encoder.state_dict().items()}
        save_file(
            {**state, "language_model.model.layers.9.mlp.weight": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"}
        )
    return encoder


def layers(name: str, encoder: Any, waveform: Tensor) -> list[Tensor]:
    """Return transformers' own layers of one utterance (frame, dim), the last one being the encoder's output."""
    import transformers

    if name == "granite_speech":
        stacked = log_mel_pairs(waveform[None], [len(waveform)], 80)
        with torch.no_grad():
            output = encoder(stacked, output_hidden_states=True)
        return [value[0] for value in (*output.hidden_states[:-1], output.last_hidden_state)]
    seconds = 0.5 if name == "qwen3_asr" else 0.0
    extractor = transformers.Qwen3ASRFeatureExtractor(feature_size=40, min_length=int(seconds * 16000))
    made = extractor([waveform.numpy()], sampling_rate=16000, padding="longest", return_attention_mask=True)
    seen: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for block in encoder.layers]
    given: dict[str, Any] = {"input_features": made.input_features, "input_features_mask": made.attention_mask}
    if name == "qwen3_omni":
        lengths = made.attention_mask.sum(-1)
        given = {"input_features": made.input_features[0, :, : int(lengths)], "feature_lens": lengths}
    hooks.append(encoder.ln_post.register_forward_hook(lambda *given: seen.append(given[2])))
    with torch.no_grad():
        encoder(**given)
    for hook in hooks:
        hook.remove()
    return seen


# of Granite 20 frames attend to one another, of the others two seconds
@pytest.mark.parametrize("length", [17_000, 12_800, 32_000, 41_000])
@pytest.mark.parametrize("name", ["granite_speech", "qwen3_asr", "qwen3_omni"])
def test_layers_equal_those_of_transformers(name: str, length: int, tmp_path: Path, speechlike: Any, difference: Any) -> None:
    encoder = whole(name, tmp_path)
    upstream = load_upstream(str(tmp_path))
    assert {*upstream.state_dict()} == {f"model.{key}" for key in encoder.state_dict()}
    (waveform,) = speechlike(length)
    expected = layers(name, encoder, waveform)
    with torch.no_grad():
        found = upstream([waveform])
    assert len(found.values) == len(expected) == upstream.spec.num_layers
    assert found.lengths == (upstream.spec.num_frames(length),)
    for ours, theirs in zip(found.values, expected, strict=True):
        assert difference(ours[0], theirs) < 1e-5


@pytest.mark.parametrize("name", ["granite_speech", "qwen3_asr", "qwen3_omni"])
def test_layers_alone_equal_those_in_a_batch(name: str, speechlike: Any, difference: Any) -> None:
    upstream, waveforms = load_upstream(f"test_{name}"), speechlike(40_960, 9000, 3000, 100)
    with torch.no_grad():
        together = upstream(waveforms)
        for row, waveform in enumerate(waveforms):
            alone = upstream([waveform])
            frames = together.lengths[row]
            assert alone.lengths == (frames,) == (upstream.spec.num_frames(len(waveform)),)
            for ours, theirs in zip(together.values, alone.values, strict=True):
                assert difference(ours[row, :frames], theirs[0]) < 1e-5


@pytest.mark.parametrize(("name", "seconds"), [("granite_speech", 0.02), ("qwen3_asr", 1 / 13), ("qwen3_omni", 1 / 13)])
def test_the_rate_of_frames(name: str, seconds: float) -> None:
    assert load_upstream(f"test_{name}").spec.frame_seconds == pytest.approx(seconds, rel=0.01)


def test_energies_of_granite_are_those_of_its_paper(speechlike: Any, difference: Any) -> None:
    (waveform,) = speechlike(3000)
    padded = np.pad(waveform.double().numpy(), 256, mode="reflect")
    window = np.pad(np.hanning(401)[:-1], 56)
    power = [np.abs(np.fft.rfft(padded[start : start + 512] * window)) ** 2 for start in range(0, 3001, 160)]
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82) / 2595) - 1)
    hertz = np.arange(257)[:, None] * 16000 / 512
    rising, falling = (hertz - corners[:-2]) / np.diff(corners)[:-1], (corners[2:] - hertz) / np.diff(corners)[1:]
    logs = np.log10(np.maximum(np.array(power) @ np.maximum(np.minimum(rising, falling), 0), 1e-10))
    expected = (np.maximum(logs, logs.max() - 8) / 4 + 1)[:18].reshape(9, 160)
    assert difference(log_mel_pairs(waveform[None], [3000], 80)[0], torch.from_numpy(expected).float()) < 1e-5


def test_granite_pruned_keeps_its_characters_where_they_were(speechlike: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name="test_granite_speech", keep_layers=3))
    again = rebuild(json.loads(json.dumps(upstream.architecture())), UpstreamConfig()).eval()
    again.load_state_dict(upstream.state_dict())
    with torch.no_grad():
        pairs = zip(again(speechlike(4000)).values, upstream(speechlike(4000)).values, strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_a_qwen3_without_sizes_of_its_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_omni_moe", "thinker_config": {}}), encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"Expected thinker_config\.audio_config with the encoder's sizes"):
        load_upstream(str(tmp_path))
