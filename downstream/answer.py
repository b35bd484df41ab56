"""The kinds of answers: how one is decided, joined over windows, written, read back, and described."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import UserError
from .metrics import confusion_matrix

MOST_CLASSES = 60  # shown one by one: of more, counts, confusion and a column of scores each would be all that is seen
_MOST_NAMES = 40  # of classes that are written out in a sentence
Rows = Tensor | Sequence[Any]  # one for each utterance: scores (utterance, score), or the predictions themselves
Window = tuple[float, Any]  # seconds, and the row of a window of a long file


@dataclass(frozen=True)
class Graph:
    """The end of an exported graph, and what its user has to know to read an answer off its output."""

    output: str  # its name
    shape: Sequence[int | str]
    facts: Mapping[str, Any]  # that the reading takes: names, a scale, a threshold
    reading: str  # how an answer is read off the output, in words
    windows: str  # how the answers of a file's windows become one, in words
    finish: Callable[[Tensor], Tensor]  # output of the head -> output of the graph


class Answer(ABC):
    """The kind of thing that a task predicts for each utterance.

    A *row* is what one prediction is decided from: its scores, or the prediction itself where there are no scores.
    A kind of one's own has to say what is abstract here; what it leaves out (scores, counts, a graph) is left out everywhere.
    """

    kind: ClassVar[str]  # in the plural, for messages
    column: ClassVar[str | None] = "label"  # of the csv of `predict`; None: the scores are the answer
    exchangeable: ClassVar[bool] = True  # what one run predicts can stand for another's; embeddings have each a space of its own

    @property
    def score_names(self) -> tuple[str, ...]:
        """What the scores are of, in order; nothing where there are none."""
        return ()

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The scores that stand beside the predictions in a table."""
        return ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, where one of a few is predicted."""
        return ()

    @property
    def scale_ends(self) -> tuple[float, float] | None:
        """The lowest and the highest number there is, where numbers on a scale are predicted."""
        return None

    @property
    @abstractmethod
    def wanted(self) -> str:
        """What `fits`, in words."""

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Return whether a value is of this kind."""

    @abstractmethod
    def average(self, windows: Sequence[Window]) -> Any:
        """Return the row of a long file from those of its windows, in order."""

    @abstractmethod
    def describe(self) -> str:
        """Return what is predicted, as the end of a sentence that begins "From the sound of a file, "."""

    def decide(self, rows: Rows) -> tuple[Any, ...]:
        """Return the prediction of each row."""
        return tuple(rows)

    def columns(self, kind: str) -> list[str]:
        """Return the columns of a table that hold a prediction; `kind` is 'reference' or 'prediction'."""
        return [kind]

    @property
    def answered(self) -> list[str]:
        """The columns of the csv of `predict` that hold what `write` gives."""
        return [] if self.column is None else [self.column]

    def write(self, value: Any) -> list[str]:
        """Return a prediction as the cells of these columns."""
        return [str(value)]

    def read(self, row: Mapping[str, str], kind: str) -> Any:
        """Return the prediction in a line of a table."""
        return row[kind]

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return predictions as an array whose first axis is the utterances."""
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    def counts(self, references: Sequence[Any], predictions: Sequence[Any]) -> dict[str, Any]:  # noqa: ARG002
        """Return what result.json counts of a split; nothing where there is nothing to count."""
        return {}

    @property
    def of_silence(self) -> Any:
        """The prediction where there is no sound at all, without a model's; None: such a file is refused."""
        return None

    def pairs(self) -> Callable[[Tensor, Tensor], tuple[float, str]]:
        """Return what says of two files' scores a number and a word; refused where a pair of files means nothing."""
        raise UserError(
            f"Expected a task whose predictions are compared in pairs (asv) for --pair, found one that predicts {self.kind}. "
            "Leave --pair out, and name the files."
        )

    def graph(self) -> Graph:
        """Return how a graph ends; refused where a prediction is nothing that a graph can hold."""
        raise UserError(
            f"Expected a task that predicts classes, ratings or a text for --onnx, found one that predicts {self.kind}. "
            "Leave --onnx out."
        )

    def decided(self, rows: Rows) -> tuple[tuple[Any, ...], Tensor | None]:
        """Return the predictions of rows, and their scores if there are any."""
        if not self.score_names:
            return self.decide(rows), None
        found, names = tuple(getattr(rows, "shape", ())), self.score_names
        if not isinstance(rows, Tensor) or found[1:] != (len(names),):
            what = f"shape {found}" if isinstance(rows, Tensor) else f"a {type(rows).__name__}"
            raise UserError(
                f"Expected scores of shape (batch {len(rows)}, class {len(names)}) from Expert.decode, a column for each of "
                f"{', '.join(map(str, names[:8]))}{' …' * (len(names) > 8)}, found {what}. Mend decode()."
            )
        return self.decide(rows), rows

    def joined(self, windows: Sequence[Window]) -> tuple[Any, Tensor | None]:
        """Return the prediction for a long file, and its scores if there are any."""
        row = self.average(windows)
        (value,), scores = self.decided(row.unsqueeze(0) if self.score_names else [row])
        return value, None if scores is None else scores[0]


