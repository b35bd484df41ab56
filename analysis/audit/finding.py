"""What an audit says: a line in words for each control, with the numbers behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...downstream.base import Outcome, Question, Tables
from ...downstream.metrics import bootstrap_interval, metric_title

SECTIONS = {
    "controls": "what else could explain the score",
    "leakage": "what the splits share",
    "audio": "audio that is not what it seems",
    "labels": "labels that may be wrong",
    "groups": "scores of groups",
    "predictions": "predictions of another toolkit",
}


@dataclass(frozen=True)
class Finding:
    """One control."""

    section: str
    name: str
    line: str
    warns: bool = False  # the score means less than it seems
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as audit.json holds it."""
        return {"section": self.section, "name": self.name, "line": self.line, "warns": self.warns, **self.facts}


@dataclass(frozen=True)
class Scale:
    """The metric in which everything is said, and how it is computed."""

    question: Question
    vocabulary: Mapping[str, Any]
    tables: Tables
    metric: str
    speakers: Sequence[str]  # of the tested utterances, in the outcome's order

    @property
    def title(self) -> str:
        """The metric as a sentence spells it."""
        return metric_title(self.metric)

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.question.metrics[self.metric] == "higher" else -1

    def score(self, outcome: Outcome) -> float:
        """Return the metric of some predictions."""
        return self.question.score(self.vocabulary, outcome, self.tables)[self.metric]

    def interval(self, outcome: Outcome, groups: Sequence[str] | None = None) -> tuple[float, float] | None:
        """Return a 95 % interval over speakers, or over other groups of utterances."""
        groups = self.speakers if groups is None else groups
        scorer = self.question.row_scorer(self.vocabulary, outcome, self.tables)
        return bootstrap_interval(lambda rows: scorer(rows)[self.metric], groups) if all(groups) else None

    def of_chance(self, outcome: Outcome, draws: int = 300) -> np.ndarray:
        """Return the scores of the predictions where the labels of utterances change places, with a fixed seed."""
        columns, generator = outcome.columns(self.question.answer(self.vocabulary)), np.random.default_rng(0)
        found = []
        for _ in range(draws):
            order = generator.permutation(len(columns.ids))
            moved = Outcome(columns.ids, columns.predictions, columns.references[order], columns.scores)
            found.append(self.score(moved))
        return np.array(found)


def within(interval: Sequence[float] | None) -> str:
    """Return an interval behind a number, or nothing."""
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"


def printed(content: Mapping[str, Any], wrap: Callable[[str], str] = str) -> list[str]:
    """Return the lines of audit.json, section by section; `!` begins a line that warns."""
    lines = [wrap(content["about"])]
    for section, title in SECTIONS.items():
        found = [one for one in content["findings"] if one["section"] == section]
        lines += ["", f"{title}:"] * bool(found) + [f"{'!' if one['warns'] else ' '} {one['line']}" for one in found]
    return lines
