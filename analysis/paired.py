"""Two runs on the same utterances: by how much they differ, and how far another draw of speakers would move that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from numpy.typing import NDArray

from ..downstream.base import load_task
from ..errors import UserError
from ..training import metrics
from ..training.checkpoint import read_json
from ..training.config import read_yaml, resolve
from ..training.results import read_predictions


@dataclass(frozen=True)
class Difference:
    """A metric of the second run minus that of the first, over the utterances that both have answered."""

    first: float
    second: float
    interval: tuple[float, float] | None  # of the difference; None: too few speakers
    utterances: int

    @property
    def value(self) -> float:
        """The difference."""
        return self.second - self.first


def paired_difference(first: Path, second: Path, metric: str, split: str = "test") -> Difference:
    """Return how two finished runs of a task differ on a split, with the 95 % interval of a paired bootstrap over speakers."""
    outcomes = []
    for folder in (first, second):
        path = folder / f"predictions-{split}.csv"
        if not path.is_file():
            raise UserError(f"Expected '{path.name}' in '{folder}', found none. Is it a finished run with that split?")
        outcomes.append(read_predictions(path))
    (one, groups), (other, _) = outcomes
    places = {name: row for row, name in enumerate(other.ids)}
    common = [row for row, name in enumerate(one.ids) if name in places]
    if not common:
        raise UserError(
            f"Expected the same utterances in '{first}' and '{second}', found none in common. Compare runs of one corpus."
        )
    one, other = one.take(common), other.take([places[one.ids[row]] for row in common])
    config = resolve([read_yaml(first / "config.yaml")])
    question = load_task(config.task).question(config.expert)
    if metric not in question.metrics:
        raise UserError(f"Expected a metric of {config.task} ({', '.join(question.metrics)}), found '{metric}'.")
    score = partial(question.score, read_json(first / "vocabulary.json", (config.task,))[config.task])
    columns = one.columns(), other.columns()

    def gap(rows: NDArray) -> float:
        """Return the difference on one draw."""
        before, after = (score(side.take(rows))[metric] for side in columns)
        return after - before

    speakers = [groups[row] for row in common]
    interval = metrics.bootstrap_interval(gap, speakers) if all(speakers) else None
    return Difference(score(one)[metric], score(other)[metric], interval, len(common))
