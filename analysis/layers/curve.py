"""The layer curve: what each layer knows alone, over the same test, and which layers cannot be told apart from the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...core.errors import UserError
from ...core.run_folder import TOGETHER, RunFolder
from ...core.tensors import load_tensors
from ...downstream.base import Outcome
from ...downstream.metrics import bootstrap_interval, chance_level, mean_and_spread
from ...runs.results import read_predictions, read_tables
from ..comparison.compare import ALPHA, known_metric, one_seed, refuse_other_question, same_tables, split_of
from ..comparison.paired import Difference, Rescored, difference, permutation_p_of_any, quick_gap
from ..comparison.sides import Side, places_of, read_side

Interval = tuple[float, float] | None
MIXTURE, KEPT, ALL = "mixture", "kept head", "all together"
Measured = tuple[float, Interval, Difference | None]  # a score, its interval, how it differs from the best layer's


@dataclass(frozen=True)
class Point:
    """The score of a head on one layer, or of the run's own head."""

    layer: int | None  # None: the run's own head
    name: str
    score: float
    interval: Interval  # 95 %, over speakers; None: too few
    # from the best layer, with the p of any layer differing as much; None: it is the best one, or no utterance's score is there
    difference: Difference | None

    @property
    def is_told_apart(self) -> bool:
        """Whether it differs from the best layer: the interval leaves out 0, and p is below 0.05, as `compare` decides."""
        gap = self.difference
        return gap is not None and not gap.holds_0 and gap.p is not None and gap.p < ALPHA


@dataclass(frozen=True)
class Curve:
    """What each layer of a role knows alone, in a run or in the folds of a plan."""

    side: Side
    role: str
    metric: str
    split: str
    higher_is_better: bool
    layers: tuple[Point, ...]  # in order
    own: Point  # the run's own head: the mixture, or the layer that did better on what was held out
    together: Point | None  # the head on all layers at once, where the runs have one
    mixtures: np.ndarray  # (run, layer): weights of the mixture of standardised layers
    kept: str  # what the runs' own heads are, in words
    utterances: int
    speakers: int  # 0: not known
    chance: float | None

    @property
    def points(self) -> tuple[Point, ...]:
        """The layers, and the heads that are none."""
        return (*self.layers, *((self.together,) if self.together else ()), self.own)

    @property
    def best(self) -> Point:
        """The layer that scores best."""
        return (max if self.higher_is_better else min)(self.layers, key=lambda point: point.score)

    @property
    def places(self) -> list[Path]:
        """The folders of the runs."""
        return [place for places in self.side.seeds.values() for place in places]

    @property
    def has_intervals(self) -> bool:
        """Whether there are enough speakers to say how far chance moves a score."""
        return self.best.interval is not None


def has_curve(place: Path) -> bool:
    """Return whether a finished run, or the first one of a plan, has scores of each layer alone."""
    run = RunFolder(place)
    rows = run.runs()
    first = run if rows is None else RunFolder(place / rows[0]["name"]) if rows else run
    if not first.layers.is_file():
        return False
    return any(len(role["layers"]) > 1 and role["layers"][0]["scores"] for role in first.read().layers("roles")["roles"].values())


def curve_rows(*folders: str | Path, metric: str = "") -> list[dict[str, Any]]:
    """Return a row for each layer of runs with solver=exact, and one for the run's own head; several are folds of one run."""
    return [row for curve in read_curves([Path(folder).expanduser() for folder in folders], metric) for row in rows_of(curve)]


def rows_of(curve: Curve) -> list[dict[str, Any]]:
    """Return a curve as rows: one for each of its points."""
    side, (weights, spreads) = curve.side, zip(*map(mean_and_spread, curve.mixtures.T.tolist()), strict=True)
    shared = {"upstream": side.upstream, "task": side.task, "corpus": side.corpus, "role": curve.role, "split": curve.split}
    rows = []
    for point in curve.points:
        low, high = point.interval or (None, None)
        gap = point.difference
        gap_low, gap_high = (gap.interval if gap else None) or (None, None)
        found = {"value": point.score, "low": low, "high": high, "minus_best": gap.value if gap else None}
        found |= {
            "minus_best_low": gap_low,
            "minus_best_high": gap_high,
            "p_of_any": gap.p if gap else None,
            "told_apart": point.is_told_apart,
        }
        mixed = (None, None) if point.layer is None else (weights[point.layer], spreads[point.layer])
        named = {"metric": curve.metric, "layer": point.name if point.layer is None else point.layer}
        rows.append(shared | named | found | {"mixture": mixed[0], "mixture_std": mixed[1], "marks": " ".join(side.marks)})
    return rows


