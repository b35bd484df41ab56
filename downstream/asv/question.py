"""Speaker verification as a question: trials between utterances of speakers whom training has never heard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ...core.options import ABOVE_0, BETWEEN_0_AND_1
from ...corpus.base import Corpus, Utterance
from .. import metrics
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig
from .answer import Embedding
from .trials import Scored, make_trials, require_both, score_trials

METRICS: Mapping[str, Literal["higher", "lower"]] = {
    "eer": "lower",  # equal error rate
    "min_dcf": "lower",  # the least detection cost
}


@dataclass(frozen=True)
class TrialsConfig:
    """The part of the `asv:` section that scores are made with."""

    dim: Annotated[int, ABOVE_0] = 512  # of the projection, the layers and the embedding
    s_norm: Annotated[int, ABOVE_0] | None = None  # so many training speakers, the nearest, normalise a score; None: cosines
    p_target: Annotated[float, BETWEEN_0_AND_1] = 0.01  # of min_dcf: the share of trials of one speaker that is assumed
    max_trials: Annotated[int, ABOVE_0] = 40_000  # of a split that has no list: all pairs, or a draw of so many


def make_vocabulary(options: TrialsConfig, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the training speakers, and what scores are made with."""
    for name, value in vars(labels).items():
        if value not in (None, ""):
            raise UserError(f"Expected no labels.{name} for asv, whose labels are the speakers, found {value}. Leave it out.")
    speakers = sorted({row.speaker for row in corpus.splits["train"] if row.speaker})
    if len(speakers) < 2:
        known = f"only {speakers[0]}" if speakers else "none"
        raise UserError(
            f"Expected at least two speakers in split 'train' of {corpus.name}, since asv learns to tell them apart, found "
            f"{known}. In your own table they stand in a column 'speaker' (or -o corpus.options.columns.speaker=HEADER)."
        )
    return {
        "speakers": speakers,
        "dim": options.dim,
        "s_norm": options.s_norm,
        "p_target": options.p_target,
        "max_trials": options.max_trials,
        "threshold": 0.5,
    }


def select(_: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances whose speaker is known."""
    return [utterance for utterance in utterances if utterance.speaker]


def target(_: Mapping[str, Any], utterance: Utterance) -> str:
    """Return the speaker; the loss knows which number that is."""
    assert utterance.speaker, f"'{utterance.id}' has no speaker: select() leaves such utterances out"
    return utterance.speaker


def answer(vocabulary: Mapping[str, Any]) -> Embedding:
    """Return an embedding as the kind of answer."""
    return Embedding(vocabulary["dim"], vocabulary["threshold"], normalizes=vocabulary["s_norm"] is not None)


def make_tables(most: int, split: str, utterances: Sequence[Utterance]) -> Tables:
    """Return the trials of a split that comes without a list of them."""
    known = select({}, utterances)
    trials = make_trials([row.id for row in known], [str(row.speaker) for row in known], most)
    require_both(trials, split)
    return {"trials": trials}


def scorer(vocabulary: Mapping[str, Any], outcome: Outcome, tables: Tables) -> Callable[[NDArray], dict[str, float]]:
    """Return a function that scores a draw of an outcome's rows: every metric of the trials between the speakers drawn."""
    scored = score_trials(outcome, tables["trials"], vocabulary["s_norm"] is not None)
    return lambda rows: metrics_of(vocabulary, scored, scored.weights(np.bincount(rows, minlength=len(outcome.ids))))


def score(vocabulary: Mapping[str, Any], outcome: Outcome, tables: Tables) -> dict[str, float]:
    """Return every metric of a whole split."""
    return scorer(vocabulary, outcome, tables)(np.arange(len(outcome.ids)))


def metrics_of(vocabulary: Mapping[str, Any], trials: Scored, weights: NDArray) -> dict[str, float]:
    """Return every metric of trials that count so often; not a number where those of one kind are missing."""
    if not (weights[trials.is_target].any() and weights[~trials.is_target].any()):
        return dict.fromkeys(METRICS, math.nan)
    return {
        "eer": metrics.equal_error_rate(trials.is_target, trials.scores, weights)[0],
        "min_dcf": metrics.min_detection_cost(trials.is_target, trials.scores, vocabulary["p_target"], weights),
    }


def calibrate(vocabulary: Mapping[str, Any], outcome: Outcome, tables: Tables) -> dict[str, Any]:
    """Return the vocabulary with the threshold at which dev's trials have as many misses as false alarms."""
    scored = score_trials(outcome, tables["trials"], vocabulary["s_norm"] is not None)
    if scored.is_target.all() or not scored.is_target.any():
        return dict(vocabulary)
    return {**vocabulary, "threshold": metrics.equal_error_rate(scored.is_target, scored.scores)[1]}


def question_of(options: TrialsConfig) -> Question:
    """Return the question with the trials that the options ask for."""
    return Question(
        name="asv",
        metrics=METRICS,
        primary_metric="eer",
        make_vocabulary=make_vocabulary,
        select=select,
        target=target,
        answer=answer,
        score=score,
        scorer=scorer,
        calibrate=calibrate,
        placed="threshold",
        tables=("trials",),
        make_tables=partial(make_tables, options.max_trials),
        label=False,
    )


QUESTION = question_of(TrialsConfig())
