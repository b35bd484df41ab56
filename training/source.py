"""Where a batch comes from: audio read now, or layers that a store keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..corpus.batch import Batch, Example, cut_pieces, make_batch
from ..upstream.base import Layers
from ..upstream.store import Place, Store
from .config import TrainingConfig

MEAN_ROWS = 4096  # in a piece: pooled rows need no padding


class Source(Protocol):
    """What the loop asks for pieces and batches."""

    @property
    def slow(self) -> bool:
        """Whether it is worth preparing ahead, in a thread."""
        ...

    @property
    def kind(self) -> str:
        """What the features are: part of what a run is."""
        ...

    def pieces(self, examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:
        """Return examples in the pieces that go through the model together."""
        ...

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return a piece, ready for the model."""
        ...

    def norms(self, examples: Sequence[Example]) -> list[float] | None:
        """Return the mean L2 norm of the examples' frames by layer, where it is known."""
        ...


@dataclass(frozen=True)
class AudioSource:
    """Reads audio files, one piece at a time."""

    slow: bool = True
    kind: str = "computed"

    def pieces(self, examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:
        """Return pieces of little padding, under the budget of seconds."""
        return padded_pieces(examples, config)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return the examples' audio, padded once."""
        return make_batch(examples)

    def norms(self, examples: Sequence[Example]) -> None:
        """Nothing is known before the upstream has run."""


@dataclass(frozen=True)
class ShardSource:
    """Reads stored rows from their shards; layers are views of one padded buffer, in the type they are stored in."""

    role: str
    store: Store  # held: nobody prunes it while the run goes
    places: Mapping[str, Place]  # utterance id -> its row
    columns: Sequence[int]  # of the store's layers, those that the run asked for
    kind: str
    slow: bool = True

    def pieces(self, examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:
        """Return pieces of little padding, under the budget of seconds; means have nothing to pad."""
        if self.store.space.pooled:
            return whole_pieces(examples)
        return padded_pieces(examples, config)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return the examples' layers, padded once, read in the order in which they lie on the disk."""
        places = [self.places[example.utterance.id] for example in examples]
        lengths = tuple(place.row.frames for place in places)
        dtype = np.result_type(*{place.shard.dtype for place in places})
        padded = np.zeros((len(places), max(lengths), len(self.columns), self.store.space.dim), dtype)
        everything = len(self.columns) == len(self.store.space.layers)
        for index in sorted(range(len(places)), key=lambda index: (str(places[index].shard.path), places[index].row.start)):
            values = places[index].values()
            padded[index, : len(values)] = values if everything else values[:, list(self.columns)]
        layers = Layers(torch.from_numpy(padded).unbind(dim=2), lengths, self.store.space.pooled)  # each (batch, frame, dim)
        return stored_batch(examples, self.role, layers)

    def norms(self, examples: Sequence[Example]) -> list[float]:
        """Return what was measured when the rows were computed."""
        rows = [self.places[example.utterance.id].row for example in examples]
        frames = sum(row.utterance_frames for row in rows)
        return [sum(row.norms[column] * row.utterance_frames for row in rows) / frames for column in self.columns]


@dataclass(frozen=True)
class MemorySource:
    """Serves means over time out of memory: an utterance of one frame each."""

    shards: ShardSource
    values: Tensor  # (row, layer, dim)
    rows: Mapping[str, int]  # utterance id -> row
    slow: bool = False

    @property
    def kind(self) -> str:
        """What lies in the shards."""
        return self.shards.kind

    @classmethod
    def of(cls, shards: ShardSource) -> MemorySource:
        """Read all rows into memory, shard by shard."""
        by_shard: dict[Path, list[tuple[int, Place]]] = {}
        for row, place in enumerate(shards.places.values()):
            by_shard.setdefault(place.shard.path, []).append((row, place))
        values = np.empty((len(shards.places), len(shards.columns), shards.store.space.dim), np.float32)
        for found in by_shard.values():
            rows, starts = [row for row, _ in found], [place.row.start for _, place in found]
            values[rows] = found[0][1].shard.values[np.ix_(starts, shards.columns)]
        return cls(shards, torch.from_numpy(values), {name: row for row, name in enumerate(shards.places)})

    def pieces(self, examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:  # noqa: ARG002
        """Return the examples in as few pieces as possible: there is nothing to pad."""
        return whole_pieces(examples)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return the examples' means."""
        index = torch.tensor([self.rows[example.utterance.id] for example in examples])
        chosen = self.values[index].unsqueeze(1)  # (batch, 1, layer, dim)
        return stored_batch(examples, self.shards.role, Layers(chosen.unbind(dim=2), (1,) * len(examples), pooled=True))

    def norms(self, examples: Sequence[Example]) -> list[float]:
        """Return what was measured when the rows were computed."""
        return self.shards.norms(examples)


def padded_pieces(examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:
    """Return examples in the pieces that a config asks for."""
    seconds, size, overhead = config.piece_seconds, config.piece_size, config.piece_overhead
    return cut_pieces(examples, seconds=seconds, size=size, sort=config.sort_pieces, overhead=overhead)


def whole_pieces(examples: Sequence[Example]) -> list[list[Example]]:
    """Return examples in pieces of MEAN_ROWS."""
    return [list(examples[start : start + MEAN_ROWS]) for start in range(0, len(examples), MEAN_ROWS)]


def stored_batch(examples: Sequence[Example], role: str, layers: Layers) -> Batch:
    """Return a batch whose layers of a role come from a store; no audio is read."""
    return Batch(
        waveforms=None,
        lengths=(),
        ids=tuple(example.utterance.id for example in examples),
        texts=tuple(example.utterance.text for example in examples),
        targets=tuple(example.target for example in examples),
        stored={role: layers},
    )
