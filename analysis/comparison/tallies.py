"""The metrics that sums over a speaker's utterances decide, and those of one ranking: what each adds up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...downstream.answer import MOST_CLASSES, Answer
from ...downstream.base import Outcome
from ...downstream.sf.slots import type_f1, value_errors
from ...downstream.spelling import Errors, count_errors
from .resampling import Curve, Tally


def equal_error(alarms: NDArray, misses: NDArray) -> NDArray:
    """Return where both rates meet, by linear interpolation: (draw, place) -> (draw,)."""
    after = np.argmax(alarms >= misses, axis=1)[:, None]  # not the first place, where everything is missed
    (before_alarm, alarm), (before_miss, miss) = (
        [np.take_along_axis(rates, places, 1)[:, 0] for places in (np.maximum(after - 1, 0), after)] for rates in (alarms, misses)
    )
    before_gap, after_gap = before_miss - before_alarm, alarm - miss
    rate = before_alarm + before_gap / np.maximum(before_gap + after_gap, 1e-300) * (alarm - before_alarm)
    return np.where(np.isnan(alarms[:, -1] + misses[:, -1]), np.nan, rate)


def area(alarms: NDArray, misses: NDArray) -> NDArray:
    """Return the area under the ROC: (draw, place) -> (draw,)."""
    return np.sum(np.diff(alarms) * (1 - (misses[:, 1:] + misses[:, :-1]) / 2), axis=1)


def _share(totals: NDArray) -> NDArray:
    """Return the first sum over the second: (…, 2) -> (…)."""
    return _ratio(totals[..., 0], totals[..., 1])


def _halves(totals: NDArray) -> tuple[NDArray, NDArray]:
    half = totals.shape[-1] // 2
    return totals[..., :half], totals[..., half:]


def _ratio(above: NDArray, below: NDArray) -> NDArray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _mean_ratio(totals: NDArray) -> NDArray:
    """Return the mean of the ratios that exist of a first half of sums to a second one."""
    above, below = _halves(totals)
    ratios = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return _ratio(ratios.sum(axis=-1), (below > 0).sum(axis=-1))


def _f1(totals: NDArray) -> NDArray:
    hits, seen = _halves(totals)
    return np.mean(2 * hits / np.maximum(seen, 1), axis=-1)


def _right(_: Answer, outcome: Outcome) -> NDArray:
    right = np.asarray(outcome.references) == np.asarray(outcome.predictions)
    right = right.reshape(len(right), -1).all(axis=1)  # of several slots all
    return np.stack([right, np.ones_like(right)], axis=1).astype(float)


def _classes(answer: Answer, outcome: Outcome) -> tuple[NDArray, NDArray]:
    """Return where each class is the reference and the prediction: (utterance, class) each."""
    names = np.array(answer.classes)
    if not 0 < len(names) <= MOST_CLASSES:
        raise ValueError("Expected few classes, found none, or more than a table of sums is worth. Score whole draws.")
    actual, predicted = (np.asarray(column)[:, None] == names for column in (outcome.references, outcome.predictions))
    return actual.astype(float), predicted.astype(float)


def _recalls(answer: Answer, outcome: Outcome) -> NDArray:
    actual, predicted = _classes(answer, outcome)
    return np.hstack([actual * predicted, actual])


def _hits_and_seen(answer: Answer, outcome: Outcome) -> NDArray:
    actual, predicted = _classes(answer, outcome)
    return np.hstack([actual * predicted, actual + predicted])


def _right_at_half(answer: Answer, outcome: Outcome) -> NDArray:
    """A two-class prediction by its score alone, whatever dev chose."""
    if outcome.scores is None or outcome.scores.shape[1] != 2:
        raise ValueError("Expected scores of two classes, found others. Score whole draws.")
    right = (np.asarray(outcome.scores[:, 1], np.float64) >= 0.5) == (np.asarray(outcome.references) == answer.classes[1])
    return np.stack([right, np.ones_like(right)], axis=1).astype(float)


def _wrong_of(place: int, answer: Answer, outcome: Outcome) -> NDArray:
    """Wrong predictions among the utterances of one class."""
    name = answer.classes[place]
    actual = np.asarray(outcome.references) == name
    return np.stack([actual & (np.asarray(outcome.predictions) != name), actual], axis=1).astype(float)


def _errors(of: Callable[[Errors], tuple[int, int]], _: Answer, outcome: Outcome) -> NDArray:
    """The errors of a transcript, and its length."""
    pairs = zip(outcome.references, outcome.predictions, strict=True)
    return np.array([of(count_errors(str(reference), str(prediction))) for reference, prediction in pairs], dtype=float)


def _slot_types(_: Answer, outcome: Outcome) -> NDArray:
    """The F1 of each utterance's slots, which are averaged."""
    pairs = zip(outcome.references, outcome.predictions, strict=True)
    return np.array([(type_f1(str(reference), str(prediction)), 1.0) for reference, prediction in pairs])


