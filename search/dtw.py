"""Subsequence dynamic time warping of spoken queries through documents, many documents at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prepare = Callable[[Tensor], Tensor]  # frames (frame, dim) -> as they are compared, on the device that compares
Costs = tuple[Tensor, tuple[int, ...]]  # (query, document), and which documents they are
Distance = Literal["cosine_exp", "cosine", "cosine_neg_log", "euclidean", "cityblock"]
_LEAST = 1e-9  # of a norm and of a row's range, as in s3prl
_ROWS = 256  # frames of queries at once: more make no product faster
_CELLS = {"cpu": 1 << 12, "cuda": 1 << 20}  # frames of documents at once: on a CPU a row of distances stays in its cache
_GAP = 2  # columns of infinite cost in front of each document: a path advances by two frames at most


@dataclass(frozen=True)
class Block:
    """Documents of similar length, each behind a gap, and padded with its own last frame.

    That padding changes no cost: a path through repeated frames costs as much as one that stays on the last frame.
    """

    frames: Tensor  # (document, gap + frame, dim)
    rows: tuple[int, ...]  # which documents they are


def make_blocks(documents: Sequence[Tensor], prepare: Prepare, device: torch.device) -> Iterator[Block]:
    """Yield documents (frame, dim) in blocks, shortest first."""
    order = sorted(range(len(documents)), key=lambda row: len(documents[row]))
    rows: list[int] = []
    for place, row in enumerate(order):
        rows.append(row)
        following = len(documents[order[place + 1]]) if place + 1 < len(order) else None
        if following is None or (len(rows) + 1) * (following + _GAP) > _CELLS[device.type]:
            yield _block([documents[row] for row in rows], rows, prepare)
            rows = []


def _block(documents: Sequence[Tensor], rows: Sequence[int], prepare: Prepare) -> Block:
    longest = max(map(len, documents))
    filled = [torch.cat([document, document[-1:].expand(longest - len(document), -1)]) for document in documents]
    frames = torch.stack([prepare(document) for document in filled])
    return Block(torch.nn.functional.pad(frames, (0, 0, _GAP, 0)), tuple(rows))


def unit_rows(frames: Tensor) -> Tensor:
    """Return frames (frame, dim) of length one: their products are cosines."""
    return frames / frames.norm(dim=1, keepdim=True).clamp(min=_LEAST)


def is_cosine(distance: Distance) -> bool:
    """Return whether a distance compares directions only, so that frames are given with length one."""
    return distance.startswith("cosine")


def distances(query: Tensor, documents: Tensor, distance: Distance) -> Tensor:
    """Return the distance of each frame of a query from each of many frames: (query frame, frame)."""
    if not is_cosine(distance):
        return torch.cdist(query, documents, p=2 if distance == "euclidean" else 1)
    apart = torch.addmm(query.new_ones(()), query, documents.T, alpha=-1)
    if distance == "cosine_exp":
        return apart.exp_().sub_(1)
    if distance == "cosine_neg_log":
        return apart.neg_().add_(1).clamp_(min=_LEAST).log_().neg_()
    return apart


def search_costs(
    queries: Sequence[Tensor],
    documents: Sequence[Tensor],
    prepare: Prepare,
    distance: Distance = "cosine_exp",
    *,
    minmax: bool = True,
) -> Iterator[Costs]:
    """Yield what the best path of each query through some documents costs, (query, document), and which documents they are.

    A cost is the mean distance along the path. The step pattern is dtw's `asymmetric` (Sakoe and Chiba 1978, slope 0 to 2):
    each frame of the query is used once, and the document advances by 0, 1 or 2 frames; begin and end in it are free.
    `prepare` gives frames as they are compared. On a CPU each of torch's threads has documents of its own.
    """
    ready = [prepare(query) for query in queries]
    groups = list(_in_groups(ready))
    device = ready[0].device
    blocks = make_blocks(documents, prepare, device)

    def of_block(block: Block) -> Costs:
        """Return the costs of all queries in a block."""
        with torch.inference_mode():
            return torch.cat([group_costs(group, block, distance, minmax=minmax) for group in groups]), block.rows

    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        yield from map(of_block, blocks)
        return
    torch.set_num_threads(1)  # of this thread, too: products of this size gain little from several, and wait for the slowest
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from _in_turn(pool, of_block, blocks, threads)
    finally:
        torch.set_num_threads(threads)


def _in_turn(
    pool: ThreadPoolExecutor, of_block: Callable[[Block], Costs], blocks: Iterator[Block], threads: int
) -> Iterator[Costs]:
    """Yield the costs of blocks that are prepared as they are needed: all at once would be too many frames."""
    waiting: deque[Future[Costs]] = deque()
    for block in blocks:
        waiting.append(pool.submit(of_block, block))
        if len(waiting) > threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _in_groups(queries: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield queries in order, so many together that the product of their frames with a block's is fast."""
    group: list[Tensor] = []
    for query in queries:
        if group and sum(map(len, group)) + len(query) > _ROWS:
            yield group
            group = []
        group.append(query)
    yield group