@dataclass(frozen=True)
class OneClass(Answer):
    """One of a few classes, by its score."""

    names: tuple[str, ...]
    threshold: float | None = None  # of two classes: the second is the answer where its score reaches it
    kind: ClassVar[str] = "classes"

    @property
    def score_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.names

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The classes, where they are few."""
        return self.names if len(self.names) <= MOST_CLASSES else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes."""
        return self.names

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return "one of vocabulary['classes']"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is one of the classes."""
        return isinstance(value, str | int) and value in self.names

    def decide(self, rows: Rows) -> tuple[Any, ...]:
        """Return the class of the highest score, or the second one where its score reaches the threshold."""
        scores = torch.as_tensor(rows)  # (utterance, class)
        if self.threshold is None:
            return tuple(self.names[index] for index in scores.argmax(dim=-1).tolist())
        accepted = scores[:, 1].double() >= self.threshold  # in float32 the threshold would be rounded onto a score
        return tuple(self.names[int(yes)] for yes in accepted.tolist())

    def average(self, windows: Sequence[Window]) -> Tensor:
        """Return the mean of the scores by seconds."""
        return mean_by_seconds(windows)

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return classes as an array of words."""
        return np.array(values)

    def counts(self, references: Sequence[Any], predictions: Sequence[Any]) -> dict[str, Any]:
        """Return how often each class is right, and the confusion matrix; nothing where the classes are many."""
        if len(self.names) > MOST_CLASSES:
            return {}
        return {
            "counts": dict(sorted(Counter(map(str, references)).items())),
            "confusion": confusion_matrix(references, predictions, self.names).astype(int).tolist(),
        }

    def describe(self) -> str:
        """Return how many classes there are and which, and what the threshold is."""
        decided = ""
        if self.threshold is not None:
            decided = f"\n\n`{self.names[1]}` is predicted where its score reaches {self.threshold:.6g}."
        return f"one of {len(self.names)} classes: {listed(self.names)}.{decided}"

    def graph(self) -> Graph:
        """Return the end of a graph: probabilities."""
        facts: dict[str, Any] = {"classes": list(self.names)}
        reading = "a probability of each of classes; the highest is the prediction"
        if self.threshold is not None:
            facts["threshold"] = self.threshold
            reading = "a probability of each of classes; classes[1] where its own reaches threshold, else classes[0]"
        return Graph("scores", [1, len(self.names)], facts, reading, _AVERAGED, lambda values: values.softmax(dim=-1))


