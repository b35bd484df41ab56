"""Which of several systems is better: the same utterances, an interval, p-values, and a sentence that they all agree with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.errors import UserError, nearest
from ...core.run_folder import RunFolder
from ...corpus.load import list_corpora
from ...downstream.base import Outcome, Question, Tables
from ...runs.results import group_word, read_tables
from ..titles import titles_of
from .paired import Difference, Discordant, counted_by, differences, discordant, holm
from .sides import Side, pooled_outcome, read_side
from .theirs import is_table, read_theirs

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """A side against the first one."""

    name: str
    differences: Mapping[str, Difference]  # metric -> how much higher it is than the first's
    corrected: Mapping[str, float | None]  # metric -> p by Holm among all comparisons
    discordant: Discordant | None

    def winner(self, metric: str, direction: str) -> int:
        """Return 1 where it is better than the first, -1 where worse, 0 where there is no clear difference."""
        found, p = self.differences[metric], self.corrected[metric]
        chance = p is None or p >= ALPHA
        if found.interval is None or found.holds_0 or chance or math.isnan(found.value):
            return 0
        return 1 if (found.value > 0) == (direction == "higher") else -1


@dataclass(frozen=True)
class Compared:
    """The result of a comparison."""

    sides: tuple[Side, ...]
    names: tuple[str, ...]
    split: str
    metric: str  # that decides
    directions: Mapping[str, str]  # metric -> which of its scores are better; that which decides first
    utterances: int
    speakers: int  # that are drawn; 0: not known
    seeds: int
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    drawn: str = "speaker"  # or recording, where speakers have no names

    @property
    def swaps(self) -> bool:
        """Whether predictions of the sides can change places, of which p is made."""
        return self.sides[0].answer.exchangeable

    @property
    def marks(self) -> tuple[str, ...]:
        """DEMO, UNTRAINED, where they apply to any of the sides."""
        return tuple(dict.fromkeys(mark for side in self.sides for mark in side.marks))


def compare(
    folders: Sequence[str | Path],
    *,
    metric: str | None = None,
    split: str | None = None,
    task: str | None = None,
    weights: str | None = None,
) -> Compared:
    """Compare every run or plan (or table of predictions) with the first run, on the same utterances of a split."""
    places = [Path(folder).expanduser() for folder in folders]
    if is_table(places[0]):
        raise UserError(f"Expected a run first, which knows the labels, found the table '{places[0]}'. Name it behind the run.")
    runs = {place: read_side(place, task, weights) for place in places if not is_table(place)}
    first, names = runs[places[0]], names_of(places)
    for side in runs.values():
        refuse_other_question(first, side)
    question, split = first.question, split_of([*runs.values()], split)
    decides = known_metric(metric or question.primary_metric, question)
    reference, speakers = one_seed(first, next(iter(first.seeds)), split)
    sides = [runs[place] if place in runs else read_theirs(place, first, split, reference) for place in places]
    outcomes, tables = [aligned(side, split, reference, speakers, first) for side in sides], same_tables(sides, split)
    found = [
        differences((outcomes[0], other), speakers, question, first.vocabulary, tables, side.vocabulary)
        for other, side in zip(outcomes[1:], sides[1:], strict=True)
    ]
    counted = counted_by(question, first.vocabulary, outcomes[0][0], tables)
    rights = [discordant(outcomes[0][0], other[0], counted) if len(other) == 1 else None for other in outcomes[1:]]
    corrected = {name: holm([of_side[name].p for of_side in found]) for name in question.metrics}
    return Compared(
        sides=tuple(sides),
        names=names,
        split=split,
        metric=decides,
        directions={decides: question.metrics[decides], **question.metrics},
        utterances=len(speakers),
        speakers=len({*speakers}) if all(speakers) else 0,
        seeds=len(first.seeds),
        comparisons=tuple(
            Comparison(names[place + 1], of_side, {key: values[place] for key, values in corrected.items()}, rights[place])
            for place, of_side in enumerate(found)
        ),
        notes=notes_of(sides, names, split),
        drawn=group_word(speakers),
    )


def known_metric(metric: str, question: Question) -> str:
    """Return a metric that the question has."""
    if metric not in question.metrics:
        known = ", ".join(question.metrics)
        raise UserError(f"Expected a metric of {question.name} ({known}), found '{metric}'.{nearest(metric, question.metrics)}")
    return metric


def names_of(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return a unique name for each folder: that of its run, numbered where it is named twice."""
    places = [folder.resolve() for folder in folders]
    runs = {place: RunFolder(place).home.path for place in places}
    titles = titles_of([*dict.fromkeys(runs.values())])
    names: list[str] = []
    for place in places:
        alone = sum(run == runs[place] for run in runs.values()) == 1
        title = titles[runs[place]] + ("" if alone or place == runs[place] else f"/{place.name}")
        again = sum(name == title or name.startswith(f"{title} (") for name in names)
        names.append(f"{title} ({again + 1})" if again else title)
    return tuple(names)


def refuse_other_question(first: Side, side: Side) -> None:
    """Refuse a side with another task, other data or other marks."""
    conditions: list[tuple[str, Callable[[Side], str], str]] = [
        ("the same task", lambda row: row.question.name, "Compare runs of one task; of joint runs --task names it."),
        ("the same corpus", lambda row: row.corpus, "Compare runs that were tested on one corpus (-m evaluate -e RUN)."),
        ("the same marks", lambda row: "DEMO" if "DEMO" in row.marks else "none", "Demos are compared among themselves."),
        ("the same classes", classes_of, "Train both with the same labels."),
        ("as many seeds", lambda row: str(len(row.seeds)), "Train the missing ones with --seeds, or name single runs."),
    ]
    for what, of, advice in conditions:
        if of(first) != of(side):
            here, there = shortened(of(first), of(side))
            raise UserError(f"Expected {what} in '{first.folder}' and '{side.folder}', found {here} and {there}. {advice}")


