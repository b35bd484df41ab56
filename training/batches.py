"""Which utterances make a step, and how it is cut into pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..corpus.batch import Example


def derive_seed(*parts: int | str) -> int:
    """Return a seed for a fresh generator: the same for the same parts, on every machine."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits: torch takes no more


def draw(count: int, batch_size: int, seed: int, step: int, weights: Tensor | None = None) -> list[int]:
    """Return the rows of a step's set, a function of (seed, step) alone.

    Without weights: epochs of shuffled rows, one after the other. With weights: drawn with replacement.
    """
    if weights is not None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "draw", step))
        return torch.multinomial(weights, batch_size, replacement=True, generator=generator).tolist()
    first = step * batch_size
    return [epoch_order(count, seed, place // count)[place % count] for place in range(first, first + batch_size)]


def draw_of_like_length(seconds: Sequence[float], batch_size: int, seed: int, step: int, steps: int) -> list[int]:
    """Return the rows of a step's set, of much the same length: `steps` sets are drawn as one, sorted and cut."""
    bucket, place = divmod(step, steps)
    rows = [row for at in range(steps) for row in draw(len(seconds), batch_size, seed, bucket * steps + at)]
    rows.sort(key=lambda row: (seconds[row], row))
    generator = torch.Generator().manual_seed(derive_seed(seed, "bucket", bucket))
    first = int(torch.randperm(steps, generator=generator)[place]) * batch_size
    return rows[first : first + batch_size]


@lru_cache(maxsize=16)
def epoch_order(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the shuffled rows of an epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    return tuple(torch.randperm(count, generator=generator).tolist())


def sampling_weights(examples: Sequence[Example]) -> Tensor | None:
    """Return the examples' weights, or None where all are drawn alike."""
    weights = [example.weight for example in examples]
    return torch.tensor(weights, dtype=torch.float64) if len({*weights}) > 1 else None


def cut_pieces(
    examples: Sequence[Example], *, seconds: float, size: int | None = None, sort: bool = True, overhead: float = 1.0
) -> list[list[Example]]:
    """Return the examples in pieces: at most `seconds` of padded audio and `size` utterances each.

    Sorted by length they are cut where all of it takes least: a piece costs its padded seconds, and `overhead` seconds more.
    """

    def fits(longest: float, count: int) -> bool:
        """Return whether so many utterances, padded so far, may be a piece."""
        return count == 1 or (longest * count <= seconds and (size is None or count <= size))

    if sort:
        return _cheapest_pieces(sorted(examples, key=lambda example: -example.seconds), fits, overhead)
    pieces: list[list[Example]] = []
    for example in examples:
        piece = [*pieces[-1], example] if pieces else [example]
        if pieces and fits(max(other.seconds for other in piece), len(piece)):
            pieces[-1] = piece
        else:
            pieces.append([example])
    return pieces


def _cheapest_pieces(rows: Sequence[Example], fits: Callable[[float, int], bool], overhead: float) -> list[list[Example]]:
    """Cut rows that fall in length: a shortest path over the places to cut."""
    least, starts = [0.0], [0]  # of the first so many rows: what they cost, and where their last piece starts
    for end in range(1, len(rows) + 1):
        options = []
        for start in range(end - 1, -1, -1):
            longest, count = rows[start].seconds, end - start
            if not fits(longest, count):
                break
            options.append((least[start] + longest * count + overhead, start))
        cost, first = min(options)
        least.append(cost)
        starts.append(first)
    pieces, end = [], len(rows)
    while end:
        pieces.append(list(rows[starts[end] : end]))
        end = starts[end]
    return pieces[::-1]


def deal(examples: Sequence[Example], processes: int, process: int, *, sort: bool = True) -> list[Example]:
    """Return one process' share of a step: lengths spread evenly, counts that differ by one at most."""
    rows = sorted(examples, key=lambda example: -example.seconds) if sort else list(examples)
    return rows[process::processes]
