"""The kind of answer: a value for each of a few slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..answer import Answer, Graph, Rows, Window, listed, mean_by_seconds


@dataclass(frozen=True)
class Slots(Answer):
    """One value for each slot, by its score; the scores of all slots' values stand side by side."""

    values: Mapping[str, Sequence[str]]  # slot -> its values
    kind: ClassVar[str] = "slots"
    column: ClassVar[str | None] = "slots"

    @property
    def score_names(self) -> tuple[str, ...]:
        """The values, each with its slot."""
        return tuple(f"{slot}={value}" for slot, values in self.values.items() for value in values)

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return f"a tuple of {len(self.values)} words ({', '.join(self.values)})"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is a word for each slot."""
        right = isinstance(value, tuple | list) and len(value) == len(self.values)
        return right and all(isinstance(word, str) for word in value)

    def parts(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Return the scores of each slot's values: (utterance, value)."""
        return scores.split([len(values) for values in self.values.values()], dim=-1)

    def decide(self, rows: Rows) -> tuple[tuple[str, ...], ...]:
        """Return the value of the highest score of each slot."""
        chosen = [part.argmax(dim=-1).tolist() for part in self.parts(torch.as_tensor(rows))]
        columns = [[values[place] for place in places] for values, places in zip(self.values.values(), chosen, strict=True)]
        return tuple(zip(*columns, strict=True))

    def average(self, windows: Sequence[Window]) -> Tensor:
        """Return the mean of the scores by seconds."""
        return mean_by_seconds(windows)

    def columns(self, kind: str) -> list[str]:
        """Return a column for each slot."""
        return [f"{kind}_{slot}" for slot in self.values]

    @property
    def answered(self) -> list[str]:
        """The slots."""
        return [*self.values]

    def write(self, value: Any) -> list[str]:
        """Return the word of each slot."""
        return [str(word) for word in value]

    def read(self, row: Mapping[str, str], kind: str) -> tuple[str, ...]:
        """Return the words that stand in a line of a table."""
        return tuple(row[column] for column in self.columns(kind))

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return words as an array (utterance, slot)."""
        return np.array(values).reshape(len(values), len(self.values))

    def describe(self) -> str:
        """Return the slots and their values."""
        lines = [f"- `{slot}`: {listed(values)}" for slot, values in self.values.items()]
        return "\n".join(["one value for each slot.", "", *lines])

    def graph(self) -> Graph:
        """Return the end of a graph: probabilities of each slot's values."""
        sizes = [len(values) for values in self.values.values()]
        slots = {slot: [end - size, end] for slot, size, end in zip(self.values, sizes, accumulate(sizes), strict=True)}
        facts = {"slots": {slot: [*values] for slot, values in self.values.items()}, "places": slots}
        reading = "of each slot the scores from places[slot][0] to below places[slot][1]; the highest is its value"
        return Graph("scores", [1, sum(sizes)], facts, reading, "their scores are averaged, weighted by seconds", self.shares)

    def shares(self, logits: Tensor) -> Tensor:
        """Return the probability of each value among those of its slot: (utterance, value of any slot)."""
        return torch.cat([part.softmax(dim=-1) for part in self.parts(logits)], dim=-1)
