"""Claim: a frame-level training step on 13 stored float16 layers takes at most a third of the memory of the stacked sum's.

python benchmarks/memory.py --batch 16 --seconds 10
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import numpy as np
import torch
from torch import Tensor, nn

from headwater.downstream.heads import Pooled
from headwater.upstream.base import Frames, Layers
from headwater.upstream.weighted_sum import WeightedSum

LAYERS, DIM, FRAMES_PER_SECOND = 13, 768, 50


class StackedSum(nn.Module):
    """s3prl's way: all layers stacked in float32, multiplied, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(LAYERS))

    def forward(self, layers: Layers) -> Frames:
        """Return the mixture."""
        stacked = torch.stack(list(layers.values)).float()  # (layer, batch, frame, dim)
        mixed = (self.logits.softmax(dim=0).view(-1, 1, 1, 1) * stacked).sum(dim=0)
        return Frames(mixed, layers.lengths)


WAYS = {"stacked": StackedSum, "ours": lambda: WeightedSum(LAYERS)}


def main() -> None:
    """Measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--way", choices=WAYS, help="measure this one here (the others start so)")
    flags = parser.parse_args()
    if flags.way:
        print(measure(flags.way, flags.batch, int(flags.seconds * FRAMES_PER_SECOND)))
        return
    command = [sys.executable, __file__, "--batch", str(flags.batch), "--seconds", str(flags.seconds), "--way"]
    peaks = {way: float(subprocess.run([*command, way], capture_output=True, text=True, check=True).stdout) for way in WAYS}
    stored = flags.batch * int(flags.seconds * FRAMES_PER_SECOND) * LAYERS * DIM * 2 / 2**20
    print(f"one step on {flags.batch} x {flags.seconds:g} s, {LAYERS} x {DIM} in float16: {stored:.0f} MB, counted in both")
    for way, peak in peaks.items():
        print(f"{way:<8} {peak:7.0f} MB   {peak / peaks['stacked']:.3f} of the stacked way's")


def measure(way: str, batch: int, frames: int) -> float:
    """Return the peak of one training step above what the process held before, in MB."""
    torch.set_num_threads(1)
    pooled = Pooled(DIM, 256, activation="relu", pooling="avgmax")
    mixture, head = WAYS[way](), torch.nn.Sequential(pooled, torch.nn.Linear(pooled.output_dim, 4))
    optimizer = torch.optim.Adam([*mixture.parameters(), *head.parameters()])
    train(mixture, head, optimizer, stored_layers(1, 2))  # what the first step loads is not the layers' fault
    before = peak_memory()
    train(mixture, head, optimizer, stored_layers(batch, frames))
    return peak_memory() - before


def stored_layers(batch: int, frames: int) -> Layers:
    """Return layers as the store hands them over: views of one padded float16 buffer."""
    padded = np.zeros((batch, frames, LAYERS, DIM), np.float16)
    padded += np.float16(0.5)
    return Layers(torch.from_numpy(padded).unbind(dim=2), (frames,) * batch)


def train(mixture: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer, layers: Layers) -> None:
    """Train one step."""
    answers: Tensor = head(mixture(layers))
    nn.functional.cross_entropy(answers, torch.zeros(len(answers), dtype=torch.long)).backward()
    optimizer.step()


def peak_memory() -> float:
    """Return the most that this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


if __name__ == "__main__":
    main()
