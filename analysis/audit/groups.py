"""Scores of groups of the tested utterances: speakers, labels of the corpus, short and long ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...corpus.batch import Example
from ...downstream.base import Outcome
from ...downstream.metrics import MIN_SPEAKERS
from .finding import Finding, Scale, within

MOST_GROUPS = 24  # that have an interval each; of more, the lowest and the highest score are shown
SHOWN = 4
LENGTHS = ("short", "middle", "long")


def group_findings(outcome: Outcome, rows: Mapping[str, Example], scale: Scale, by: Sequence[str] = ()) -> list[Finding]:
    """Return the scores of groups, for each way to group utterances that there is."""
    examples = [rows[name] for name in outcome.ids]
    found = []
    for name, values in ways(examples, outcome, by).items():
        known = dict.fromkeys(sorted({value for value in values if value}))
        if len(known) < 2:
            continue
        scores = {value: one_group(outcome, [row for row, own in enumerate(values) if own == value], scale) for value in known}
        found.append(Finding("groups", f"by {name}", group_line(name, scores), facts={"groups": scores}))
    return found


def ways(examples: Sequence[Example], outcome: Outcome, by: Sequence[str]) -> dict[str, list[str]]:
    """Return the ways to group utterances: by speaker, by length, by labels of few values that are not predicted."""
    found = {
        "speaker": [example.utterance.speaker or "" for example in examples],
        "length": lengths([e.seconds for e in examples]),
    }
    truth = [str(value) for value in outcome.references]
    for key in dict.fromkeys([*by, *(key for example in examples for key in example.utterance.labels)]):
        values = [str(example.utterance.labels.get(key) or "") for example in examples]
        if key in by or (len({*values}) <= MOST_GROUPS and values != truth and not _decides(values, truth)):
            found[key] = values
    return found


def _decides(values: Sequence[str], truth: Sequence[str]) -> bool:
    """Return whether a label is the predicted one by another name."""
    return len({*zip(values, truth, strict=True)}) == len({*values})


def lengths(seconds: Sequence[float]) -> list[str]:
    """Return whether each utterance is in the shortest third, the longest, or between; nothing where all are as long."""
    first, second = np.quantile(seconds, [1 / 3, 2 / 3])
    if first == second:
        return [""] * len(seconds)
    return [LENGTHS[int(value > first) + int(value > second)] for value in seconds]


def one_group(outcome: Outcome, rows: Sequence[int], scale: Scale) -> dict[str, object]:
    """Return the score of some utterances, and an interval over speakers where there are enough, else over utterances."""
    part = outcome.take(rows)
    speakers = [scale.speakers[row] for row in rows]
    enough = all(speakers) and len({*speakers}) >= MIN_SPEAKERS
    interval = scale.interval(part, speakers if enough else [str(row) for row in rows])
    over = "speakers" if enough else "utterances"
    return {"utterances": len(rows), "score": scale.score(part), "interval": interval, "over": over if interval else None}


def group_line(name: str, scores: Mapping[str, Mapping[str, object]]) -> str:
    """Return the scores of all groups, of many the lowest and the highest."""
    ranked = sorted(scores, key=lambda value: float(str(scores[value]["score"])))
    shown = [*scores] if len(ranked) <= SHOWN else [ranked[0], ranked[-1]]
    words = [f"{value} {scores[value]['score']:.3f}{within(scores[value]['interval'])}" for value in shown]  # type: ignore[arg-type]
    return f"{name}: {', '.join(words)}" if len(ranked) <= SHOWN else f"{name}: from {' to '.join(words)} ({len(ranked)} groups)"


def their_finding(name: str, run: Outcome, theirs: Outcome, scale: Scale) -> Finding:
    """Return the score of another toolkit's predictions beside the run's, and how many the two agree on."""
    value, score = scale.score(theirs), scale.score(run)
    same = sum(one == other for one, other in zip(run.predictions, theirs.predictions, strict=True)) / len(run.ids)
    interval = scale.interval(theirs)
    both = f"{100 * same:.0f} % of predictions are the same"
    line = f"{name}: {scale.title} {value:.3f}{within(interval)}, the run {score:.3f}; {both}"
    return Finding("predictions", name, line, facts={"score": value, "interval": interval, "same": same})
