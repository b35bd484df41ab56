"""The kind of answer of speaker verification: an embedding, of which two are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import UserError
from ..answer import Answer, Graph, Rows, Window, mean_by_seconds
from .trials import cosines

COHORT = ("cohort_mean", "cohort_deviation")  # of the cosines with the nearest training speakers


@dataclass(frozen=True)
class Embedding(Answer):
    """A vector of length one for each utterance; the scores are the answer, a reference is a speaker."""

    dim: int
    threshold: float  # two utterances are of one speaker where their score reaches it
    normalizes: bool = False  # scores are normalised by a cohort, of which each embedding has mean and deviation behind it
    kind: ClassVar[str] = "embeddings"
    column: ClassVar[str | None] = None
    exchangeable: ClassVar[bool] = False

    @property
    def score_names(self) -> tuple[str, ...]:
        """The numbers of the dimensions, and what is known of the cohort."""
        return (*map(str, range(self.dim)), *(COHORT if self.normalizes else ()))

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return f"a speaker's name, or a vector of {len(self.score_names)} numbers"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is a speaker or a vector."""
        return isinstance(value, str) or (isinstance(value, np.ndarray) and value.shape == (len(self.score_names),))

    def decide(self, rows: Rows) -> tuple[NDArray, ...]:
        """Return the vectors."""
        return tuple(torch.as_tensor(rows).float().numpy())

    def average(self, windows: Sequence[Window]) -> Tensor:
        """Return the mean of the windows' embeddings by seconds, of length one again; the cohort's numbers are averaged."""
        mean = mean_by_seconds(windows)
        return torch.cat([F.normalize(mean[: self.dim], dim=0), mean[self.dim :]])

    def columns(self, kind: str) -> list[str]:
        """Return a column for the speaker, or one for each number of a vector."""
        return [kind] if kind == "reference" else [f"{kind}_{name}" for name in self.score_names]

    def write(self, value: Any) -> list[str]:
        """Return a speaker's name, or six digits of each number."""
        return [value] if isinstance(value, str) else [f"{number:.6g}" for number in value.tolist()]

    def read(self, row: Mapping[str, str], kind: str) -> Any:
        """Return the speaker or the vector that stands in a line of a table."""
        columns = self.columns(kind)
        return row[kind] if kind == "reference" else np.array([row[column] for column in columns], dtype=np.float32)

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return speakers as an array of words, vectors as one (utterance, number)."""
        return np.array(values)

    def describe(self) -> str:
        """Return what is predicted, and when two files are of one speaker."""
        return (
            f"an embedding of {self.dim} numbers and length one. Two files are of one speaker where "
            f"{'the normalised score' if self.normalizes else 'the cosine'} of theirs reaches {self.threshold:.6g}: "
            "`headwater predict RUN --pair a.wav b.wav`."
        )

    def pairs(self) -> Callable[[Tensor, Tensor], tuple[float, str]]:
        """Return what says of two embeddings how alike they are, and whether they are of one speaker."""
        return self._pair

    def _pair(self, one: Tensor, other: Tensor) -> tuple[float, str]:
        score = float(cosines(torch.stack([one, other]).numpy(), np.array([0]), np.array([1]), self.normalizes)[0])
        return score, "same" if score >= self.threshold else "different"

    def graph(self) -> Graph:
        """Return the end of a graph: an embedding of length one."""
        if self.normalizes:
            raise UserError(
                "Expected asv without a cohort for --onnx, since a graph gives an embedding alone, found asv.s_norm. "
                "Leave --onnx out, or train with -o asv.s_norm=null."
            )
        reading = "an embedding of length one; two waveforms are of one speaker where their product reaches threshold"
        windows = "their embeddings are averaged, weighted by seconds, and scaled to length one"
        facts = {"threshold": self.threshold}
        return Graph("embedding", [1, self.dim], facts, reading, windows, lambda values: F.normalize(values, dim=1))
