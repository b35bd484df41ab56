"""The frames of queries and documents, layer by layer, of a frozen upstream: computed once, and kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ..core.errors import UserError
from ..core.files import format_bytes, parse_size
from ..corpus.audio import check_files
from ..corpus.base import Utterance
from ..corpus.batch import Example
from ..corpus.fingerprints import row_keys
from ..runs.features import compute, disk_problems
from ..runs.log import filling
from ..upstream.base import Upstream, UpstreamConfig
from ..upstream.store.space import space_of
from ..upstream.store.store import Store, default_limit


@dataclass(frozen=True)
class Recordings:
    """Queries or documents, with their frames in a store."""

    utterances: tuple[Utterance, ...]
    seconds: tuple[float, ...]
    keys: tuple[str, ...]  # of their rows
    store: Store

    @property
    def ids(self) -> list[str]:
        """The names of the recordings, in order."""
        return [row.id for row in self.utterances]

    @property
    def lengths(self) -> list[int]:
        """How many frames each recording has."""
        return [self.store.index[key].frames for key in self.keys]

    def frames(self, layer: int) -> list[Tensor]:
        """Return the frames (frame, dim) of a layer, as they are stored: in half precision where that holds them."""
        column = self.store.space.layers.index(layer)
        return [torch.from_numpy(self.store.index[key].values()[:, column].copy()) for key in self.keys]


def compute_frames(
    upstream: Upstream,
    config: UpstreamConfig,
    layers: Sequence[int],
    groups: Mapping[str, Sequence[Utterance]],
    root: Path,
    limit: str | None,
    accelerator: Accelerator,
    show: Callable[[str], None],
) -> dict[str, Recordings]:
    """Return groups of utterances with the frames of the layers; what a store below `root` lacks is computed."""
    names = [(group, place) for group, rows in groups.items() for place in range(len(rows))]
    rows = [replace(groups[group][place], id=f"{group}/{place}") for group, place in names]
    seconds, broken = check_files(rows)
    if broken:
        raise UserError(
            f"Expected readable audio, found {len(broken)} broken of {len(rows)}, the first: {broken[0]}. "
            "Mend it, or leave it out."
        )
    short = [row for row in rows if upstream.spec.num_frames(int(seconds[row.id] * upstream.spec.sample_rate)) < 1]
    if short:
        raise UserError(
            f"Expected at least one frame of audio, found {seconds[short[0].id]:g} s: {short[0].audio}. Leave it out."
        )
    with disk_problems(root):
        root.mkdir(parents=True, exist_ok=True)
        keys = row_keys(rows, root, upstream.spec.sample_rate)
        store = Store(root, space_of(upstream, config, layers=layers, statistics=None, precision="float32"), upstream.name)
        store.look_up(keys.values())
        missing = {keys[row.id]: Example(row, seconds[row.id]) for row in rows if keys[row.id] not in store.index}
        _refuse_large(upstream, store, missing, limit)
        with filling([example.seconds for example in missing.values()], accelerator, show) as advance:
            upstream.to(accelerator.device)
            store.fill(
                missing,
                compute=lambda examples: compute(upstream, store.space, examples, accelerator),
                advance=lambda example: advance(example.seconds),
                show=show,
            )
        store.touch()
    return {
        group: Recordings(
            tuple(of_group),
            tuple(seconds[f"{group}/{place}"] for place in range(len(of_group))),
            tuple(keys[f"{group}/{place}"] for place in range(len(of_group))),
            store,
        )
        for group, of_group in groups.items()
    }


def _refuse_large(upstream: Upstream, store: Store, missing: Mapping[str, Example], limit: str | None) -> None:
    frames = sum(upstream.spec.num_frames(int(row.seconds * upstream.spec.sample_rate)) for row in missing.values())
    size, most = store.space.size(len(missing), frames), parse_size(limit) if limit else default_limit(store.root)
    if size > most:
        store.leave()
        raise UserError(
            f"Expected features of at most {format_bytes(most)}, found {format_bytes(size)} of {len(store.space.layers)} layers. "
            f"Search fewer layers (-l 9), or allow more: --store-limit {size // 10**9 + 1}GB, in another folder with --store DIR."
        )


@dataclass(frozen=True)
class Moments:
    """How many frames there are, their mean, and the sum of their squared distances from it: (dim,)."""

    count: int
    mean: Tensor
    squares: Tensor

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both."""
        count, apart = self.count + other.count, other.mean - self.mean
        squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), squares)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation, with one degree of freedom less."""
        return (self.squares / max(1, self.count - 1)).sqrt().clamp(min=1e-9)


def moments_of(frames: Sequence[Tensor]) -> Moments:
    """Return the moments of all frames of some utterances."""
    return reduce(Moments.__add__, map(_moments_of_one, frames))


def _moments_of_one(frames: Tensor) -> Moments:
    values = frames.double()
    mean = values.mean(dim=0)
    return Moments(len(values), mean, ((values - mean) ** 2).sum(dim=0))