def _slot_values(_: Answer, outcome: Outcome) -> NDArray:
    """The errors in the slots of an utterance, and their length."""
    pairs = zip(outcome.references, outcome.predictions, strict=True)
    return np.array([value_errors(str(reference), str(prediction)) for reference, prediction in pairs], dtype=float)


def _moments(dimension: str, prediction: Answer, outcome: Outcome) -> NDArray:
    """Counts, sums, squares and products of one rating (all, where none is named), about the middle of the scale."""
    names, scale = prediction.score_names, prediction.scale_ends
    if scale is None:
        raise ValueError("Expected ratings on a scale, found none. Score whole draws.")
    columns = [names.index(dimension)] if dimension else range(len(names))
    parts = []
    for column in columns:
        truth, given = (np.array(side, dtype=float)[:, column] for side in (outcome.references, outcome.predictions))
        middle = np.mean(scale)  # far from it, squares would lose digits
        x, y = truth - middle, given - middle
        parts.append(np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1))
    return np.hstack(parts)


def _per_dimension(measure: Callable[..., NDArray], totals: NDArray) -> NDArray:
    """Return a measure of ratings, averaged over the dimensions whose moments stand side by side."""
    found = []
    for part in np.split(totals, totals.shape[-1] // 6, axis=-1):
        count, x, y, xx, yy, xy = np.moveaxis(part / part[..., :1], -1, 0)
        found.append(measure(x, y, xx - x * x, yy - y * y, xy - x * y, count))
    return np.mean(found, axis=0)


def _concordance(x: NDArray, y: NDArray, var_x: NDArray, var_y: NDArray, covariance: NDArray, _: NDArray) -> NDArray:
    return 2 * covariance / np.maximum(var_x + var_y + (x - y) ** 2, 1e-300)


def _pearson(_x: NDArray, _y: NDArray, var_x: NDArray, var_y: NDArray, covariance: NDArray, _: NDArray) -> NDArray:
    return np.clip(covariance / np.sqrt(np.maximum(var_x * var_y, 1e-300)), -1, 1)


def _rmse(x: NDArray, y: NDArray, var_x: NDArray, var_y: NDArray, covariance: NDArray, _: NDArray) -> NDArray:
    return np.sqrt(np.maximum(var_x + var_y - 2 * covariance + (x - y) ** 2, 0))


_MEASURES: Mapping[str, Callable[..., NDArray]] = {"ccc": _concordance, "pearson": _pearson, "rmse": _rmse}
# metric -> what may be meant by it; what does not give the task's own score is not used
_TALLIES: dict[str, tuple[Tally, ...]] = {
    "wa": (Tally(_right, _share),),
    "acc": (Tally(_right, _share), Tally(_right_at_half, _share)),
    "acc_point": (Tally(_right, _share),),
    "ua": (Tally(_recalls, _mean_ratio),),
    "macro_f1": (Tally(_hits_and_seen, _f1),),
    "far": (Tally(partial(_wrong_of, 0), _share),),
    "frr": (Tally(partial(_wrong_of, 1), _share),),
    "wer": (Tally(partial(_errors, lambda found: (found.word_errors, found.words)), _share),),
    "per": (Tally(partial(_errors, lambda found: (found.word_errors, found.words)), _share),),  # phones apart as words are
    "slot_type_f1": (Tally(_slot_types, _share),),
    "slot_value_cer": (Tally(_slot_values, _share),),
    "cer": (Tally(partial(_errors, lambda found: (found.character_errors, found.characters)), _share),),
}
_TALLIES |= {f"{name}_beam": _TALLIES[name] for name in ("wer", "cer")}
RANKINGS: Mapping[str, Curve] = {"eer": equal_error, "auc": area}


def tallies_of(metric: str) -> tuple[Tally, ...]:
    """Return the sums that may stand behind a metric's name."""
    measure, _, dimension = metric.partition("_")
    if measure in _MEASURES:
        return (Tally(partial(_moments, dimension), partial(_per_dimension, _MEASURES[measure])),)
    return _TALLIES.get(metric, ())