def read_curves(folders: Sequence[Path], metric: str = "") -> list[Curve]:
    """Return the curve of each role of a run, of the folds of a plan, or of several runs that are folds."""
    lacking = next((folder for folder in folders if places_of(folder) and not has_curve(folder)), None)
    if lacking is not None:
        raise without_curve(lacking)
    sides = [read_side(folder) for folder in folders]
    for other in sides[1:]:
        refuse_other_question(sides[0], other)
        if other.upstream != sides[0].upstream:
            found = f"{sides[0].upstream}, {other.upstream}"
            raise UserError(f"Expected runs of one upstream, found {found}. Draw each with a command of its own.")
    side = merged(sides)
    first = RunFolder(next(iter(side.seeds.values()))[0]).read().layers("roles", "select_by")
    metric = known_metric(metric or first["select_by"], side.question)
    return [curve_of(side, role, metric) for role, content in first["roles"].items() if len(content["layers"]) > 1]


def merged(sides: Sequence[Side]) -> Side:
    """Return runs that are folds of one system as one side."""
    seeds = {seed: tuple(place for side in sides for place in side.seeds.get(seed, ())) for side in sides for seed in side.seeds}
    return replace(sides[0], seeds=seeds, marks=tuple(dict.fromkeys(mark for side in sides for mark in side.marks)))


def without_curve(folder: Path) -> UserError:
    """Return the error about a run without scores of single layers."""
    run = RunFolder((places_of(folder)[0])[0])
    roles = run.read().layers("roles")["roles"] if run.layers.is_file() else {}
    if roles and all(len(role["mixture"]) == 1 for role in roles.values()):
        return UserError(f"Expected an upstream of several layers in '{folder}', found one layer: there is no curve to draw.")
    found = "none (exact.each_layer=false, or a final model)" if roles else "a run of solver=adam"
    return UserError(f"Expected a run with the score of each layer alone in '{folder}', found {found}. Train with solver=exact.")


def curve_of(side: Side, role: str, metric: str) -> Curve:
    """Return the curve of one role."""
    split = split_of([side], None)
    places = [RunFolder(place) for of_seed in side.seeds.values() for place in of_seed]
    contents = [place.read().layers("roles")["roles"][role] for place in places]
    own, speakers = owns(side, split)
    name, words = names_of_own(places)
    higher = side.question.metrics[metric] == "higher"
    layers = len(contents[0]["layers"])
    is_whole = all("together" in place.read().layers() for place in places)
    if all(place.layer_outcomes(role, split).is_file() for place in places):
        systems = [outcomes_of_layer(side, role, split, layer) for layer in range(layers)]
        whole = [outcomes_of_layer(side, TOGETHER, split, 0)] if is_whole else []
        measured = measure(side, [*systems, *whole, own], layers, speakers, metric, split, higher=higher)
    else:  # too many to keep: means over the runs, without intervals
        columns = [[one["layers"][layer]["scores"][split][metric] for one in contents] for layer in range(layers)]
        if is_whole:
            columns.append([place.read().layers()["together"]["scores"][split][metric] for place in places])
        columns.append([place.read().result()["scores"][split][metric] for place in places])
        measured = [(mean_and_spread(column)[0], None, None) for column in columns]
    points = [Point(layer, str(layer), *found) for layer, found in enumerate(measured[:layers])]
    return Curve(
        side,
        role,
        metric,
        split,
        higher,
        tuple(points),
        Point(None, name, *measured[-1]),
        Point(None, ALL, *measured[layers]) if is_whole else None,
        np.array([content["mixture"] for content in contents]),
        words,
        len(speakers),
        len({*speakers}) if all(speakers) else 0,
        chance_level(metric, len(side.answer.classes)),
    )


