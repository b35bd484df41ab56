"""w2v-BERT 2.0: its energies are those of transformers' extractor, its layers those of transformers' model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.upstream.families.wav2vec2_bert import stacked_log_mel
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.load import load_upstream


@pytest.mark.parametrize("length", [9000, 9039, 9040, 9200, 720, 560], ids=str)
def test_energies_equal_those_of_transformers(length: int, speechlike: Any, difference: Any) -> None:
    import transformers

    (waveform,) = speechlike(length)
    made = transformers.SeamlessM4TFeatureExtractor()(waveform.numpy(), sampling_rate=16000, return_tensors="pt")
    expected = made.input_features[0][made.attention_mask[0].bool()]  # a window that is left over is masked there
    found = stacked_log_mel(waveform[None], [length], 80)[0]
    assert difference(found, expected) < 3e-5  # theirs has a spectrum in 32 bits; with two windows a bin may hardly vary
    assert len(found) == load_upstream("test_w2v_bert").spec.num_frames(length)


@pytest.mark.parametrize("kind", ["relative_key", "relative", "rotary"])
def test_layers_equal_those_of_transformers(kind: str, tmp_path: Path, speechlike: Any, difference: Any) -> None:
    import transformers

    tiny_model("test_w2v_bert", position_embeddings_type=kind, layerdrop=0.5).save_pretrained(tmp_path)
    upstream = load_upstream(str(tmp_path))
    theirs = transformers.AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    waveforms = speechlike(9200, 4000)
    made = transformers.SeamlessM4TFeatureExtractor()(
        [waveform.numpy() for waveform in waveforms], sampling_rate=16000, return_tensors="pt"
    )
    with torch.no_grad():
        output = theirs(**made, output_hidden_states=True)
        found = upstream(waveforms)
    assert found.lengths == tuple(made.attention_mask.sum(dim=1).tolist()) == (28, 11)
    assert len(found.values) == len(output.hidden_states) == 5
    for ours, other in zip(found.values, output.hidden_states, strict=True):
        for row, frames in enumerate(found.lengths):
            assert difference(ours[row, :frames], other[row, :frames]) < 1e-5
    assert difference(found.values[-1][0], output.last_hidden_state[0, : found.lengths[0]]) < 1e-5


def test_a_frame_is_twenty_milliseconds() -> None:
    assert load_upstream("test_w2v_bert").spec.frame_seconds == 0.02


def test_silence_is_no_number_out_of_range() -> None:
    assert all(bool(values.isfinite().all()) for values in load_upstream("test_w2v_bert")([torch.zeros(4000)]).values)
