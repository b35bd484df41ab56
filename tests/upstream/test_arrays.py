"""A loaded upstream takes arrays: at 16 kHz, or at a rate that is named."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from headwater.core.errors import UserError
from headwater.corpus.audio import read_audio
from headwater.corpus.batch import as_batch
from headwater.upstream.load import load_upstream

WAVE = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)


def test_arrays_of_every_kind_give_the_same_layers() -> None:
    upstream = load_upstream("fbank")
    expected = upstream(as_batch([WAVE, WAVE]))
    for batch in ([WAVE, torch.from_numpy(WAVE)], np.stack([WAVE, WAVE]), torch.from_numpy(np.stack([WAVE, WAVE]))):
        found = upstream(batch)
        assert found.lengths == expected.lengths
        assert torch.equal(found.values[0], expected.values[0])
    assert upstream(WAVE).lengths == upstream(WAVE.tolist()).lengths == expected.lengths[:1]


def test_an_array_at_another_rate_is_resampled_as_a_file_is(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rate") / "x.wav"
    soundfile.write(path, WAVE, 44_100, subtype="FLOAT")
    upstream = load_upstream("fbank")
    assert torch.equal(upstream([WAVE], sampling_rate=44_100).values[0], upstream([read_audio(path)]).values[0])


def test_integers_are_divided_by_their_range() -> None:
    upstream, integers = load_upstream("fbank"), (WAVE * 32_768).astype(np.int16)
    assert torch.equal(upstream([integers]).values[0], upstream([integers / np.float32(32_768)]).values[0])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([np.full(800, np.nan)], "found NaN or infinite ones"),
        ([torch.full((800,), torch.inf)], "found NaN or infinite ones"),
        (b"RIFF", "Expected a list of waveforms, found bytes"),
        (["a.wav"], "Expected an array at position 0, found str"),
        (np.ones((800, 2)), "more waveforms than samples"),
    ],
)
def test_what_is_no_waveform_is_refused(batch: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_upstream("fbank")(batch)  # type: ignore[arg-type]


def test_a_rate_beside_what_has_none_is_refused() -> None:
    with pytest.raises(UserError, match="Expected waveforms beside sampling_rate, found texts"):
        load_upstream("hashed_words")(["words"], sampling_rate=8_000)
    with pytest.raises(UserError, match="found a batch, which is at 16 kHz"):
        load_upstream("fbank")(as_batch([WAVE]), sampling_rate=8_000)


def test_a_loaded_upstream_has_no_gradients_before_they_are_asked_for() -> None:
    upstream = load_upstream("test_hubert")
    assert not any(weight.requires_grad for weight in upstream.parameters())
    upstream.requires_grad_(True).train()(WAVE[None]).values[-1].sum().backward()
    assert any(weight.grad is not None for weight in upstream.parameters())


def test_the_promise_of_an_upstream_fits_a_line() -> None:
    assert len(repr(load_upstream("test_hubert").spec)) < 200
