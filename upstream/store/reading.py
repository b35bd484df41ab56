"""Stored layers, read from their shards or held in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...corpus.batch import Example
from ..base import Layers
from .store import Place, Store


class StoredLayers(Protocol):
    """One role's layers, kept by a store."""

    @property
    def slow(self) -> bool:
        """Whether it is worth preparing ahead, in a thread."""
        ...

    @property
    def kind(self) -> str:
        """What the features are: part of what a run is."""
        ...

    @property
    def pooled(self) -> bool:
        """Whether they are statistics over time: nothing is padded then."""
        ...

    @property
    def note(self) -> str:
        """What a user should know of them; "" where nothing."""
        ...

    def layers(self, examples: Sequence[Example]) -> Layers:
        """Return the examples' layers, padded once."""
        ...

    def norms(self, examples: Sequence[Example]) -> list[float]:
        """Return the mean L2 norm of the examples' frames by layer."""
        ...


@dataclass(frozen=True)
class ShardLayers:
    """Reads stored rows from their shards; layers are views of one padded buffer, in the type they are stored in."""

    store: Store  # held: nobody prunes it while the run goes
    places: Mapping[str, Place]  # utterance id -> its row
    columns: Sequence[int]  # of the store's layers, those that the run uses
    kind: str
    slow: bool = True

    @property
    def pooled(self) -> bool:
        """Whether the rows are means over time."""
        return self.store.space.pooled

    @property
    def note(self) -> str:
        """What eight bits cost."""
        lost = self.lost()
        if not lost:
            return ""
        worst = max(range(len(lost)), key=lost.__getitem__)
        mean = math.sqrt(sum(of_layer**2 for of_layer in lost) / len(lost))
        layer = self.store.space.layers[self.columns[worst]]
        return (
            f"frames are kept in 8 bits, which lose {100 * mean:.1f} % of each channel's spread (layer {layer} most, "
            f"{100 * lost[worst]:.1f} %): -o store.precision=float16 keeps all"
        )

    def layers(self, examples: Sequence[Example]) -> Layers:
        """Return the examples' layers, padded once, read in the order in which they lie on the disk."""
        places = [self.places[example.utterance.id] for example in examples]
        lengths = tuple(place.frames for place in places)
        dtype = np.result_type(*{place.dtype for place in places})
        padded = np.zeros((len(places), max(lengths), len(self.columns), self.store.space.dim), dtype)
        everything = len(self.columns) == len(self.store.space.layers)
        columns = slice(None) if everything else list(self.columns)
        for index in sorted(range(len(places)), key=lambda index: (str(places[index].shard.path), places[index].row.start)):
            places[index].read(padded[index, : lengths[index]], columns)
        return Layers(torch.from_numpy(padded).unbind(dim=2), lengths, self.pooled)  # each (batch, frame, dim)

    def lost(self) -> list[float]:
        """Return what eight bits lost of the rows by layer, measured when they were computed: error over spread."""
        rows = [place.row for place in self.places.values() if place.row.lost]
        frames = sum(row.utterance_frames for row in rows)
        return [
            math.sqrt(sum(row.lost[column] ** 2 * row.utterance_frames for row in rows) / frames)
            for column in (self.columns if rows else ())
        ]

    def norms(self, examples: Sequence[Example]) -> list[float]:
        """Return what was measured when the rows were computed."""
        rows = [self.places[example.utterance.id].row for example in examples]
        frames = sum(row.utterance_frames for row in rows)
        return [sum(row.norms[column] * row.utterance_frames for row in rows) / frames for column in self.columns]


@dataclass(frozen=True)
class MemoryLayers:
    """Serves means over time out of memory: an utterance of one frame each."""

    shards: ShardLayers
    values: Tensor  # (row, layer, dim)
    rows: Mapping[str, int]  # utterance id -> row
    slow: bool = False
    pooled: bool = True

    @property
    def kind(self) -> str:
        """What lies in the shards."""
        return self.shards.kind

    @property
    def note(self) -> str:
        """Of means there is nothing to say."""
        return self.shards.note

    @classmethod
    def of(cls, shards: ShardLayers) -> MemoryLayers:
        """Read all rows into memory, shard by shard."""
        by_shard: dict[Path, list[tuple[int, Place]]] = {}
        for row, place in enumerate(shards.places.values()):
            by_shard.setdefault(place.shard.path, []).append((row, place))
        values = np.empty((len(shards.places), len(shards.columns), shards.store.space.dim), np.float32)
        for found in by_shard.values():
            rows, starts = [row for row, _ in found], [place.row.start for _, place in found]
            values[rows] = found[0][1].shard.values[np.ix_(starts, shards.columns)]
        return cls(shards, torch.from_numpy(values), {name: row for row, name in enumerate(shards.places)})

    def layers(self, examples: Sequence[Example]) -> Layers:
        """Return the examples' means."""
        index = torch.tensor([self.rows[example.utterance.id] for example in examples])
        chosen = self.values[index].unsqueeze(1)  # (batch, 1, layer, dim)
        return Layers(chosen.unbind(dim=2), (1,) * len(examples), pooled=True)

    def norms(self, examples: Sequence[Example]) -> list[float]:
        """Return what was measured when the rows were computed."""
        return self.shards.norms(examples)
