"""Mistakes with speaker verification: one clear line each, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

ASV = "python run_downstream.py -d asv -u fbank --data tones/tones.csv QUICK"

# the mistake in words: what is typed, what the answer must say
TYPED = {
    "an option that is none": (
        f"{ASV} -o asv.dims=3",
        "Unknown option 'asv.dims'",
    ),
    "labels to keep": (f"{ASV} -o labels.keep='[low]'", "no labels.keep for asv, whose labels are the speakers"),
    "a text to read": (f"{ASV} --text-upstream hashed_words", "an upstream of audio alone for asv", "leave out --text-upstream"),
    "a corpus of others": (
        "python run_downstream.py -d asv -u fbank --corpus iemocap --demo",
        "Corpus 'iemocap' does not serve task 'asv'",
    ),
    "utterances that are all too short": (
        f"{ASV} -o asv.min_seconds=60",
        "training utterances that are long enough for asv.min_seconds=60, found none of 48",
    ),
    "a share that is none": (f"{ASV} -o asv.p_target=1", "'asv.p_target' between 0 and 1, found 1"),
    "a metric of another task": (f"{ASV} -o select_by=acc", "'select_by' to be one of eer, min_dcf, found 'acc'"),
    "a solver without a linear head": (f"{ASV} -o solver=exact", "Expected a task with a linear head for solver=exact"),
}


@pytest.mark.usefixtures("rated")
@pytest.mark.parametrize("mistake", TYPED)
def test_a_mistake_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = TYPED[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message
