"""The kind of answer of a run that searches: a text read greedily beside the one that a beam search finds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from ..answer import Answer, Graph, Rows, Text, Window
from .beam import Search


@dataclass(frozen=True)
class Transcript:
    """What the best character of each frame spells, and what a beam search finds once there is one."""

    greedy: str
    beam: str | None = None
    # (frame, 1 + character): log probabilities, until they were searched
    logs: NDArray | None = field(default=None, compare=False, repr=False)
    seconds: float = field(default=0.0, compare=False, repr=False)  # of speech
    searched: float = field(default=0.0, compare=False, repr=False)  # seconds that the search took

    def __str__(self) -> str:
        """Return the text that counts: the search's."""
        return self.greedy if self.beam is None else self.beam


def greedy_text(prediction: str | Transcript) -> str:
    """Return what the best character of each frame spells."""
    return prediction if isinstance(prediction, str) else prediction.greedy


@dataclass(frozen=True)
class Transcripts(Answer):
    """What is said, read greedily and searched; in training, greedily alone."""

    text: Text
    search: Search | None = None  # None: dev has not chosen its weights yet
    kind: ClassVar[str] = "texts"

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return self.text.wanted

    def fits(self, value: Any) -> bool:
        """Tell whether a value is a text or a transcript."""
        return isinstance(value, str | Transcript)

    def decide(self, rows: Rows) -> tuple[Transcript, ...]:
        """Return transcripts with what the search finds in those that have not been searched."""
        return tuple(rows if self.search is None else map(self.searched, rows))

    def searched(self, row: Transcript) -> Transcript:
        """Return a transcript with what the search finds."""
        if row.logs is None or self.search is None:
            return row
        began = time.perf_counter()
        found = self.search.find(row.logs)
        return replace(row, beam=found, logs=None, searched=time.perf_counter() - began)

    def average(self, windows: Sequence[Window]) -> Transcript:
        """Return the texts of the windows, one after the other."""
        parts = self.decide([row for _, row in windows])
        greedy = self.text.average([(0.0, part.greedy) for part in parts])
        return Transcript(greedy, self.text.average([(0.0, str(part)) for part in parts]))

    def joined(self, windows: Sequence[Window]) -> tuple[str, Tensor | None]:
        """Return the text of a long file: the search's."""
        return str(self.average(windows)), None

    def columns(self, kind: str) -> list[str]:
        """Return a column of references, and two of predictions."""
        return [kind] if kind == "reference" else [kind, f"{kind}_beam"]

    def write(self, value: str | Transcript) -> list[str]:
        """Return a text, or both texts of a transcript."""
        return [value] if isinstance(value, str) else [value.greedy, str(value)]

    def read(self, row: Mapping[str, str], kind: str) -> str | Transcript:
        """Return the text or the transcript in a line of a table; one of a greedy evaluation has no second text."""
        return row[kind] if kind == "reference" else Transcript(row[kind], row.get(f"{kind}_beam"))

    def describe(self) -> str:
        """Return how many characters a text is spelt with, and how it is found."""
        return f"{self.text.describe().rstrip('.')}, found by beam search."

    def graph(self) -> Graph:
        """Return the end of a graph: a logit of each character, frame by frame."""
        return self.text.graph()