def classes_of(side: Side) -> str:
    """Return what the scores of a side are of, where those of another side must be of the same."""
    return ", ".join(side.answer.score_names) if side.answer.exchangeable else ""


def shortened(one: str, other: str, most: int = 120) -> tuple[str, str]:
    """Return two lists of words by what only one of them has, where they are long."""
    if len(one) + len(other) <= most:
        return one, other
    first, second = one.split(", "), other.split(", ")
    extra = [[name for name in mine if name not in theirs] for mine, theirs in ((first, second), (second, first))]
    lines = [
        f"{len(names)} with {', '.join(own[:3]) or 'none of its own'}" for names, own in zip((first, second), extra, strict=True)
    ]
    return lines[0], lines[1]


def usual_test(corpus: str) -> str:
    """Return the split that a corpus is tested on."""
    reader = list_corpora().get(corpus)
    return "test" if reader is None else reader.test


def split_of(sides: Sequence[Side], requested: str | None) -> str:
    """Return the split to compare on: the requested one, else the corpus' test, else the only one but dev."""
    common = [split for split in sides[0].splits if all(split in side.splits for side in sides)]
    tests = [split for split in common if split != "dev"]
    usual = usual_test(sides[0].corpus)
    if requested is None and (usual in tests or len(tests) == 1):
        return usual if usual in tests else tests[0]
    if requested is None or requested not in common:
        missing = next((side for side in sides if requested and requested not in side.splits), sides[0])
        found = ", ".join(common) or "none in common"
        raise UserError(
            f"Expected {f'split {requested!r}' if requested else 'one test split'} in all runs, found {found}"
            + (f" (not in '{missing.folder}')" if requested else "")
            + ". Choose with --split, or test the others there: -m evaluate -t SPLIT -e RUN."
        )
    return requested


def one_seed(side: Side, seed: int, split: str) -> tuple[Outcome, list[str]]:
    """Return the predictions of one seed, folds pooled, each utterance once."""
    outcome, speakers = pooled_outcome(side, seed, split)
    seen: set[str] = set()
    twice = next((name for name in outcome.ids if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
    if twice is not None:
        raise UserError(
            f"Expected each utterance once in split '{split}' of '{side.folder}', found '{twice}' twice. Name one of its runs."
        )
    return outcome, speakers


def same_tables(sides: Sequence[Side], split: str) -> Tables:
    """Return what all sides' predictions are scored with: the tables of their split, which must be the same."""
    sides = [side for side in sides if side.given is None]
    found = [read_tables([*map(RunFolder, next(iter(side.seeds.values())))], split) for side in sides]
    other = next((side for side, tables in zip(sides, found, strict=True) if tables != found[0]), None)
    if other is not None:
        raise UserError(
            f"Expected the same tables of split '{split}' ({', '.join(found[0]) or 'none'}) in '{sides[0].folder}' and "
            f"'{other.folder}', found others. Compare runs over one version of the corpus."
        )
    return found[0]


def aligned(side: Side, split: str, reference: Outcome, speakers: Sequence[str], first: Side) -> list[Outcome]:
    """Return a side's predictions by seed, in the order of the first side; refuse other utterances, labels or speakers."""
    found = []
    for seed in side.seeds:
        outcome, voices = one_seed(side, seed, split) if side.given is None else (side.given, [*speakers])
        named = f"'{side.folder}'" + (f" (seed {seed})" if len(side.seeds) > 1 else "")
        places = {name: row for row, name in enumerate(outcome.ids)}
        missing, added = [name for name in reference.ids if name not in places], {*outcome.ids} - {*reference.ids}
        if missing or added:
            one = (missing or sorted(added))[0]
            raise UserError(
                f"Expected the same utterances in split '{split}' of '{first.folder}' and {named}, found {len(missing)} missing "
                f"in the second and {len(added)} in the first, '{one}' for one. Test both on one set: -m evaluate -e RUN."
            )
        rows = [places[name] for name in reference.ids]
        outcome, voices = outcome.take(rows), [voices[row] for row in rows]
        for what, before, after in (("label", reference.references, outcome.references), ("speaker", speakers, voices)):
            row = next((row for row, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]), None)
            if row is not None:
                differ = sum(one != other for one, other in zip(before, after, strict=True))
                raise UserError(
                    f"Expected the same {what}s in '{first.folder}' and {named}, found {differ} that differ: "
                    f"'{reference.ids[row]}' has {shown(before[row])} and {shown(after[row])}. Compare runs over one version of "
                    "the corpus and its labels."
                )
        found.append(replace(outcome, embeddings=None))
    return found


def shown(label: Any) -> str:
    """Return a label as an error prints it."""
    text = str(label) or "none"
    return text if len(text) <= 40 else f"{text[:40]}…"


def notes_of(sides: Sequence[Side], names: Sequence[str], split: str) -> tuple[str, ...]:
    """Return what a reader should know before believing a number."""
    notes = []
    untrained = [name for name, side in zip(names, sides, strict=True) if "UNTRAINED" in side.marks]
    if 0 < len(untrained) < len(sides):
        notes.append(f"UNTRAINED is said of {', '.join(untrained)}: random weights, never trained")
    protocols = dict.fromkeys(side.protocol for side in sides)
    if len(protocols) > 1:
        notes.append(f"protocols {', '.join(protocols)}: the same test, but other training data")
    if split == "dev":
        notes.append("dev chose the steps of these runs: it is no test")
    return tuple(notes)
