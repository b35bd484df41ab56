"""Arousal, valence and dominance as a question: ratings on a corpus' scale, compared over a whole split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import UserError
from ...corpus.base import Corpus, Utterance
from .. import metrics
from ..answer import Ratings
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig
from .plot import agreement_plot

DIMENSIONS = ("arousal", "valence", "dominance")  # always in this order
_MEASURES = {"ccc": metrics.concordance, "pearson": metrics.pearson, "rmse": metrics.rmse}


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the dimensions of a run and the scale of their ratings, once all of them are found to be on it."""
    for name, value in vars(labels).items():
        if value not in (None, ""):
            raise UserError(f"Expected no labels.{name} for avd, which has ratings and no classes, found {value}. Leave it out.")
    dimensions = [name for name in DIMENSIONS if name in options.dimensions]
    if not dimensions:
        raise UserError(
            "Expected at least one dimension in avd.dimensions, found none. For instance: -o avd.dimensions='[valence]'"
        )
    rows = [row for split in corpus.splits.values() for row in split]
    rated = [row for row in rows if ratings_of(row, dimensions) is not None]
    if not rated:
        known = ", ".join(sorted({key for row in rows for key in row.labels})) or "none"
        raise UserError(
            f"Expected ratings of {', '.join(dimensions)} in {corpus.name}, found none (labels there: {known}). "
            "A table of your own names its columns with "
            "-o corpus.options.columns='{arousal: HEADER, valence: HEADER, dominance: HEADER}'"
        )
    scale = scale_of(options.scale, corpus, rated, dimensions)
    for split in ("train", "dev"):
        if not any(ratings_of(row, dimensions) for row in corpus.splits.get(split, ())):
            raise UserError(
                f"Expected rated utterances in split '{split}' of {corpus.name}, found none. See `headwater corpus check`."
            )
    refuse_constants(corpus, dimensions)
    return {"dimensions": dimensions, "scale": list(scale)}


def ratings_of(utterance: Utterance, dimensions: Sequence[str]) -> tuple[float, ...] | None:
    """Return an utterance's ratings; None where one of them is missing."""
    values = [utterance.labels.get(name) for name in dimensions]
    if any(value is None or value == "" for value in values):
        return None
    try:
        numbers = tuple(float(value) for value in values if value is not None)
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        found = ", ".join(f"{name} {value!r}" for name, value in zip(dimensions, values, strict=True))
        raise UserError(
            f"Expected numbers as ratings of '{utterance.id}', found {found}. Mend the row, or leave its cells empty."
        )
    return numbers


def scale_of(
    requested: Sequence[float] | None, corpus: Corpus, rated: Sequence[Utterance], dimensions: Sequence[str]
) -> tuple[float, float]:
    """Return the lowest and the highest rating there can be; one outside of it is refused."""
    found = np.array([ratings_of(row, dimensions) for row in rated])  # (utterance, dimension)
    there = f"{found.min():g} to {found.max():g}"
    if requested is None and corpus.scale is None:
        raise UserError(
            f"Expected the scale of the ratings of {corpus.name}, which go from {there}, found none. "
            "Say it: -o avd.scale='[1, 7]'"
        )
    scale = [*(corpus.scale or ())] if requested is None else [*requested]
    if len(scale) != 2 or not scale[0] < scale[1]:
        listed = ", ".join(f"{end:g}" for end in scale)
        raise UserError(f"Expected avd.scale='[LOWEST, HIGHEST]', found [{listed}]. For instance: -o avd.scale='[1, 7]'")
    low, high = scale
    outside = (found < low) | (found > high)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        within = found[outside]
        mixed = " It looks as if two scales were mixed." if 2 * outside.sum() < outside.size and within.max() <= 1 < high else ""
        raise UserError(
            f"Expected ratings from {low:g} to {high:g} in {corpus.name}, found {dimensions[column]} {found[row, column]:g} of "
            f"'{rated[row].id}' ({int(outside.sum())} of {outside.size} are outside; all go from {there}).{mixed} "
            "Mend them, or say the scale: -o avd.scale='[LOWEST, HIGHEST]'"
        )
    return float(low), float(high)


