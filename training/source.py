"""Where a batch comes from: audio and texts as they are, or layers that a store keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..corpus.batch import Batch, Example, make_batch, silent_batch
from ..upstream.store.reading import StoredLayers
from .batches import cut_pieces
from .config import TrainingConfig

MEAN_ROWS = 4096  # in a piece: pooled rows need no padding


@dataclass(frozen=True)
class Source:
    """Pieces and batches for the loop: each role's layers from a store, or what its upstream needs to compute them."""

    roles: tuple[str, ...]
    stored: Mapping[str, StoredLayers] = field(default_factory=dict)  # role -> its layers

    @property
    def uses_audio(self) -> bool:
        """Whether audio is read."""
        return "audio" in self.roles and "audio" not in self.stored

    @property
    def slow(self) -> bool:
        """Whether it is worth preparing ahead, in a thread."""
        return self.uses_audio or any(layers.slow for layers in self.stored.values())

    @property
    def kind(self) -> str:
        """What the features are, role by role where there are several: part of what a run is."""
        kinds = {role: self.stored[role].kind if role in self.stored else "computed" for role in self.roles}
        return next(iter(kinds.values())) if len(kinds) == 1 else "; ".join(f"{role} {kind}" for role, kind in kinds.items())

    def pieces(self, examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:
        """Return examples in the pieces that go through the model together: of little padding, under a budget of seconds."""
        if all(role in self.stored and self.stored[role].pooled for role in self.roles):
            return whole_pieces(examples)
        return padded_pieces(examples, config)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Return a piece, ready for the model."""
        stored = {role: layers.layers(examples) for role, layers in self.stored.items()}
        made = make_batch(examples) if self.uses_audio else silent_batch(examples)
        return replace(made, stored=stored)

    def norms(self, role: str, examples: Sequence[Example]) -> list[float] | None:
        """Return the mean L2 norm of the examples' frames by layer, where it is known before the upstream has run."""
        return self.stored[role].norms(examples) if role in self.stored else None


def kind_of_role(kind: str, role: str) -> str:
    """Return what the features of one role are, of what `Source.kind` says of all."""
    parts = kind.split("; ")
    return kind if len(parts) == 1 else next((part.removeprefix(f"{role} ") for part in parts if part.startswith(f"{role} ")), "")


def padded_pieces(examples: Sequence[Example], config: TrainingConfig) -> list[list[Example]]:
    """Return examples in pieces, as a config cuts them."""
    seconds, size, overhead = config.piece_seconds, config.piece_size, config.piece_overhead
    return cut_pieces(examples, seconds=seconds, size=size, sort=config.sort_pieces, overhead=overhead)


def whole_pieces(examples: Sequence[Example]) -> list[list[Example]]:
    """Return examples in pieces of MEAN_ROWS."""
    return [list(examples[start : start + MEAN_ROWS]) for start in range(0, len(examples), MEAN_ROWS)]
