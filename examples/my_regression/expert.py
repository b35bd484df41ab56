"""How much of it? A number for each utterance, from a column of the csv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

from torch import Tensor, nn, tensor

from headwater import UserError
from headwater.corpus import Batch, Corpus, Utterance
from headwater.downstream import Expert, Outcome, Output, Pooled, Question, Ratings, Tables, Task, concordance, rmse
from headwater.upstream import Frames, UpstreamSpec


@dataclass(frozen=True)
class Options:
    """What `-o my_regression.KEY=VALUE` sets."""

    column: str = "age"  # of the csv; another one: -o my_regression.column=height
    projector_dim: int = 64


class MyRegression(Expert):
    """A mean over time between two linear layers; the loss is the squared error in standard deviations."""

    def __init__(self, options: Options, vocabulary: Mapping, specs: Mapping[str, UpstreamSpec]) -> None:
        super().__init__()
        self.vocabulary = dict(vocabulary)
        self.head = nn.Sequential(Pooled(specs["audio"].dim, options.projector_dim), nn.Linear(options.projector_dim, 1))

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        return Output(self.head(frames["audio"]))  # (batch, 1)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        numbers = tensor(batch.targets, device=output.values.device)
        return nn.functional.mse_loss(output.values[:, 0], (numbers - self.vocabulary["mean"]) / self.vocabulary["spread"])

    def decode(self, output: Output) -> Tensor:
        return self.vocabulary["mean"] + self.vocabulary["spread"] * output.values.detach().cpu()  # (batch, 1)


def make_vocabulary(options: Options, _: Any, corpus: Corpus) -> dict[str, Any]:
    """Return which column is asked for, and what its numbers are like in training."""
    vocabulary = {"dimensions": [options.column]}
    numbers = [target(vocabulary, row) for row in select(vocabulary, corpus.splits["train"])]
    if len({*numbers}) < 2:
        raise UserError(f"Expected numbers in column '{options.column}'. Name yours: -o my_regression.column=HEADER")
    return {**vocabulary, "mean": fmean(numbers), "spread": pstdev(numbers)}


def select(vocabulary: Mapping, utterances: Sequence[Utterance]) -> list[Utterance]:
    return [row for row in utterances if row.labels.get(vocabulary["dimensions"][0]) not in (None, "")]


def target(vocabulary: Mapping, utterance: Utterance) -> float:
    return float(utterance.labels[vocabulary["dimensions"][0]])


def score(_: Mapping, outcome: Outcome, __: Tables) -> dict[str, float]:
    right, found = ([value for (value,) in column] for column in (outcome.references, outcome.predictions))
    return {"rmse": rmse(right, found), "ccc": concordance(right, found)}


QUESTION = Question(
    name="my_regression",
    metrics={"rmse": "lower", "ccc": "higher"},
    primary_metric="rmse",
    make_vocabulary=make_vocabulary,
    select=select,
    target=target,
    reference=lambda _, target: (target,),  # a tuple as long as `dimensions`, as each answer is one
    answer=lambda vocabulary: Ratings(tuple(vocabulary["dimensions"])),
    score=score,
    label=False,
)
TASK = Task(name="my_regression", options=Options, question=lambda _: QUESTION, build=MyRegression)
