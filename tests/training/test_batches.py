"""Steps of utterances of like length."""

from __future__ import annotations

from collections import Counter

import numpy as np

from headwater.training.batches import draw, draw_of_like_length

SECONDS = list(np.random.default_rng(0).uniform(1, 20, 70))


def steps_of(count: int, bucket: int) -> list[list[int]]:
    return [draw_of_like_length(SECONDS, 8, 3, step, bucket) for step in range(count)]


def test_a_bucket_holds_what_its_steps_would_have_drawn_one_by_one() -> None:
    for first in (0, 5, 10):
        together = Counter(row for step in steps_of(15, 5)[first : first + 5] for row in step)
        alone = Counter(row for step in range(first, first + 5) for row in draw(len(SECONDS), 8, 3, step))
        assert together == alone


def test_a_step_from_a_bucket_is_of_like_length_and_a_function_of_seed_and_step() -> None:
    spread = [np.ptp([SECONDS[row] for row in step]) for step in steps_of(20, 5)]
    alone = [np.ptp([SECONDS[row] for row in draw(len(SECONDS), 8, 3, step)]) for step in range(20)]
    assert np.mean(spread) < 0.5 * np.mean(alone)
    assert steps_of(20, 5)[13] == draw_of_like_length(SECONDS, 8, 3, 13, 5)
    lengths = [np.mean([SECONDS[row] for row in step]) for step in steps_of(5, 5)]
    assert lengths != sorted(lengths)  # the steps of a bucket come in a drawn order