@dataclass(frozen=True)
class Ratings(Answer):
    """A number for each of some dimensions; the scores are the answer."""

    dimensions: tuple[str, ...]
    scale: tuple[float, float] | None = None  # the lowest and the highest there are
    kind: ClassVar[str] = "ratings"
    column: ClassVar[str | None] = None

    @property
    def score_names(self) -> tuple[str, ...]:
        """The dimensions."""
        return self.dimensions

    @property
    def scale_ends(self) -> tuple[float, float] | None:
        """The ends of the scale."""
        return self.scale

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        names = ", ".join(map(str, self.dimensions))
        return f"a tuple of {len(self.dimensions)} numbers (vocabulary['dimensions']: {names})"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is a number for each dimension."""
        right = isinstance(value, tuple | list) and len(value) == len(self.dimensions)
        return right and all(isinstance(number, float | int) for number in value)

    def decide(self, rows: Rows) -> tuple[tuple[float, ...], ...]:
        """Return the scores as they are: what lies beyond the scale's ends counts as it is."""
        return tuple(tuple(row) for row in torch.as_tensor(rows).double().tolist())

    def average(self, windows: Sequence[Window]) -> Tensor:
        """Return the mean of the ratings by seconds, as a user reads them: within the scale."""
        mean = mean_by_seconds(windows)
        return mean if self.scale is None else mean.double().clamp(*self.scale)

    def columns(self, kind: str) -> list[str]:
        """Return a column for each dimension."""
        return [f"{kind}_{name}" for name in self.dimensions]

    def write(self, value: Any) -> list[str]:
        """Return six digits of each number."""
        return [f"{number:.6g}" for number in value]

    def read(self, row: Mapping[str, str], kind: str) -> tuple[float, ...]:
        """Return the numbers that stand in a line of a table."""
        return tuple(float(row[column]) for column in self.columns(kind))

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return ratings as an array (utterance, dimension)."""
        return np.array(values)

    def describe(self) -> str:
        """Return on which scale there is a number for which dimensions."""
        scale = "a number for each" if self.scale is None else "ratings from {:g} to {:g}".format(*self.scale)
        return f"{scale} of: {listed(self.dimensions)}."

    def graph(self) -> Graph:
        """Return the end of a graph: numbers on the scale."""
        facts: dict[str, Any] = {"dimensions": list(self.dimensions)}
        finish: Callable[[Tensor], Tensor] = _as_is
        if self.scale is not None:
            facts["scale"], finish = list(self.scale), _onto(*self.scale)
        return Graph("scores", [1, len(self.dimensions)], facts, "a rating of each of dimensions, on scale", _AVERAGED, finish)


@dataclass(frozen=True)
class Text(Answer):
    """What is said, or what else is written one token after the other."""

    tokens: tuple[str, ...] = ()  # that it is spelt with, where tokens are what a head knows
    unit: str = "characters"  # what a token is, in the plural
    noun: str = "transcript"
    kind: ClassVar[str] = "texts"

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return "a text"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is a text."""
        return isinstance(value, str)

    def average(self, windows: Sequence[Window]) -> str:
        """Return the texts of the windows, one after the other."""
        return " ".join(text for _, text in windows if text)

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return texts as an array of words."""
        return np.array(values)

    def describe(self) -> str:
        """Return how many characters a text is spelt with."""
        return f"its {self.noun}{f', spelt with {len(self.tokens)} {self.unit}' if self.tokens else ''}."

    def graph(self) -> Graph:
        """Return the end of a graph: a logit of each token, frame by frame."""
        if not self.tokens:
            return super().graph()
        reading = f"of each frame the highest: 0 is blank, n is {self.unit}[n - 1]; repeats are one, blanks nothing"
        facts = {self.unit: list(self.tokens)}
        return Graph("logits", [1, "frames", self.unit], facts, reading, "their texts follow each other", _as_is)


_AVERAGED = "their scores are averaged, weighted by seconds"


def _as_is(values: Tensor) -> Tensor:
    return values


def _onto(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda values: low + (high - low) * values


def mean_by_seconds(windows: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Return the mean of a long file's scores, windows weighted by their length."""
    seconds = torch.tensor([length for length, _ in windows])
    scores = torch.stack([scores for _, scores in windows])  # (window, class)
    return (seconds.unsqueeze(1) * scores).sum(dim=0) / seconds.sum()


def listed(names: Sequence[str]) -> str:
    """Return names in one line, the first ones where they are many."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(f"`{name}`" for name in names[:_MOST_NAMES]) + more
