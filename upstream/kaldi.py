"""Log-mel energies as Kaldi computes them, without dither."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLE_RATE = 16000
WINDOW, SHIFT, _FFT = 400, 160, 512  # samples: 25 ms, 10 ms, the next power of two
_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97
_SMALLEST = torch.finfo(torch.float32).eps  # floor under the logarithm


def log_mel(waveforms: Tensor, window: Tensor, mel: Tensor) -> Tensor:
    """Return the log-mel energies (batch, frame, bin) of waveforms (batch, sample) that are at least a window long."""
    frames = waveforms.unfold(1, WINDOW, SHIFT)  # (batch, frame, sample)
    frames = frames - frames.mean(dim=2, keepdim=True)
    before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
    frames = (frames - _PREEMPHASIS * before) * window
    power = torch.fft.rfft(frames, n=_FFT).abs().square()
    return (power @ mel).clamp(min=_SMALLEST).log()


def frames_of(num_samples: int) -> int:
    """Return how many whole windows an utterance has; one shorter than a window is padded to it."""
    return 1 + (max(num_samples, WINDOW) - WINDOW) // SHIFT


def povey_window() -> Tensor:
    """Return Kaldi's window (sample) in float64."""
    return torch.hann_window(WINDOW, periodic=False, dtype=torch.float64).pow(0.85)


def mel_filters(num_bins: int) -> Tensor:
    """Return Kaldi's triangles (frequency, bin) in float64, equally spaced and straight-sided on the mel scale."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    ends = mel(torch.tensor([_LOWEST_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), num_bins + 2, dtype=torch.float64)
    points = mel(torch.arange(_FFT // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / _FFT).unsqueeze(1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((points - left) / (centre - left), (right - points) / (right - centre)).clamp(min=0.0)
    triangles[-1] = 0.0  # Kaldi leaves the Nyquist frequency out
    return triangles
