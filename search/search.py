"""Search documents for spoken queries with each layer of a frozen upstream: scores, the layer that dev chooses, detections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..corpus.base import Corpus
from .config import SearchConfig
from .dtw import best_stretch, is_cosine, search_costs, unit_rows
from .features import Recordings, moments_of
from .memory import Memory
from .scoring import (
    Costs,
    Numbers,
    Trials,
    best_term_weighted_value,
    calibration,
    intervals,
    normalized_cross_entropy,
    term_weighted_value,
)
from .tables import other_speakers, target_matrix

DOCUMENTS = "documents"  # a corpus' split
DEFAULT_SCORE = -10.0  # of trials that were not searched: what s3prl gives the official scorer


@dataclass(frozen=True)
class Found:
    """What one layer finds for the queries of a split."""

    trials: Trials
    scores: dict[str, float]  # metric -> value
    threshold: float  # of the highest term weighted value
    line: tuple[float, float]  # scale and offset that make Cnxe least


@dataclass(frozen=True)
class Detection:
    """A query found in a document, and where; seconds are of the document."""

    query: int
    document: int
    score: float
    start: float
    end: float


class Searcher:
    """Queries and documents on one layer, ready to be compared."""

    def __init__(
        self, queries: Sequence[Tensor], documents: Sequence[Tensor], config: SearchConfig, device: torch.device
    ) -> None:
        self.config = config
        moments = moments_of([*queries, *documents]) if config.normalize_frames else None
        self.mean, self.deviation = torch.zeros(1, device=device), torch.ones(1, device=device)
        if moments is not None:
            self.mean, self.deviation = moments.mean.float().to(device), moments.deviation.float().to(device)
        self.queries, self.documents = queries, documents

    def prepare(self, frames: Tensor) -> Tensor:
        """Return frames as they are compared."""
        normalized = (frames.to(self.mean.device).float() - self.mean) / self.deviation
        return unit_rows(normalized) if is_cosine(self.config.distance) else normalized

    @torch.inference_mode()
    def costs(self, title: str = "searching") -> Numbers:
        """Return what the best path of each query through each document costs: (query, document)."""
        found = np.zeros((len(self.queries), len(self.documents)))
        with tqdm(total=len(self.documents), desc=title, unit="document", disable=None, leave=False) as bar:
            config = self.config
            for costs, rows in search_costs(self.queries, self.documents, self.prepare, config.distance, minmax=config.minmax):
                found[:, rows] = costs.cpu().numpy()
                bar.update(len(rows))
        return found

    @torch.inference_mode()
    def stretch(self, query: int, document: int, seconds: float) -> tuple[float, float]:
        """Return where in a document of so many seconds the best path of a query begins and ends."""
        spoken, frames = self.prepare(self.queries[query]), self.prepare(self.documents[document])
        _, first, last = best_stretch(spoken, frames, self.config.distance, minmax=self.config.minmax)
        return first / len(frames) * seconds, (last + 1) / len(frames) * seconds

    def scores(self, counted: np.ndarray, title: str = "searching") -> Numbers:
        """Return the score of each query in each document, normalized over the documents that count for the query."""
        scores = -self.costs(title)
        scores[[row for row, query in enumerate(self.queries) if len(query) < self.config.min_frames]] = 0.0
        if not self.config.normalize_scores:
            return scores
        share = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1)
        apart = scores - (share * scores).sum(axis=1, keepdims=True)
        deviation = np.sqrt((share * apart**2).sum(axis=1, keepdims=True))
        return apart / np.maximum(deviation, 1e-9)


def search_split(
    corpus: Corpus,
    split: str,
    recordings: Mapping[str, Recordings],
    layer: int,
    config: SearchConfig,
    memory: Memory,
    device: torch.device,
) -> Found:
    """Return what a layer finds for a split's queries."""
    queries, documents = recordings[split], recordings[DOCUMENTS]
    counted = other_speakers(queries.utterances, documents.utterances)

    def compute() -> Numbers:
        """Return the scores of all trials."""
        searcher = Searcher(queries.frames(layer), documents.frames(layer), config, device)
        return searcher.scores(counted, f"{split}, layer {layer}")

    targets = target_matrix(queries.ids, documents.ids, corpus.split_tables[split]["targets"])
    scores = memory.scores(split, layer, queries, documents, compute)
    return found_in(Trials(scores, targets, counted), config.costs)


