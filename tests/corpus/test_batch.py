"""Which utterances make a step, and how a step is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example, as_batch, cut_pieces, deal, derive_seed, draw, sampling_weights


def examples(count: int, seed: int = 0) -> list[Example]:
    """Utterances of IEMOCAP-like lengths."""
    seconds = np.clip(np.random.default_rng(seed).lognormal(np.log(4.5), 0.6, count), 1, 15)
    return [Example(Utterance(str(row), f"{row}.wav"), float(length)) for row, length in enumerate(seconds)]


def test_an_epoch_draws_every_row_once() -> None:
    rows = [row for step in range(5) for row in draw(40, 8, seed=3, step=step)]
    assert sorted(rows) == list(range(40))


def test_epochs_are_ordered_differently() -> None:
    assert draw(40, 40, seed=3, step=0) != draw(40, 40, seed=3, step=1)


def test_a_step_larger_than_the_corpus_repeats_rows_evenly() -> None:
    counts = np.bincount(draw(5, 13, seed=0, step=4), minlength=5)
    assert counts.sum() == 13
    assert counts.max() - counts.min() <= 2


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    torch.manual_seed(1)
    first = draw(100, 16, seed=5, step=7)
    torch.manual_seed(2)
    draw(100, 16, seed=5, step=3)
    assert draw(100, 16, seed=5, step=7) == first


def test_weights_decide_how_often_a_row_is_drawn() -> None:
    weights = torch.tensor([1.0, 9.0], dtype=torch.float64)
    rows = [row for step in range(200) for row in draw(2, 10, seed=0, step=step, weights=weights)]
    assert np.mean(rows) == pytest.approx(0.9, abs=0.03)


def test_equal_weights_are_no_weights() -> None:
    assert sampling_weights(examples(3)) is None


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_a_step_without_loss(processes: int) -> None:
    rows = examples(31)
    shares = [deal(rows, processes, process) for process in range(processes)]
    assert sorted(example.utterance.id for share in shares for example in share) == sorted(row.utterance.id for row in rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_pieces_keep_every_utterance_under_the_budget() -> None:
    rows = examples(200)
    pieces = cut_pieces(rows, seconds=60)
    assert sorted(example.utterance.id for piece in pieces for example in piece) == sorted(row.utterance.id for row in rows)
    assert all(len(piece) == 1 or len(piece) * max(example.seconds for example in piece) <= 60 for piece in pieces)


def test_sorted_pieces_pad_at_most_five_percent_of_a_split() -> None:
    rows = examples(5531)
    padded = sum(len(piece) * max(example.seconds for example in piece) for piece in cut_pieces(rows, seconds=60))
    assert padded / sum(example.seconds for example in rows) < 1.05


def test_pieces_of_a_size_keep_the_order_when_not_sorted() -> None:
    rows = examples(10)
    pieces = cut_pieces(rows, seconds=1e9, size=4, sort=False)
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert [example for piece in pieces for example in piece] == rows


def test_an_utterance_longer_than_the_budget_is_a_piece_of_its_own() -> None:
    assert [len(piece) for piece in cut_pieces(examples(4), seconds=0.1)] == [1, 1, 1, 1]


def test_seeds_differ_by_every_part() -> None:
    assert len({derive_seed(*parts) for parts in [(1, "a"), (1, "b"), (2, "a"), ("1a",), (1, "a", 0)]}) == 5


def test_waveforms_are_padded_once_with_zeros() -> None:
    batch = as_batch([np.ones(3, dtype=np.float32), np.ones(5, dtype=np.float32)])
    assert batch.lengths == (3, 5)
    assert batch.waveforms is not None
    assert batch.waveforms[0].tolist() == [1, 1, 1, 0, 0]


def test_a_stereo_waveform_is_named() -> None:
    with pytest.raises(ValueError, match=r"1-d waveforms, found shape \(2, 5\) at position 1"):
        as_batch([np.ones(5), np.ones((2, 5))])
