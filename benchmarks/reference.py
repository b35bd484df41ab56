"""s3prl's way of working, for comparison: the upstream in every epoch, on unsorted padded batches, thirteen layers stacked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

SAMPLE_RATE = 16_000


def lengths(count: int, seed: int = 0) -> np.ndarray:
    """Return IEMOCAP-like seconds: log-normal, mean 4.5, 1 to 15."""
    sigma = 0.6
    mu = np.log(4.5) - sigma**2 / 2
    return np.clip(np.random.default_rng(seed).lognormal(mu, sigma, count), 1.0, 15.0)


def write_corpus(folder: Path, seconds: Sequence[float], speakers: int = 10) -> Path:
    """Write noise of these lengths as a manifest of four classes in all three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    rows = ["audio,label,speaker,split"]
    for number, length in enumerate(seconds):
        noise = 0.1 * generator.standard_normal(int(length * SAMPLE_RATE))
        soundfile.write(folder / f"{number:05d}.wav", noise, SAMPLE_RATE)
        rows.append(f"{number:05d}.wav,{'abcd'[number % 4]},s{number % speakers},train")
    # dev and test hear a few of the same files: speed does not mind
    rows += [row.replace(",train", ",dev").replace(".wav,", ".wav,", 1) for row in rows[1:5]]
    (folder / "corpus.csv").write_text(with_ids(rows))
    return folder / "corpus.csv"


def with_ids(rows: Sequence[str]) -> str:
    """Return the table with an id for each row, and its last four rows as test too."""
    header, *body = rows
    body += [row.replace(",dev", ",test") for row in body[-4:]]
    return "\n".join([f"id,{header}", *(f"{number},{row}" for number, row in enumerate(body))]) + "\n"


def random_hubert(folder: Path, **shape: int) -> Path:
    """Save a HuBERT of base size with random weights in the hub's format."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        HubertModel(HubertConfig(**shape)).save_pretrained(folder)
    return folder


class ReferenceHead(nn.Module):
    """Stacked weighted sum, linear, mean over time, linear."""

    def __init__(self, layers: int = 13, dim: int = 768, classes: int = 4) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.project, self.answer = nn.Linear(dim, 256), nn.Linear(256, classes)

    def forward(self, hidden: Sequence[Tensor], frames: Sequence[int]) -> Tensor:
        """Return logits (batch, class)."""
        stacked = torch.stack(list(hidden))  # (layer, batch, frame, dim)
        summed = (self.weights.softmax(0).view(-1, 1, 1, 1) * stacked).sum(0)
        projected = [self.project(summed[row, :count]) for row, count in enumerate(frames)]
        return self.answer(torch.stack([row.mean(0) for row in projected]))


def reference_epoch(
    model: HubertModel,
    head: ReferenceHead,
    optimizer: torch.optim.Optimizer,
    waves: Sequence[Tensor],
    batch: int,
    accumulate: int,
) -> float:
    """Train one epoch and return its seconds."""
    began = time.perf_counter()
    order = torch.randperm(len(waves), generator=torch.Generator().manual_seed(0)).tolist()
    for number, start in enumerate(range(0, len(order), batch)):
        rows = order[start : start + batch]
        padded = nn.utils.rnn.pad_sequence([waves[row] for row in rows], batch_first=True)
        mask = torch.stack([torch.arange(padded.shape[1]) < len(waves[row]) for row in rows]).long()
        with torch.no_grad():
            hidden = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        frames = [min(round(len(waves[row]) / 320), hidden[0].shape[1]) for row in rows]
        targets = torch.tensor([row % 4 for row in rows])
        (nn.functional.cross_entropy(head(hidden, frames), targets) / accumulate).backward()
        if (number + 1) % accumulate == 0 or start + batch >= len(order):
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return time.perf_counter() - began


def nothing(*_: object) -> None:
    """Leave out what a measurement does not need."""


def alternate(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each way, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: statistics.median(values) for name, values in seconds.items()}
