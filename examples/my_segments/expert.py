"""When does it sound? A task with answers of its own kind: stretches of each utterance, scored with a table of the corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, arange, nn, stack

from headwater import UserError
from headwater.corpus import Batch, Corpus, Utterance
from headwater.downstream import Answer, Expert, Outcome, Output, Question, Tables, Task
from headwater.upstream import Frames, UpstreamSpec

Stretches = tuple[tuple[float, float], ...]  # (start, end) in seconds, in order


@dataclass(frozen=True)
class Segments(Answer):
    """Stretches of a file, `0.10-0.52;0.80-1.20` in a table."""

    kind = "segments"
    column = "segments"  # of the csv of `predict`
    wanted = "a tuple of (start, end) in seconds, in order"  # in an error
    gap = 0.05  # seconds; where windows of a long file meet, stretches closer than this are one

    def fits(self, value: Any) -> bool:
        pairs = isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)
        flat = [second for pair in value for second in pair] if pairs else [1, 0]
        return flat == sorted(flat)

    def write(self, value: Stretches) -> list[str]:
        return [";".join(f"{start:.2f}-{end:.2f}" for start, end in value)]

    def read(self, row: Mapping[str, str], kind: str) -> Stretches:
        ends = [pair.split("-") for pair in row[kind].split(";") if pair]
        return tuple((float(start), float(end)) for start, end in ends)

    def average(self, windows: Sequence[tuple[float, Stretches]]) -> Stretches:
        """Return the stretches of a long file: those of its windows, each moved to where its window begins."""
        joined: list[tuple[float, float]] = []
        begin = 0.0
        for seconds, stretches in windows:
            moved = [(round(begin + start, 2), round(begin + end, 2)) for start, end in stretches]
            if joined and moved and moved[0][0] - joined[-1][1] < self.gap:
                moved[0] = joined.pop()[0], moved[0][1]
            joined, begin = joined + moved, begin + seconds
        return tuple(joined)

    def describe(self) -> str:
        return "the stretches in which it sounds, in seconds."


@dataclass(frozen=True)
class Options:
    """What `-o my_segments.KEY=VALUE` sets."""

    hidden_dim: int = 32


class MySegments(Expert):
    """Whether it sounds, frame by frame; the loss is the cross entropy, averaged over frames and then over utterances."""

    def __init__(self, options: Options, vocabulary: Mapping, specs: Mapping[str, UpstreamSpec]) -> None:
        super().__init__()
        self.vocabulary, spec = dict(vocabulary), specs["audio"]
        self.hop = 100 / spec.num_frames(100 * spec.sample_rate)  # seconds from frame to frame
        self.head = nn.Sequential(nn.Linear(spec.dim, options.hidden_dim), nn.Tanh(), nn.Linear(options.hidden_dim, 1))

    def forward(self, frames: Mapping[str, Frames]) -> Output:
        return Output(self.head(frames["audio"].values).squeeze(2), frames["audio"].lengths)  # (batch, frame)

    def loss(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean over utterances of the mean cross entropy over their frames."""
        losses = []
        for values, length, stretches in zip(output.values, output.lengths, batch.targets, strict=True):
            middles, sounds = (arange(length, device=values.device) + 0.5) * self.hop, values.new_zeros(length)
            for start, end in stretches:
                sounds[(middles >= start) & (middles < end)] = 1
            losses.append(nn.functional.binary_cross_entropy_with_logits(values[:length], sounds))
        return stack(losses).mean()

    def decode(self, output: Output) -> tuple[Stretches, ...]:
        rows = zip((output.values.detach() > 0).cpu().tolist(), output.lengths, strict=True)
        return tuple(stretches_of(row[:length], self.hop) for row, length in rows)


def stretches_of(frames: Sequence[bool], hop: float) -> Stretches:
    """Return where frames in a row are True."""
    edges = [place for place, (before, now) in enumerate(pairwise([False, *frames, False])) if before != now]
    return tuple((round(start * hop, 2), round(end * hop, 2)) for start, end in zip(edges[::2], edges[1::2], strict=True))


def make_vocabulary(_: Options, __: Any, corpus: Corpus) -> dict[str, Any]:
    """Return nothing, which is all that the expert is built from, once the corpus is found to say when it sounds."""
    if not any(row.labels.get("segments") for row in corpus.splits["train"]):
        raise UserError(
            f"Expected stretches in {corpus.name} (labels['segments']), found none. Use --corpus ./my_segments_corpus.py"
        )
    return {}


def select(_: Mapping, utterances: Sequence[Utterance]) -> list[Utterance]:
    return [row for row in utterances if "segments" in row.labels]


def seconds_of(stretches: Sequence[Sequence[float]]) -> float:
    return sum(end - start for start, end in stretches)


def score(_: Mapping, outcome: Outcome, tables: Tables) -> dict[str, float]:
    """Return seconds that are missed or added, as a share of those that sound by the table `rttm`."""
    wrong = whole = 0.0
    for name, found in zip(outcome.ids, outcome.predictions, strict=True):
        truth = tables["rttm"].get(str(name), [])
        both = sum(max(min(a[1], b[1]) - max(a[0], b[0]), 0.0) for a in truth for b in found)
        wrong, whole = wrong + seconds_of(truth) + seconds_of(found) - 2 * both, whole + seconds_of(truth)
    return {"error": wrong / whole if whole else float("nan")}


QUESTION = Question(
    name="my_segments",
    metrics={"error": "lower"},
    primary_metric="error",
    make_vocabulary=make_vocabulary,
    select=select,
    target=lambda _, utterance: utterance.labels["segments"],
    answer=lambda _: Segments(),
    score=score,
    tables=("rttm",),  # of the corpus: what `score` is given of the split
    label=False,
)
TASK = Task(name="my_segments", options=Options, question=lambda _: QUESTION, build=MySegments)
