"""Which task helps which: what each one's score does when another is left out of joint training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ..table import render
from .table import Table

# from here on an edge has that width, the paper's Fig. 2; below the first there is none
WIDTHS = {"thin": Fraction(5, 1000), "medium": Fraction(2, 100), "thick": Fraction(8, 100)}
Interval = tuple[float, float]


@dataclass(frozen=True)
class Pair:
    """What leaving out `source` does to `target`: below zero it gets worse, so that `source` helps."""

    source: str
    target: str
    change: float  # relative to the all-task score; above zero is better, whatever the metric
    width: str  # "": less than the thinnest edge
    interval: Interval | None = None

    @property
    def is_certain(self) -> bool:
        """False where an interval includes 0; True where none is known."""
        return self.interval is None or not self.interval[0] <= 0 <= self.interval[1]

    def as_json(self) -> dict[str, Any]:
        """Return an edge as relations.json holds it."""
        edge = {"from": self.source, "to": self.target, "change": self.change, "width": self.width}
        return edge | ({} if self.interval is None else {"interval": list(self.interval)})


@dataclass(frozen=True)
class Relations:
    """Every ordered pair of tasks: drawn in one of two graphs, negligible, or without a relative change."""

    tasks: tuple[str, ...]
    pairs: tuple[Pair, ...]
    undefined: tuple[tuple[str, str, str], ...]  # source, target, why
    marks: tuple[str, ...] = ()

    @property
    def improvement(self) -> tuple[Pair, ...]:
        """The edges from a task to those that get worse without it."""
        return tuple(pair for pair in self.pairs if pair.width and pair.change < 0)

    @property
    def hurt(self) -> tuple[Pair, ...]:
        """The edges from a task to those that get better without it."""
        return tuple(pair for pair in self.pairs if pair.width and pair.change > 0)

    def as_json(self) -> dict[str, Any]:
        """Return both graphs, and the pairs that have no relative change, with the reason."""
        return {
            "tasks": list(self.tasks),
            "improvement": [pair.as_json() for pair in self.improvement],
            "hurt": [pair.as_json() for pair in self.hurt],
            "undefined": [{"from": source, "to": target, "reason": why} for source, target, why in self.undefined],
            "marks": list(self.marks),
        }


def relations_of(table: Table, bootstrap: Mapping[tuple[str, str], Interval] | None = None) -> Relations:
    """Return what each task does to each other, by the paper's rules; several seeds count by their mean.

    The change is (without - all) / |all|, with the sign turned where lower scores are better. Its interval is that of the seeds
    where there are enough of them, else the one that `bootstrap` has for (left out, task).
    """
    pairs, undefined = [], []
    for source, target in ordered(table.directions):
        everything, without = table.scores("", target), table.scores(source, target)
        why = why_undefined(source, target, everything, without)
        if why:
            undefined.append((source, target, why))
            continue
        whole, sign = mean(everything), -1 if table.directions[target] == "lower" else 1
        change = sign * (mean(without) - whole) / abs(whole)
        interval = seed_interval(everything, without, change, whole) or (bootstrap or {}).get((source, target))
        pairs.append(Pair(source, target, float(change), width_of(change), interval))
    return Relations(tuple(table.directions), tuple(pairs), tuple(undefined), table.marks)


def ordered(tasks: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Return every ordered pair of different tasks."""
    return ((source, target) for source in tasks for target in tasks if source != target)


def why_undefined(source: str, target: str, everything: Sequence[Fraction], without: Sequence[Fraction]) -> str:
    """Return why a pair has no relative change, or nothing where it has one."""
    if not everything or not without:
        return f"no score of {target} {f'without {source}' if everything else 'with all tasks'}"
    if mean(everything) == 0:
        return f"{target} is 0 with all tasks"
    return f"{target} changes its sign without {source}" if mean(everything) * mean(without) < 0 else ""


def mean(values: Sequence[Fraction]) -> Fraction:
    """Return the mean without rounding."""
    return sum(values, Fraction(0)) / len(values)