def names_of_own(places: Sequence[RunFolder]) -> tuple[str, str]:
    """Return what the runs' own heads are called, and how many of them are what."""
    kept = Counter(str(place.read().result("exact")["exact"]["keep"]) for place in places)
    words = [
        (what if what == MIXTURE else f"layer {what} alone") + f" in {count} of {len(places)} runs" * (len(kept) > 1)
        for what, count in kept.most_common()
    ]
    return (MIXTURE if [*kept] == [MIXTURE] else KEPT), ", ".join(words)


def owns(side: Side, split: str) -> tuple[list[Outcome], list[str]]:
    """Return the predictions of the runs' own heads, by seed, and the speakers."""
    found = [one_seed(side, seed, split) for seed in side.seeds]
    return [outcome for outcome, _ in found], found[0][1]


def outcomes_of_layer(side: Side, role: str, split: str, layer: int) -> list[Outcome]:
    """Return the predictions of one layer's heads, folds pooled, by seed."""
    found = []
    for places in side.seeds.values():
        found.append(Outcome.join([outcome_of_layer(side, RunFolder(place), role, split, layer) for place in places]))
    return found


def outcome_of_layer(side: Side, place: RunFolder, role: str, split: str, layer: int) -> Outcome:
    """Return what one layer's head of a run predicts on a split, decided as its own dev decides."""
    vocabulary = place.read().vocabulary(side.task)[side.task]
    if side.question.placed and split != "dev":
        on_dev = scored(side, place, role, "dev", layer, vocabulary)
        vocabulary = side.question.calibrate(vocabulary, on_dev, read_tables([place], "dev"))
    return scored(side, place, role, split, layer, vocabulary)


def scored(side: Side, place: RunFolder, role: str, split: str, layer: int, vocabulary: Mapping[str, Any]) -> Outcome:
    """Return the rows of one layer's scores in the order of the run's predictions."""
    path = place.layer_outcomes(role, split)
    tensors, facts = load_tensors(path)
    answer = side.question.answer(vocabulary)
    whole, _ = read_predictions(place.predictions(split), answer)
    rows = {name: row for row, name in enumerate(facts["ids"])}
    if {*rows} != {*whole.ids}:
        raise UserError(
            f"Expected the utterances of '{place.predictions(split)}' in '{path}', found others. Train the run again."
        )
    scores = tensors["scores"][layer][torch.tensor([rows[name] for name in whole.ids])]
    return replace(whole, predictions=answer.decide(scores), scores=scores)


def measure(
    side: Side,
    systems: Sequence[Sequence[Outcome]],
    layers: int,
    speakers: Sequence[str],
    metric: str,
    split: str,
    *,
    higher: bool,
) -> list[Measured]:
    """Return the score and interval of each system, the first of which are layers, and how it differs from the best layer.

    The same speakers are drawn for all of them, and change sides in all of them: p is that of any layer differing as much.
    """
    tables, known = same_tables([side], split), all(speakers)
    score: Callable[[Outcome], dict[str, float]] = lambda outcome: side.question.score(side.vocabulary, outcome, tables)  # noqa: E731
    names, units = np.unique(np.asarray(speakers if known else range(len(speakers)), dtype=str), return_inverse=True)
    columns = [[outcome.columns(side.answer) for outcome in system] for system in systems]
    whole = [[score(outcome)[metric] for outcome in system] for system in columns]
    means = [mean_and_spread(scores)[0] for scores in whole]
    best = (max if higher else min)(range(layers), key=means.__getitem__)
    gaps, swapped = [], {}
    for place, system in enumerate(columns):
        sides = (columns[best], system)
        slow = Rescored(sides, units, score)
        gaps.append(quick_gap(metric, sides, units, side.answer, slow) or slow.gap(metric))
        if place != best and not np.isnan(means[place] - means[best]):
            swapped[place] = gaps[-1].swapped
    values = [means[place] - means[best] for place in swapped]
    p = dict(zip(swapped, permutation_p_of_any([*swapped.values()], values, len(names)) if swapped else (), strict=True))

    def interval(draw: Callable[[NDArray], float]) -> Interval:
        """Return the interval of a number over draws of speakers."""
        return bootstrap_interval(draw, names.tolist()) if known else None

    return [
        (
            means[place],
            interval(gap.second),
            None if place == best else difference(whole[best], whole[place], interval(gap.drawn), p.get(place)),
        )
        for place, gap in enumerate(gaps)
    ]