def group_costs(queries: Sequence[Tensor], block: Block, distance: Distance, *, minmax: bool) -> Tensor:
    """Return the costs of some queries in the documents of a block: (query, document)."""
    count, width = block.frames.shape[:2]
    apart = distances(torch.cat(list(queries)), block.frames.flatten(0, 1), distance).view(-1, count, width)
    if minmax:
        to_unit_range(apart[:, :, _GAP:])
    apart[:, :, :_GAP] = torch.inf
    lengths = [len(query) for query in queries]
    costs = [path_cost(rows) for rows in apart.view(len(apart), -1).split(lengths)]
    return torch.stack([cost.view(count, width).amin(dim=1) / length for cost, length in zip(costs, lengths, strict=True)])


def path_cost(rows: Tensor) -> Tensor:
    """Return what the best path to each column costs that begins anywhere in the first row and ends in the last: (column,)."""
    # a row depends on the row before it alone, so that all columns of all documents are one operation
    best = torch.cat([rows.new_full((_GAP,), torch.inf), rows[0]])
    here, last, before = best[_GAP:], best[_GAP - 1 : -1], best[:-_GAP]
    least = torch.empty_like(here)
    for row in rows[1:]:
        torch.minimum(here, last, out=least)
        torch.minimum(least, before, out=least)
        torch.add(least, row, out=here)
    return here


def to_unit_range(apart: Tensor) -> None:
    """Bring each row (…, frame) to the range from 0 to 1, in place."""
    low, high = apart.amin(dim=-1, keepdim=True), apart.amax(dim=-1, keepdim=True)  # twenty times as fast as aminmax
    apart.sub_(low).div_((high - low).clamp_(min=_LEAST))


def best_stretch(
    query: Tensor, document: Tensor, distance: Distance = "cosine_exp", *, minmax: bool = True
) -> tuple[float, int, int]:
    """Return the cost of the best path of a query through one document, and its first and last frame there."""
    apart = distances(query, document, distance)
    if minmax:
        to_unit_range(apart)
    edge, nowhere = apart.new_full((_GAP,), torch.inf), torch.zeros(_GAP, dtype=torch.long, device=apart.device)
    best, starts = apart[0], torch.arange(len(document), device=apart.device)
    for row in apart[1:]:
        reached = torch.cat([edge, best]).unfold(0, _GAP + 1, 1).flip(1)  # (frame, advance)
        least, advance = reached.min(dim=1)
        starts = torch.cat([nowhere, starts]).unfold(0, _GAP + 1, 1).flip(1).gather(1, advance[:, None])[:, 0]
        best = least + row
    end = int(best.argmin())
    return float(best[end]) / len(query), int(starts[end]), end
