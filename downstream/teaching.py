"""What pretraining and distillation share: a teacher's frames beside the upstream's, and sums over frames as the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import UserError
from ..core.options import ABOVE_0
from ..corpus.audio import check_files
from ..corpus.base import Corpus, Utterance
from ..upstream.base import TEACHER, Layers, UpstreamSpec
from .answer import Answer, Rows, Window, mean_by_seconds
from .base import Outcome, Question, Tables
from .labels import LabelsConfig, refuse_classes

_SECONDS = (20, 40)  # of the two lengths that tell how many frames a second has


@dataclass(frozen=True)
class TaughtConfig:
    """What the sections of these tasks share."""

    takes_teacher: ClassVar[bool] = True
    longest: Annotated[float, ABOVE_0] = 15.6  # seconds; a longer file is cut into equal stretches


def frame_seconds_of(spec: UpstreamSpec) -> float:
    """Return the seconds from a frame to the next."""
    short, long = (spec.num_frames(seconds * spec.sample_rate) for seconds in _SECONDS)
    return (_SECONDS[1] - _SECONDS[0]) / (long - short)


def require_teacher(task: str, specs: Mapping[str, UpstreamSpec]) -> tuple[UpstreamSpec, UpstreamSpec]:
    """Return what the upstream and its teacher promise, or say which of them is missing."""
    if "text" in specs or "audio" not in specs:
        raise UserError(f"Expected an upstream of audio alone for {task}, found {' and '.join(specs)}. Name one with -u.")
    if TEACHER not in specs:
        raise UserError(f"Expected a teacher for {task}, found none. Add --teacher NAME (mfcc, a model, or a run's folder).")
    return specs["audio"], specs[TEACHER]


def require_layers(option: str, layers: Sequence[int], teacher: UpstreamSpec) -> None:
    """Refuse layers that a teacher does not have."""
    for layer in layers:
        if not -teacher.num_layers <= layer < teacher.num_layers:
            there = f"from 0 to {teacher.num_layers - 1}" if teacher.num_layers > 1 else "0"
            raise UserError(
                f"Expected a layer of the teacher ({there}) in {option}, found {layer}. Leave it out, or name another."
            )


def hop_ratio(student: UpstreamSpec, teacher: UpstreamSpec) -> float:
    """Return how many frames of the teacher go by in one of the student: 2 for 100 beside 50 a second."""
    ratio = frame_seconds_of(student) / frame_seconds_of(teacher)
    return float(round(ratio)) if abs(ratio - round(ratio)) < 1e-3 else ratio


def nearest_frames(layers: Layers, count: int, ratio: float) -> Tensor:
    """Return the teacher's frame that begins nearest to where each of `count` frames begins: (batch, count)."""
    places = (torch.arange(count, dtype=torch.float64) * ratio + 1e-6).round().long()
    last = torch.tensor(layers.lengths).unsqueeze(1) - 1
    return torch.minimum(places.unsqueeze(0), last)


def at_frames(values: Tensor, layers: Layers, count: int, ratio: float) -> Tensor:
    """Return the teacher's frames (batch, frame, dim) at the beginning of each of `count` frames, between two of them a mean."""
    batch, _, dim = values.shape
    exact = torch.arange(count, dtype=torch.float64) * ratio
    last = torch.tensor(layers.lengths, dtype=torch.float64).unsqueeze(1) - 1
    exact = torch.minimum(exact.unsqueeze(0), last)  # (batch, count)
    below = exact.floor().long()
    share = (exact - below).to(values.dtype).to(values.device).unsqueeze(2)
    above = torch.minimum(below + 1, last.long())

    def taken(index: Tensor) -> Tensor:
        """Return the frames of one index for each row."""
        return values.gather(1, index.to(values.device).unsqueeze(2).expand(batch, count, dim))

    first = taken(below)
    return first if not bool(share.any()) else first + share * (taken(above) - first)


