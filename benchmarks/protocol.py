"""Claim: SUPERB's whole ER protocol (5 folds of 30,000 steps at batch 32, 5,531 utterances, 13 x 768) takes minutes on two cores.

python benchmarks/protocol.py            # --steps 30000 is the whole
The features are random: what is timed is everything behind the upstream, evaluation every 1,000 steps included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from headwater.commands import downstream
from headwater.corpus.batch import as_batch
from headwater.upstream.base import Layers, Upstream, UpstreamConfig, UpstreamSpec, register_upstream

UTTERANCES = 5531


class RandomBase(Upstream):
    """Thirteen layers of noise of base size: fast to fill a store with."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = UpstreamSpec("audio", 13, 768, 16_000, lambda samples: max(1, samples // 320))

    def forward(self, batch: Any, *, views: int = 1, masked: Any = None, layers: Sequence[int] | None = None) -> Layers:  # noqa: ARG002
        """Return noise that depends on the utterance alone."""
        values = []
        for row, length in enumerate(as_batch(batch).lengths):
            generator = torch.Generator().manual_seed(int(as_batch(batch).waveforms[row, :length].abs().sum() * 1e6))
            values.append(torch.randn(13, self.spec.num_frames(length), 768, generator=generator))
        padded = torch.nn.utils.rnn.pad_sequence([value.transpose(0, 1) for value in values], batch_first=True)
        chosen = range(13) if layers is None else layers
        return Layers([padded[:, :, layer] for layer in chosen], tuple(value.shape[1] for value in values))


@register_upstream(untrained=True)
def random_base(config: UpstreamConfig) -> Upstream:  # noqa: ARG001
    """Noise of HuBERT-base's shape."""
    return RandomBase()


def main() -> None:
    """Write a corpus of IEMOCAP's size, and run the recipe over it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30_000)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["HEADWATER_CACHE"] = str(work / "cache")
        generator = np.random.default_rng(0)
        rows = ["audio,label,speaker"]
        for number in range(UTTERANCES):
            soundfile.write(work / f"{number}.wav", 0.1 * generator.standard_normal(1600), 16_000)
            rows.append(f"{number}.wav,{'abcd'[number % 4]},s{number % 10}")
        (work / "corpus.csv").write_text("\n".join(rows) + "\n")
        recipe = ["-c", "superb/emotion", "-u", "random_base", "--data", str(work / "corpus.csv"), "--folds", "all"]
        changes = ["upstream.padding=exact", "corpus.name=manifest", "corpus.protocol=speaker5", f"training.steps={flags.steps}"]
        began = time.perf_counter()
        downstream.main([*recipe, "-o", *changes, "-p", str(work / "run"), "--device", "cpu"])
        seconds = time.perf_counter() - began
    print(f"5 folds x {flags.steps} steps over {UTTERANCES} utterances: {seconds / 60:.1f} minutes, filling included")


if __name__ == "__main__":
    main()
