"""What is padded together in an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator

from headwater.downstream.base import Outcome
from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import Prepared, prepare
from headwater.training.loop import evaluate


@pytest.fixture(scope="module")
def prepared(tones: Path) -> Prepared:
    mapping = {
        "task": "emotion",
        "upstream": {"name": "test_hubert", "padding": "s3prl"},
        "corpus": {"data": str(tones)},
        "training": {"piece_size": 8, "piece_seconds": 1e6, "sort_pieces": False},
    }
    return prepare(resolve([mapping]))


def scores(prepared: Prepared, backwards: bool = False, **training: int) -> Outcome:
    task = prepared.tasks["emotion"]
    rows = task.splits["test"][::-1] if backwards else task.splits["test"]
    config = replace(prepared.config.training, **training)
    outcome = evaluate(prepared.model, replace(task, splits={"test": rows}), "test", Accelerator(cpu=True), config)
    return outcome.take(range(len(rows))[::-1]) if backwards else outcome


def test_one_by_one_a_score_does_not_depend_on_the_order_of_the_list(prepared: Prepared) -> None:
    forwards, backwards = (scores(prepared, order, eval_piece_size=1).scores for order in (False, True))
    assert forwards is not None
    assert backwards is not None
    assert forwards.equal(backwards)


def test_in_eights_that_are_padded_together_it_does(prepared: Prepared) -> None:
    forwards, backwards = (scores(prepared, order).scores for order in (False, True))
    assert forwards is not None
    assert backwards is not None
    assert not forwards.allclose(backwards, atol=1e-5)
