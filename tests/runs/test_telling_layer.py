"""A probe and learnt weights on an upstream of which one layer alone holds the label."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headwater.analysis.layers.probe import read_probe
from headwater.corpus.batch import Batch, as_batch
from headwater.plans.grid import expand, run_plan
from headwater.runs import run as plots
from headwater.runs.config.resolve import resolve
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UPSTREAMS, Layers, Upstream, UpstreamSpec, named_layers, register_upstream

NUM_LAYERS, DIM, HOP = 8, 16, 1600  # HOP: samples of a frame
TELLING = 5  # the layer that holds the label


class OneTellingLayer(Upstream):
    """Noise in every layer, of the same norm; layer 5 also says how high the tone is. It counts what it hears."""

    passes = 0  # over utterances

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scales = torch.nn.Parameter(torch.ones(NUM_LAYERS))
        self.scales.data[TELLING] = scale
        self.spec = UpstreamSpec("audio", NUM_LAYERS, DIM, 16_000, num_frames=lambda samples: samples // HOP)

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,  # noqa: ARG002 (always in eval mode)
        masked: Tensor | None = None,  # noqa: ARG002
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return each utterance's layers, a function of its samples alone."""
        batch = as_batch(batch)
        assert batch.waveforms is not None, "this upstream hears audio"
        type(self).passes += len(batch)
        lengths = tuple(self.spec.num_frames(length) for length in batch.lengths)
        rows = [self._layers(row[:length]) for row, length in zip(batch.waveforms, batch.lengths, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (batch, frame, layer, dim)
        return Layers([padded[:, :, layer] for layer in named_layers(layers, NUM_LAYERS)], lengths)

    def _layers(self, waveform: Tensor) -> Tensor:
        """Return (frame, layer, dim)."""
        digest = hashlib.sha256(waveform.numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:6], "little"))
        # the same in all frames: a mean over time does not silence it
        values = torch.randn(1, NUM_LAYERS, DIM, generator=generator).repeat(self.spec.num_frames(len(waveform)), 1, 1)
        highest = float(torch.fft.rfft(waveform).abs().argmax()) * 16_000 / len(waveform)  # Hz
        values[:, TELLING, int(highest > 450) + int(highest > 1500)] += 3.0
        values = DIM**0.5 * values / values.norm(dim=2, keepdim=True)
        return values * self.scales.detach().unsqueeze(1)


@pytest.fixture(scope="module")
def folder(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The probes of two upstreams, made by plans: `loud`, and `faint`, whose telling layer is scaled by 0.01."""
    place = tmp_path_factory.mktemp("probe")
    training = {"steps": 200, "batch_size": 32, "eval_every": 50, "save_every": 200, "log_every": 50}
    mapping = {"task": "emotion", "corpus": {"data": str(tones)}, "training": training, "optimizer": {"lr": 1e-2}}
    with pytest.MonkeyPatch.context() as patch, UPSTREAMS.isolated():
        patch.setattr(plots, "confusion_plot", lambda *_, **__: None)  # pictures take most of such a run
        patch.setattr(plots, "curves_plot", lambda *_, **__: None)
        for name, scale in (("loud", 1.0), ("faint", 0.01)):
            register_upstream(lambda _, it=scale: OneTellingLayer(it), name=name, description="of a test")
            config = resolve([mapping, {"upstream": {"name": name}}])
            run_plan(expand(config, [1], [1], [], [*range(NUM_LAYERS), None]), place / name, Runtime("cpu", quiet=True))
        yield place


def peak(values: np.ndarray) -> int:
    """Return the layer of the largest value; another one must not come near it."""
    best, second = sorted(values[0])[-1:-3:-1]
    assert best > 1.5 * second, values
    return int(values[0].argmax())


def test_all_heads_of_a_probe_share_one_pass_over_each_utterance(folder: Path) -> None:
    assert folder.is_dir()
    assert OneTellingLayer.passes == 2 * 72


def test_probe_and_weights_both_peak_at_the_layer_that_holds_the_label(folder: Path) -> None:
    found = read_probe(folder / "loud")
    assert found.best_on_dev == TELLING
    assert peak(found.weights.weights[found.key]) == peak(found.weights.contributions(found.key)) == TELLING
    assert found.scores["dev"][None][0] > max(found.scores["dev"][layer][0] for layer in found.layers if layer != TELLING)


def test_a_faint_layer_misleads_the_weights_but_not_the_probe(folder: Path) -> None:
    found = read_probe(folder / "faint")
    dev = found.scores["dev"]
    assert found.best_on_dev == TELLING
    assert dev[TELLING][0] > 0.3 + max(dev[layer][0] for layer in found.layers if layer != TELLING)
    assert found.weights.weights[found.key][0].argmax() != TELLING
    assert found.weights.contributions(found.key)[0].argmin() == TELLING