@dataclass(frozen=True)
class Sums(Answer):
    """Sums over the frames of an utterance, of which a split's scores are made; nothing is predicted of a new file."""

    names: tuple[str, ...]
    kind: ClassVar[str] = "sums over frames"
    column: ClassVar[str | None] = None
    exchangeable: ClassVar[bool] = False

    @property
    def score_names(self) -> tuple[str, ...]:
        """What is summed."""
        return self.names

    @property
    def wanted(self) -> str:
        """What `fits`, in words."""
        return f"{len(self.names)} numbers"

    def fits(self, value: Any) -> bool:
        """Tell whether a value is such sums, or nothing."""
        return value is None or (isinstance(value, np.ndarray) and value.shape == (len(self.names),))

    def decide(self, rows: Rows) -> tuple[NDArray, ...]:
        """Return the sums."""
        return tuple(torch.as_tensor(rows).float().numpy())

    def average(self, windows: Sequence[Window]) -> Tensor:
        """Return the mean of the windows' sums, by seconds."""
        return mean_by_seconds(windows)

    def columns(self, kind: str) -> list[str]:
        """Return a column for each sum; there is no reference."""
        return [] if kind == "reference" else [f"{kind}_{name}" for name in self.names]

    def write(self, value: Any) -> list[str]:
        """Return six digits of each sum."""
        return [] if value is None else [f"{number:.6g}" for number in value.tolist()]

    def read(self, row: Mapping[str, str], kind: str) -> Any:
        """Return the sums in a line of a table."""
        return None if kind == "reference" else np.array([row[column] for column in self.columns(kind)], dtype=np.float32)

    def array(self, values: Sequence[Any]) -> NDArray:
        """Return sums as one (utterance, sum)."""
        return np.zeros(len(values)) if any(value is None for value in values) else np.stack(list(values))

    def describe(self) -> str:
        """Return what is predicted, as the end of a sentence."""
        return "it predicts nothing: its product is the upstream (`-u RUN`, or `headwater export RUN --hub`)"


def no_target(_: Mapping[str, Any], __: Utterance) -> None:
    """Return nothing: the teacher gives what the loss compares with."""


def cut(longest: float, _: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return all utterances, none of which needs a label, each in equal stretches of at most so many seconds."""
    unknown = [row for row in utterances if row.duration is None]
    seconds, _broken = check_files(unknown) if unknown else ({}, [])  # a broken file is reported with others
    lengths = {row.id: seconds.get(row.id, 0.0) if row.duration is None else row.duration for row in utterances}
    return [part for row in utterances for part in stretches(row, lengths[row.id], longest)]


def stretches(row: Utterance, seconds: float, longest: float) -> list[Utterance]:
    """Return an utterance in equal stretches of at most so many seconds; a short one as it is."""
    count = math.ceil(seconds / longest)
    if count <= 1:
        return [row]
    size = seconds / count
    return [replace(row, id=f"{row.id}#{part}", start=row.start + part * size, duration=size) for part in range(count)]


def taught_question(
    name: str,
    longest: float,
    *,
    sums: tuple[str, ...],
    metrics: Mapping[str, Literal["higher", "lower"]],
    score: Callable[[Mapping[str, Any], Outcome, Tables], dict[str, float]],
    make_vocabulary: Callable[[Any], dict[str, Any]] = lambda _: {},
) -> Question:
    """Return the question of a task that a teacher gives: any audio serves, the first metric chooses."""

    def vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
        """Refuse labels where nothing is labelled."""
        refuse_classes(name, labels, f"no labels ({corpus.name} is used without them)")
        return make_vocabulary(options)

    return Question(
        name=name,
        metrics=metrics,
        primary_metric=next(iter(metrics)),
        make_vocabulary=vocabulary,
        select=partial(cut, longest),
        target=no_target,
        answer=lambda _: Sums(sums),
        score=score,
        label=False,
        needs_labels=False,
    )
