"""Mel spectra on HTK's scale, as torchaudio computes them: of models that were trained with its MelSpectrogram."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

HOP = 160  # samples at 16 kHz from one column to the next
_FFT = 512


def mel_power(waveform: Tensor, num_bins: int, window: int) -> Tensor:
    """Return the power (column, bin) in each mel bin of one waveform, whose ends are mirrored: a column every 10 ms."""
    with torch.autocast(waveform.device.type, enabled=False):  # powers span too many orders for bf16
        hann = torch.hann_window(window, device=waveform.device)
        spectrum = torch.stft(
            waveform.float(), _FFT, HOP, window, hann, center=True, pad_mode="reflect", return_complex=True
        ).abs()  # (frequency, column)
        return spectrum.square().T @ _filters(num_bins).to(waveform.device)


@cache
def _filters(num_bins: int) -> Tensor:
    """Return the triangles (frequency, bin) up to 8 kHz, each with a peak of one."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(_FFT // 2 + 1, num_bins, 0.0, 8000.0, 16000, norm=None, mel_scale="htk")
    return torch.from_numpy(filters).float()
