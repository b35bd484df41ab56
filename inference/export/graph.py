"""A run as a graph can hold it: one utterance at a time, no check that would fix its length, no look outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...corpus.batch import Batch
from ...downstream.base import Expert
from ...downstream.ctc import Ctc
from ...downstream.sd.expert import Diarizer
from ...training.model import Model
from ...upstream.base import Frames, Layers, Upstream
from ...upstream.families.whisper import WhisperEncoder
from ...upstream.weighted_sum import WeightedSum

SAMPLES_PER_FRAME = 320  # of Whisper
_LONGEST = 16_000 * 3600  # without a limit the exporter takes none of its own
_FLOOR, _RANGE = 1e-10, 8.0  # Whisper's: of the energies, and of their logarithms below the loudest


class AsGraph(nn.Module):
    """waveform (1, sample) -> scores (1, class), or logits (1, frame, character)."""

    def __init__(self, model: Model, task: str, finish: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        upstream = model.upstream("audio")
        self.upstream = WhisperInGraph(upstream) if isinstance(upstream, WhisperEncoder) else upstream
        self.sum, self.expert = model.weighted_sum(task, "audio"), model.expert(task)
        self.layers = None if model.configs["audio"].layer is None else [model.layer_index("audio")]
        self.finish = finish

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the run's output for one waveform."""
        batch = Batch(waveform, (waveform.shape[1],), ids=("waveform",))
        layers = self.upstream(batch, layers=self.layers)
        statistics = self.expert.pools.get("audio")
        pooled = statistics is not None and (statistics != "mean" or self.sum.standardized)
        if pooled:
            layers = Layers([over_all(value, str(statistics)) for value in layers.values], (1,))
        frames = Frames(mixture(self.sum, layers), layers.lengths, pooled)
        return self.finish(head_output(self.expert, frames))


def longest_of(upstream: Upstream) -> int:
    """Return the most samples that a graph of an upstream can take."""
    return int(upstream.extractor.n_samples) if isinstance(upstream, WhisperEncoder) else _LONGEST


def mixture(weighted: WeightedSum, layers: Layers) -> Tensor:
    """Return the weighted sum of layers (1, frame, dim), as `WeightedSum` forms it without its checks and buffers."""
    values = list(layers.values)
    if weighted.normalize:
        values = [F.layer_norm(value, value.shape[-1:]) for value in values]
    if weighted.standardized:
        standards = zip(values, weighted.mean, weighted.scale, strict=True)
        values = [(value - mean) / scale for value, mean, scale in standards]
    weights = weighted.logits.softmax(dim=0).unbind()
    mixed = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        mixed = torch.addcmul(mixed, value, weight)
    return mixed


def over_all(values: Tensor, statistics: str) -> Tensor:
    """Return statistics over all frames (1, frame, dim) of one utterance: (1, 1, statistic x dim)."""
    mean = values.mean(dim=1, keepdim=True)
    if statistics == "mean":
        return mean
    if statistics == "mean+max":
        return torch.cat([mean, values.amax(dim=1, keepdim=True)], dim=2)
    return torch.cat([mean, (values - mean).square().mean(dim=1, keepdim=True).sqrt()], dim=2)


def head_output(expert: Expert, frames: Frames) -> Tensor:
    """Return an expert's output for one utterance; LSTMs get it as it is, since nothing is padded."""
    if isinstance(expert, Diarizer):
        hidden = frames.values
    elif isinstance(expert, Ctc):
        hidden = expert.projector(side_by_side(frames.values, expert.options.downsample))
    else:
        return expert({"audio": frames}).values
    for layer in expert.recurrent.layers:
        hidden, _ = layer(hidden)
    return expert.classifier(hidden)


def side_by_side(values: Tensor, count: int) -> Tensor:
    """Return frames (1, frame, dim), so many of them side by side as one; the last one is filled up with zeros."""
    _, size, dim = values.shape
    groups = ceiling(size, count)
    return F.pad(values, (0, 0, 0, groups * count - size)).reshape(1, groups, count * dim)


def ceiling(size: int, count: int) -> int:
    """Return how many times so many cover a size; a graph rounds the quotient of a negative number towards zero."""
    return (size + count - 1) // count


class WhisperInGraph(nn.Module):
    """Whisper's encoder with its spectrogram in the graph: transformers makes it outside of torch."""

    window: Tensor
    mel: Tensor

    def __init__(self, upstream: WhisperEncoder) -> None:
        super().__init__()
        self.upstream = upstream
        extractor = upstream.extractor
        self.size, self.hop, self.samples = extractor.n_fft, extractor.hop_length, extractor.n_samples
        self.register_buffer("window", torch.hann_window(self.size))
        self.register_buffer("mel", torch.from_numpy(extractor.mel_filters).float())  # (frequency, bin)

    def forward(self, batch: Batch, layers: list[int] | None = None) -> Layers:
        """Return the layers of one utterance of at most 30 s."""
        waveform, valid = cast(Tensor, batch.waveforms), ceiling(batch.lengths[0], SAMPLES_PER_FRAME)
        model, last = self.upstream.model, self.upstream.spec.num_layers - 1
        hidden = F.gelu(model.conv2(F.gelu(model.conv1(self.log_mels(waveform))))).transpose(1, 2)  # (1, frame, dim)
        wanted = range(last + 1) if layers is None else layers
        values = self.upstream._encode(hidden, [valid], last=max(wanted))
        return Layers([values[index][:, :valid] for index in wanted], (valid,))

    def log_mels(self, waveform: Tensor) -> Tensor:
        """Return the log-mel spectrogram (1, bin, mel frame) of a waveform padded to 30 s."""
        padded = F.pad(waveform, (0, self.samples - waveform.shape[1]))
        padded = F.pad(padded.unsqueeze(1), (self.size // 2, self.size // 2), mode="reflect").squeeze(1)
        frames = padded.unfold(1, self.size, self.hop)[:, :-1] * self.window  # (1, mel frame, sample)
        power = torch.fft.rfft(frames).abs().square()  # (1, mel frame, frequency)
        logs = (power @ self.mel).transpose(1, 2).clamp(min=_FLOOR).log10()
        return (torch.maximum(logs, logs.max() - _RANGE) + 4.0) / 4.0
