"""An upstream of one's own: the loudness of 20 bands, in windows of 20 ms; two layers, nothing to train."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from headwater.corpus import Batch, as_batch
from headwater.upstream import Layers, Upstream, UpstreamConfig, UpstreamSpec, register_upstream

WINDOW, BANDS = 320, 20  # samples at 16 kHz


def num_frames(num_samples: int) -> int:
    """Return how many whole windows an utterance has; a shorter one is padded to one."""
    return max(num_samples // WINDOW, 1)


class Bands(Upstream):
    """The logarithm of each band's energy, and its change from one window to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = UpstreamSpec(modality="audio", num_layers=2, dim=BANDS, sample_rate=16_000, num_frames=num_frames)

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,
        masked: Tensor | None = None,  # noqa: ARG002 (refused where there is no mask embedding)
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers asked for (all, where `layers` is None): each (batch, frame, dim)."""
        batch = as_batch(batch)  # waveforms: (batch, sample), zeros behind the end of each utterance
        assert batch.waveforms is not None, "whoever listens is given waveforms"
        waveforms = nn.functional.pad(batch.waveforms, (0, max(WINDOW - batch.waveforms.shape[1], 0)))
        power = torch.fft.rfft(waveforms.unfold(1, WINDOW, WINDOW)).abs().square()  # (batch, frame, frequency)
        loudness = (power[..., 1:].unflatten(2, (BANDS, -1)).sum(dim=3) + 1e-6).log()
        before = torch.cat([loudness[:, :1], loudness[:, :-1]], dim=1)
        both = [loudness, loudness - before]
        copies = views if self.training else 1  # in eval mode there is one view
        lengths = tuple(num_frames(length) for length in batch.lengths)
        wanted = range(2) if layers is None else layers
        return Layers([both[layer].repeat(copies, 1, 1) for layer in wanted], lengths * copies)


@register_upstream
def my_upstream(config: UpstreamConfig) -> Upstream:  # noqa: ARG001
    """Loudness of 20 bands and its change: an example of one's own."""
    return Bands()
