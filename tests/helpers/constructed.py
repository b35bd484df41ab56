"""An upstream whose layers are known: one of them knows the answer, and it is the smallest."""

from __future__ import annotations

from typing import Any

import torch

from headwater.corpus.batch import Batch
from headwater.upstream.base import Layers, Upstream, UpstreamSpec


class Constructed(Upstream):
    """Layers of which one alone knows the tone, at a hundredth of the others' size; one dimension of the last is massive."""

    name = "constructed"

    def __init__(self) -> None:
        super().__init__()
        self.spec = UpstreamSpec("audio", 7, 8, 16_000, lambda samples: max(samples // 320, 1))

    def forward(self, batch: Batch, *, layers: Any = None, **_: Any) -> Layers:  # type: ignore[override]
        """Return noise that is a function of the samples, and what the spectrum says in layer 5."""
        assert batch.waveforms is not None
        values = []
        for layer in range(7) if layers is None else layers:
            rows = []
            for waveform, length in zip(batch.waveforms, batch.lengths, strict=True):
                seed = int(waveform[:length].abs().sum() * 1e4) * 7 + layer
                noise = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
                if layer == 5:
                    power = torch.fft.rfft(waveform[:length], n=16_000).abs()
                    bands = torch.stack([power[100:500].mean(), power[500:1500].mean(), power[1500:4000].mean()])
                    noise[0, :3] += 20 * (bands / bands.sum() - 1 / 3)
                    noise = 0.01 * noise
                if layer == 6:
                    noise[0, 0] = 1000 + 10 * noise[0, 0]
                rows.append(noise)
            values.append(torch.stack(rows))
        return Layers(values, (1,) * len(batch.lengths))