def refuse_constants(corpus: Corpus, dimensions: Sequence[str]) -> None:
    """Refuse ratings that are the same all over the training split: no correlation with them exists."""
    values = np.array([found for row in corpus.splits["train"] if (found := ratings_of(row, dimensions)) is not None])
    for name, column in zip(dimensions, values.T, strict=True):
        if np.ptp(column) == 0:
            others = ", ".join(other for other in dimensions if other != name)
            raise UserError(
                f"Expected ratings of {name} that differ in the training split of {corpus.name}, found {column[0]:g} in all "
                f"{len(column)}. " + (f"Leave it out: -o avd.dimensions='[{others}]'" if others else "Rate more utterances.")
            )


def select(vocabulary: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances that are rated."""
    return [row for row in utterances if ratings_of(row, vocabulary["dimensions"]) is not None]


def to_unit(vocabulary: Mapping[str, Any], ratings: Sequence[float]) -> tuple[float, ...]:
    """Return ratings of the corpus' scale from 0 to 1."""
    low, high = vocabulary["scale"]
    return tuple((value - low) / (high - low) for value in ratings)


def target(vocabulary: Mapping[str, Any], utterance: Utterance) -> tuple[float, ...]:
    """Return an utterance's ratings, from 0 to 1."""
    ratings = ratings_of(utterance, vocabulary["dimensions"])
    assert ratings is not None, f"'{utterance.id}' is not rated: select() leaves such utterances out"
    return to_unit(vocabulary, ratings)


def reference(vocabulary: Mapping[str, Any], ratings: Sequence[float]) -> tuple[float, ...]:
    """Return ratings from 0 to 1 on the corpus' scale."""
    low, high = vocabulary["scale"]
    return tuple(low + (high - low) * value for value in ratings)


def answer(vocabulary: Mapping[str, Any]) -> Ratings:
    """Return ratings on the scale as the kind of answer: what lies beyond its ends is scored as it is, as in the paper."""
    low, high = vocabulary["scale"]
    return Ratings(tuple(vocabulary["dimensions"]), (low, high))


def score(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, float]:
    """Return CCC, Pearson's r and RMSE of each dimension over a whole split, and the mean CCC."""
    references, predictions = np.array(outcome.references), np.array(outcome.predictions)  # (utterance, dimension)
    found = {
        f"{measure}_{name}": function(references[:, column], predictions[:, column])
        for measure, function in _MEASURES.items()
        for column, name in enumerate(vocabulary["dimensions"])
    }
    return {"ccc": float(np.mean([found[f"ccc_{name}"] for name in vocabulary["dimensions"]])), **found}


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:  # noqa: ARG001
    """Return the vocabulary for another corpus' ratings, whose scale is brought to the run's."""
    rated = select(vocabulary, [row for split in corpus.splits.values() for row in split])
    if not rated:
        raise UserError(f"Expected ratings of {', '.join(vocabulary['dimensions'])} in {corpus.name}, found none.")
    ours = vocabulary["scale"]
    scale = scale_of(ours if corpus.scale is None else None, corpus, rated, vocabulary["dimensions"])
    note = f"ratings from {scale[0]:g} to {scale[1]:g}"
    if corpus.scale is None:
        note += ", the run's scale, since the corpus says none"
    elif [*scale] != ours:
        note += f", brought to the run's scale from {ours[0]:g} to {ours[1]:g}"
    return {**vocabulary, "scale": list(scale)}, note


def draw(vocabulary: Mapping[str, Any], outcome: Outcome, stem: Path, marks: Sequence[str]) -> None:
    """Draw predictions over references, a panel for each dimension."""
    path = stem.with_name(f"agreement-{stem.name}.png")
    title, pair = f"Predicted over rated, {stem.name}", (outcome.references, outcome.predictions)
    agreement_plot(*pair, vocabulary["dimensions"], vocabulary["scale"], path, title=title, marks=marks)


def question_of(dimensions: Sequence[str]) -> Question:
    """Return the question about some of the dimensions."""
    names = [name for name in DIMENSIONS if name in dimensions]
    metrics_of: dict[str, Literal["higher", "lower"]] = {"ccc": "higher"}
    for measure in _MEASURES:
        metrics_of |= {f"{measure}_{name}": "lower" if measure == "rmse" else "higher" for name in names}
    return Question(
        name="avd",
        metrics=metrics_of,
        primary_metric="ccc",
        make_vocabulary=make_vocabulary,
        select=select,
        target=target,
        reference=reference,
        answer=answer,
        score=score,
        adapt=adapt,
        draw=draw,
        label=False,
    )


QUESTION = question_of(DIMENSIONS)
