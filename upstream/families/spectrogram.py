"""Kaldi's fbank and mfcc with deltas and normalisation: SUPERB's baseline, without a download."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...corpus.batch import Batch, as_batch
from ..base import (
    Layers,
    Upstream,
    UpstreamConfig,
    UpstreamSpec,
    checked_waveforms,
    named_layers,
    register_upstream,
    valid_positions,
)
from ..kaldi import SAMPLE_RATE, SHIFT, WINDOW, frames_of, log_mel, mel_filters, povey_window

_MFCC_BINS, _CEPSTRA, _LIFTER = 23, 13, 22.0
_DELTA_REACH = 2  # frames to each side: a window of five


class Spectrogram(Upstream):
    """Log-mel energies, or cepstra made of them, with first and second deltas; one layer, nothing to train."""

    family = ("headwater.upstream.spectrogram", "Spectrogram")

    window: Tensor  # (sample)
    mel: Tensor  # (frequency, bin)
    cosines: Tensor | None  # (bin, cepstrum)

    def __init__(
        self, *, num_mel_bins: int, num_cepstra: int | None = None, normalize: bool = True, padding: str = "exact"
    ) -> None:
        super().__init__()
        self.normalize, self.exact = normalize, padding == "exact"
        self.register_buffer("window", povey_window().float())
        self.register_buffer("mel", mel_filters(num_mel_bins).float())
        self.register_buffer("cosines", None if num_cepstra is None else cepstral_transform(num_mel_bins, num_cepstra))
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=1,
            dim=3 * (num_cepstra or num_mel_bins),
            sample_rate=SAMPLE_RATE,
            num_frames=lambda num_samples: self._length(num_samples, frames_of(num_samples)),
            centred=normalize,
        )

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,
        masked: Tensor | None = None,  # noqa: ARG002 (refused where there is no mask embedding)
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the one layer of each utterance; nothing is random, so that all views are alike."""
        wanted = named_layers(layers, 1)
        waveforms, num_samples = checked_waveforms(as_batch(batch), self.window.device)
        lengths = tuple(frames_of(length) for length in num_samples)
        with torch.autocast(waveforms.device.type, enabled=False):  # energies span too many orders for bf16
            features = log_mel(F.pad(waveforms, (0, max(WINDOW - waveforms.shape[1], 0))), self.window, self.mel)
            if self.cosines is not None:
                features = features @ self.cosines
        first = deltas(features, lengths)
        features = torch.cat([features, first, deltas(first, lengths)], dim=2)  # (batch, frame, dim)
        if self.normalize:
            features = normalize_over_time(features, lengths)
        if not self.exact:
            features = features * valid_positions(lengths, features.shape[1], features.device).unsqueeze(2)
            lengths = tuple(self._length(length, features.shape[1]) for length in num_samples)
        copies = views if self.training else 1
        return Layers([features.repeat(copies, 1, 1) for _ in wanted], lengths * copies)

    def _length(self, num_samples: int, num_frames: int) -> int:
        # s3prl's featurizer rounds: shorter utterances of a batch end in up to two frames of zeros
        return frames_of(num_samples) if self.exact else max(min(round(num_samples / SHIFT), num_frames), 1)


def cepstral_transform(num_bins: int, num_cepstra: int) -> Tensor:
    """Return the matrix (bin, cepstrum) of Kaldi's cosine transform and lifter."""
    bins = torch.arange(num_bins, dtype=torch.float64).unsqueeze(1)
    orders = torch.arange(num_cepstra, dtype=torch.float64)
    cosines = torch.cos(math.pi / num_bins * (bins + 0.5) * orders) * math.sqrt(2.0 / num_bins)
    cosines[:, 0] = math.sqrt(1.0 / num_bins)
    lifter = 1.0 + 0.5 * _LIFTER * torch.sin(math.pi * orders / _LIFTER)
    return (cosines * lifter).float()


def deltas(features: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the slopes over five frames (batch, frame, dim); an utterance's own first and last frame go on beyond its ends."""
    frames = torch.arange(features.shape[1], device=features.device)
    last = torch.tensor(lengths, device=features.device).unsqueeze(1) - 1
    slope = torch.zeros_like(features)
    for reach in range(1, _DELTA_REACH + 1):
        ahead, behind = torch.minimum(frames + reach, last), torch.minimum((frames - reach).clamp(min=0), last)
        slope = slope + reach * (_frames_at(features, ahead) - _frames_at(features, behind))
    return slope / (2 * sum(reach**2 for reach in range(1, _DELTA_REACH + 1)))


def _frames_at(features: Tensor, index: Tensor) -> Tensor:
    """Return the frames (batch, frame, dim) at the positions (batch, frame)."""
    return features.gather(1, index.unsqueeze(2).expand(-1, -1, features.shape[2]))


def normalize_over_time(features: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return each utterance's features with mean zero and deviation one over its frames, zeros behind."""
    valid = valid_positions(lengths, features.shape[1], features.device).unsqueeze(2)
    count = torch.tensor(lengths, device=features.device).view(-1, 1, 1)
    # less the first frame: what never changes (silence) becomes exact zeros instead of rounding noise blown up
    shifted = (features - features[:, :1]) * valid
    centred = (shifted - shifted.sum(dim=1, keepdim=True) / count) * valid
    deviation = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (deviation + 1e-10)


@register_upstream(options=["padding"])
def fbank(config: UpstreamConfig) -> Upstream:
    """80 log-mel energies with deltas, normalised over each utterance: SUPERB's FBANK."""
    return Spectrogram(num_mel_bins=80, padding=config.padding)


@register_upstream(options=["padding"])
def fbank_no_cmvn(config: UpstreamConfig) -> Upstream:
    """80 log-mel energies with deltas, not normalised."""
    return Spectrogram(num_mel_bins=80, normalize=False, padding=config.padding)


@register_upstream(options=["padding"])
def mfcc(config: UpstreamConfig) -> Upstream:
    """13 cepstra with deltas, normalised over each utterance."""
    return Spectrogram(num_mel_bins=_MFCC_BINS, num_cepstra=_CEPSTRA, padding=config.padding)


@register_upstream(options=["padding"])
def mfcc_no_cmvn(config: UpstreamConfig) -> Upstream:
    """13 cepstra with deltas, not normalised: what HuBERT's first units are made of."""
    return Spectrogram(num_mel_bins=_MFCC_BINS, num_cepstra=_CEPSTRA, normalize=False, padding=config.padding)