def found_in(trials: Trials, costs: Costs) -> Found:
    """Return the scores of some trials that need no other split."""
    seen = trials.seen()
    if not len(seen.scores):
        return Found(trials, dict.fromkeys(("mtwv", "cnxe", "min_cnxe"), float("nan")), float("nan"), (1.0, 0.0))
    best, line = best_term_weighted_value(trials, costs), calibration(seen, costs)
    scores = {
        "mtwv": best.value,
        "cnxe": normalized_cross_entropy(seen, costs),
        "min_cnxe": normalized_cross_entropy(seen, costs, *line),
    }
    return Found(trials, scores, best.threshold, line)


def with_dev(found: Found, dev: Found, config: SearchConfig) -> dict[str, float]:
    """Return a split's scores, with those at the threshold and the calibration of dev."""
    costs, threshold = config.costs, threshold_of(dev, config)
    calibrated = normalized_cross_entropy(found.trials.seen(), costs, *dev.line)
    return {"mtwv": found.scores["mtwv"], "atwv": term_weighted_value(found.trials, threshold, costs)} | {
        "min_cnxe": found.scores["min_cnxe"],
        "cnxe_calibrated": calibrated,
        "cnxe": found.scores["cnxe"],
    }


def threshold_of(dev: Found, config: SearchConfig) -> float:
    """Return the score above which a trial is a detection."""
    return dev.threshold if config.threshold is None else config.threshold


def choose_layer(found: dict[int, dict[str, Found]]) -> int:
    """Return the layer with the highest MTWV on dev; among equals that of the least Cnxe."""
    return max(found, key=lambda layer: (found[layer]["dev"].scores["mtwv"], -found[layer]["dev"].scores["min_cnxe"]))


def split_intervals(found: Found, dev: Found, config: SearchConfig) -> dict[str, list[float] | None]:
    """Return the intervals of a split's term weighted values."""
    return intervals(found.trials, threshold_of(dev, config), config.costs)


def whole_truth(
    corpus: Corpus, split: str, found: Found, dev: Found, names: Sequence[Sequence[str]], config: SearchConfig
) -> Any:
    """Return the scores over all trials of the ground truth, those that were not searched at a default score.

    That is what the official scorer says of s3prl's output; None where everything was searched.
    """
    tables = corpus.split_tables[split]
    queries, documents = tables.get("all_queries", names[0]), tables.get("all_documents", names[1])
    if len(queries) == len(names[0]) and len(documents) == len(names[1]):
        return None
    scores = np.full((len(queries), len(documents)), DEFAULT_SCORE)
    rows, columns = ({name: place for place, name in enumerate(group)} for group in (queries, documents))
    scores[np.ix_([rows[name] for name in names[0]], [columns[name] for name in names[1]])] = found.trials.scores
    trials = Trials(scores, target_matrix(queries, documents, tables["targets"]), np.ones(scores.shape, dtype=bool))
    costs, seen = config.costs, trials.seen()
    return {
        "queries": len(seen.scores),
        "documents": len(documents),
        "default_score": DEFAULT_SCORE,
        "mtwv": best_term_weighted_value(trials, costs).value,
        "atwv": term_weighted_value(trials, threshold_of(dev, config), costs),
        "min_cnxe": normalized_cross_entropy(seen, costs, *calibration(seen, costs)),
        "cnxe": normalized_cross_entropy(seen, costs),
    }


def detections(
    searcher: Searcher, scores: Numbers, chosen: np.ndarray, documents: Recordings, report: Callable[[int], None] = lambda _: None
) -> list[Detection]:
    """Return where the chosen trials (query, document) are, by query and falling score."""
    pairs = [(int(query), int(document)) for query, document in zip(*np.nonzero(chosen), strict=True)]
    found = []
    for query, document in sorted(pairs, key=lambda pair: (pair[0], -scores[pair])):
        begin, end = searcher.stretch(query, document, documents.seconds[document])
        offset = documents.utterances[document].start
        found.append(Detection(query, document, float(scores[query, document]), offset + begin, offset + end))
        report(1)
    return found
