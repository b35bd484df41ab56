"""The options of a search; the defaults are s3prl's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from ..core.options import ABOVE_0, AT_LEAST_0, Range
from .dtw import Distance
from .scoring import Costs

PRIOR = Range("between 0 and 1", lambda number: 0 < number < 1)


@dataclass(frozen=True)
class CorpusOptions:
    """Where queries and documents come from."""

    data: str | None = None  # --data
    protocol: str = ""  # "": the first one of the corpus
    demo_scale: Annotated[float, ABOVE_0] = 1.0


@dataclass(frozen=True)
class SearchConfig:
    """How queries and documents are compared, and what a search costs that errs."""

    distance: Distance = "cosine_exp"  # exp(1 - cosine) - 1
    minmax: bool = True  # distances of each frame of a query from 0 to 1, document by document
    normalize_frames: bool = True  # mean 0 and deviation 1 of each dimension, over all queries of a split and all documents
    normalize_scores: bool = True  # mean 0 and deviation 1 of each query's scores over the documents
    min_frames: Annotated[int, AT_LEAST_0] = 5  # of a query: all documents have score 0 for a shorter one
    threshold: float | None = None  # scores above it are detections; None: the threshold of the best dev score
    prior: Annotated[float, PRIOR] = 0.0008
    miss: Annotated[float, ABOVE_0] = 100.0
    false_alarm: Annotated[float, ABOVE_0] = 1.0
    corpus: CorpusOptions = field(default_factory=CorpusOptions)

    @property
    def costs(self) -> Costs:
        """What mistakes cost."""
        return Costs(self.prior, self.miss, self.false_alarm)
