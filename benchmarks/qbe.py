"""Claim: 1,000 spoken queries are searched in 2,000 documents in minutes, several times as fast as one pair after the other.

python benchmarks/qbe.py [--dim 768] [--threads 2]

Ours against librosa's subsequence warping (compiled loops), and against the package dtw-python where it is installed, which is
what s3prl calls; all three on the same random frames, with scipy's cosine distances for the other two, in turns. The costs of
all pairs are compared.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap

import librosa
import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from headwater.search.dtw import search_costs, unit_rows

QUERIES, DOCUMENTS = 1000, 2000  # of the claim
STEPS = np.array([[1, 0], [1, 1], [1, 2]])


def ours(queries: Sequence[Tensor], documents: Sequence[Tensor]) -> np.ndarray:
    """Return the costs of all pairs, many documents at once."""
    found = np.zeros((len(queries), len(documents)))
    for costs, rows in search_costs(queries, documents, unit_rows):
        found[:, rows] = costs.numpy()
    return found


def pair_by_pair(cost: Callable[[np.ndarray], float], queries: Sequence[Tensor], documents: Sequence[Tensor]) -> np.ndarray:
    """Return the costs of all pairs, one after the other."""
    pairs = ((query.numpy(), document.numpy()) for query in queries for document in documents)
    return np.array([cost(apart) for apart in starmap(normalized, pairs)]).reshape(len(queries), len(documents))


def normalized(query: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Return the distances of a pair as s3prl normalizes them."""
    apart = np.exp(cdist(query, document, "cosine")) - 1
    low, high = apart.min(1, keepdims=True), apart.max(1, keepdims=True)
    return (apart - low) / np.maximum(high - low, 1e-9)


def of_librosa(apart: np.ndarray) -> float:
    """Return the cost of the best path, by librosa."""
    return librosa.sequence.dtw(C=apart, subseq=True, step_sizes_sigma=STEPS, backtrack=False)[-1].min() / len(apart)


def of_package(dtw: Callable, apart: np.ndarray) -> float:
    """Return the cost of the best path, by dtw-python as s3prl calls it."""
    return dtw(x=apart, step_pattern="asymmetric", open_begin=True, open_end=True, keep_internals=False).normalizedDistance


def main() -> None:
    """Measure in turns, and compare what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("queries", 4), ("documents", 60), ("dim", 768), ("threads", 1), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    generator = torch.Generator().manual_seed(0)
    # 20 ms a frame: queries of about a second, documents of 3 to 10 s, as in QUESST 2014
    queries, documents = (
        [torch.randn(length, flags.dim, generator=generator) for length in torch.randint(*ends, (count,), generator=generator)]
        for ends, count in (((30, 70), flags.queries), ((150, 500), flags.documents))
    )
    ways: dict[str, Callable[[Sequence[Tensor], Sequence[Tensor]], np.ndarray]] = {
        "ours": ours,
        "librosa": partial(pair_by_pair, of_librosa),
    }
    try:
        ways["dtw-python"] = partial(pair_by_pair, partial(of_package, importlib.import_module("dtw").dtw))
    except ModuleNotFoundError:
        print("dtw-python is not installed: left out")
    costs = {name: way(queries[:1], documents) for name, way in ways.items()}  # compiled, and warm
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(flags.repeats):
        for name, way in ways.items():
            began = time.perf_counter(), time.process_time()
            costs[name] = way(queries, documents)
            seconds[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    pairs = len(queries) * len(documents)
    clock, cores = ({name: statistics.median(pair[place] for pair in of) for name, of in seconds.items()} for place in (0, 1))
    for name, core_seconds in cores.items():
        whole = core_seconds / pairs * QUERIES * DOCUMENTS / 60
        print(
            f"{name:<10} {1000 * core_seconds / pairs:.2f} core-ms a pair (by the clock {1000 * clock[name] / pairs:.2f}), "
            f"{whole:.1f} core-minutes for {QUERIES} x {DOCUMENTS}, x{core_seconds / cores['ours']:.1f} of ours, "
            f"largest difference {np.abs(costs[name] - costs['ours']).max():.1e}"
        )


if __name__ == "__main__":
    main()