def width_of(change: Fraction) -> str:
    """Return the width of an edge: thin from 0.5 %, medium from 2 %, thick from 8 %, none below.

    >>> [width_of(Fraction(percent) / 100) for percent in ("0.499", "-0.5", "2", "7.999", "-8")]
    ['', 'thin', 'medium', 'medium', 'thick']
    """
    return next((name for name, least in reversed(WIDTHS.items()) if abs(change) >= least), "")


def seed_interval(
    everything: Sequence[Fraction], without: Sequence[Fraction], change: Fraction, whole: Fraction
) -> Interval | None:
    """Return Student's 95 % interval of a relative change; None where no two seeds of a kind show how far runs spread.

    Both kinds share one spread, so that three all-task seeds serve beside single runs without a task.
    """
    freedom = len(everything) + len(without) - 2
    squares = sum((value - mean(kind)) ** 2 for kind in (everything, without) for value in kind)
    if squares == 0:  # single runs, or runs that are equal
        return None
    from scipy.special import stdtrit

    variance = float(squares / freedom / whole**2 * (Fraction(1, len(everything)) + Fraction(1, len(without))))
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
    return float(change) - half, float(change) + half


def from_json(content: Any, source: Path) -> Relations:
    """Return the relations that a relations.json holds; what is negligible is not in there."""
    try:
        edges = [
            Pair(
                edge["from"],
                edge["to"],
                float(edge["change"]),
                edge["width"],
                tuple(edge["interval"]) if "interval" in edge else None,
            )
            for edge in (*content["improvement"], *content["hurt"])
        ]
        undefined = tuple((pair["from"], pair["to"], pair.get("reason", "")) for pair in content["undefined"])
        named = [name for pair in (*edges,) for name in (pair.source, pair.target)]
        return Relations(
            tuple(content.get("tasks", dict.fromkeys(named))), tuple(edges), undefined, tuple(content.get("marks", ()))
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"Expected improvement, hurt and undefined in '{source}', found another format. Write it again."
        ) from None


def relations_text(relations: Relations, further: Sequence[str] = ()) -> str:
    """Return the changes as a table, a row for each task left out, and how many edges of each width there are."""
    changes = {(pair.source, pair.target): pair for pair in relations.pairs}
    rows = []
    for source in relations.tasks:
        cells = {task: changes.get((source, task)) for task in relations.tasks}
        shown = {task: "" if pair is None else f"{100 * pair.change:+.2f}" for task, pair in cells.items()}
        shown |= {task: "undefined" for left_out, task, _ in relations.undefined if left_out == source}
        rows.append({"without": source, **shown})
    lines = [
        *[" ".join(relations.marks)] * bool(relations.marks),
        "change of each task in % (below 0: worse without)",
        render(rows),
        "",
    ]
    known = any(pair.interval for pair in relations.pairs)
    graphs = {"improvement": relations.improvement, "hurt": relations.hurt}
    lines.append(render([counted(name, edges, with_intervals=known) for name, edges in graphs.items()]))
    negligible = len(relations.pairs) - len(relations.improvement) - len(relations.hurt)
    lines.append(f"no edge: {negligible} below {float(100 * WIDTHS['thin']):g} %, {len(relations.undefined)} undefined")
    lines += [f"undefined: {source} -> {target}: {why}" for source, target, why in relations.undefined]
    lines += [f"no edges from {name}: a further metric of {name.rpartition('-')[0]}" for name in further]
    return "\n".join(lines)


def counted(graph: str, edges: Sequence[Pair], *, with_intervals: bool) -> dict[str, str]:
    """Return how many edges of each width a graph has, and how many of them are uncertain."""
    row = {"graph": graph, **{width: str(sum(edge.width == width for edge in edges)) for width in WIDTHS}}
    return row | ({"interval includes 0": str(sum(not edge.is_certain for edge in edges))} if with_intervals else {})
