"""Speaker diarization as a question: the turns of each speaker, and the share of speech that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import UserError
from ...corpus.base import Corpus, Utterance
from ...corpus.rttm import LABEL, most_speakers
from ..base import Outcome, Question, Tables
from ..labels import LabelsConfig, refuse_classes
from .answer import Spoken, Turns, refuse_many
from .errors import count_errors, error_rate

COLLAR = 0.25  # seconds on each side of an end of a turn
THRESHOLDS, MEDIANS = (0.3, 0.4, 0.5, 0.6, 0.7), (1, 11)  # that dev chooses from, as s3prl's script tries (on test)
METRICS: Mapping[str, dict[str, Any]] = {
    "der": {},
    "der_collar": {"collar": COLLAR},
    "der_single": {"skip_overlap": True},
}


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return how many speakers are told apart: as many as a recording of training or dev has at most."""
    refuse_classes("sd", labels, "turns")
    require_turns(corpus)
    known = {split: select({}, corpus.splits.get(split, ())) for split in ("train", "dev")}
    speakers = options.speakers or most_speakers(known)
    refuse_many(speakers)
    return {"speakers": max(speakers, 1), "threshold": 0.5, "median": 1}


def require_turns(corpus: Corpus, splits: Sequence[str] = ("train", "dev")) -> None:
    """Refuse a corpus without turns, and a split in which nobody speaks."""
    for split in splits:
        if not any(row.labels.get(LABEL) for row in corpus.splits.get(split, ())):
            found = ", ".join(f"{name} {len(select({}, rows))}" for name, rows in corpus.splits.items())
            raise UserError(
                f"Expected recordings with turns in split '{split}' of {corpus.name}, found none (with turns: {found}). "
                "Use a folder of audio and RTTM files (--corpus rttm), or make one: headwater corpus mix."
            )


def select(_: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the recordings whose turns are known."""
    return [row for row in utterances if LABEL in row.labels]


def target(_: Mapping[str, Any], utterance: Utterance) -> Spoken:
    """Return the turns of a recording."""
    return Spoken(tuple((str(speaker), float(start), float(end)) for speaker, start, end in utterance.labels[LABEL]))


def answer(vocabulary: Mapping[str, Any]) -> Turns:
    """Return turns as the kind of answer, with what dev chose."""
    facts = {key: vocabulary[key] for key in ("threshold", "median", "frame_seconds") if key in vocabulary}
    return Turns(vocabulary["speakers"], **facts)


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return the error rate of a whole split: of all speech, without what lies near ends of turns, and of single speakers."""
    pairs = [(truth.turns, guess.turns) for truth, guess in zip(outcome.references, outcome.predictions, strict=True)]
    return {name: error_rate([count_errors(*pair, **settings) for pair in pairs]) for name, settings in METRICS.items()}


def calibrate(vocabulary: Mapping[str, Any], outcome: Outcome, _: Tables) -> dict[str, Any]:
    """Return the vocabulary with the threshold and the median that have the lowest error rate on dev."""
    if any(guess.activity is None for guess in outcome.predictions):
        return dict(vocabulary)
    tried = {}
    for threshold in THRESHOLDS:
        for median in MEDIANS:
            found = {**vocabulary, "threshold": threshold, "median": median}
            guesses = answer(found).decide(outcome.predictions)
            pairs = zip(outcome.references, guesses, strict=True)
            tried[threshold, median] = error_rate([count_errors(truth.turns, guess.turns) for truth, guess in pairs])
    threshold, median = min(tried, key=lambda chosen: (tried[chosen], abs(chosen[0] - 0.5), chosen[1]))
    return {**vocabulary, "threshold": threshold, "median": median}


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the run's own vocabulary, once another corpus is found to have turns."""
    refuse_classes("sd", labels, "turns")
    require_turns(corpus, [*corpus.splits])
    return dict(vocabulary), f"turns of up to {vocabulary['speakers']} speakers"


QUESTION = Question(
    name="sd",
    metrics=dict.fromkeys(METRICS, "lower"),
    primary_metric="der",
    make_vocabulary=make_vocabulary,
    select=select,
    target=target,
    answer=answer,
    score=score,
    calibrate=calibrate,
    adapt=adapt,
    label=False,
)
