"""Pieces of several requests in one forward: only where that changes no number, of like length, and no harm to a neighbour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.inference.folds import Folds
from headwater.inference.load import load_run
from headwater.inference.predict import Piece, batch_of
from headwater.inference.serving.gather import MOST_PADDING, Gathered, Gatherer, _Job, computes_together, groups_of
from headwater.plans.grid import expand, run_plan
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUICK = {"steps": 2, "batch_size": 8, "eval_every": 2}


def noise(seconds: float) -> np.ndarray:
    """Return some noise."""
    size = round(seconds * 16_000)
    return 0.1 * np.random.default_rng(size).standard_normal(size).astype(np.float32)


def test_folds_are_gathered_too(tones: Path, tmp_path: Path) -> None:
    rows = {"task": "emotion", "upstream": {"name": "fbank_no_cmvn"}, "corpus": {"data": str(tones)}, "training": QUICK}
    run_plan(expand(resolve([rows]), [1], [1, 2], []), tmp_path / "plan", Runtime("cpu", quiet=True))
    folds = load_run(tmp_path / "plan")
    assert isinstance(folds, Folds)
    pieces = [Piece(noise(seconds), None) for seconds in (0.3, 1.1, 0.7)]
    assert computes_together(folds)
    for piece, row in zip(pieces, folds.rows(batch_of(pieces)), strict=True):
        assert folds.joined([(1.0, row)])[1].numpy() == pytest.approx(folds.join([piece])[1].numpy(), abs=1e-5)


def test_a_model_whose_scores_depend_on_the_neighbours_gets_one_piece_at_a_time(tones: Path, tmp_path: Path) -> None:
    upstream = {"name": "test_hubert", "padding": "s3prl"}
    rows = {"task": "emotion", "upstream": upstream, "corpus": {"data": str(tones)}, "training": QUICK}
    run(resolve([rows]), tmp_path / "run", Runtime("cpu", quiet=True))
    found = load_run(tmp_path / "run")
    assert not computes_together(found)
    gathered = Gathered.started(found)
    waiting = [gathered.gatherer.submit(Piece(noise(seconds), None)) for seconds in (0.3, 1.1, 0.7)]
    assert len([row.result() for row in waiting]) == gathered.gatherer.forwards == 3
    gathered.gatherer.close()


def test_a_piece_that_a_model_fails_at_harms_no_other() -> None:
    def rows(batch: Any) -> list[float]:
        if any(length == 5000 for length in batch.lengths):
            raise RuntimeError("no memory")
        return [float(length) for length in batch.lengths]

    gatherer = Gatherer(rows, together=True)
    waiting = [gatherer.submit(Piece(np.zeros(size, np.float32), None)) for size in (4800, 5000, 4900)]
    assert [waiting[0].result(), waiting[2].result()] == [4800.0, 4900.0]
    with pytest.raises(RuntimeError, match="no memory"):
        waiting[1].result()
    gatherer.close()


def test_pieces_that_go_together_are_of_like_length() -> None:
    generator = np.random.default_rng(0)
    jobs = [_Job(Piece(np.zeros(int(size), np.float32), None), None) for size in generator.uniform(400, 320_000, 40)]  # type: ignore[arg-type]
    groups = [*groups_of(jobs)]
    assert sum(map(len, groups)) == 40
    assert 2 <= len(groups) < 20
    for group in groups:
        sizes = [job.size for job in group]
        assert sum(sizes) >= (1 - MOST_PADDING) * max(sizes) * len(sizes)
