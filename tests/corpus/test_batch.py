"""Which utterances make a step, and how a step is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example, as_batch
from headwater.training.batches import cut_pieces, deal, derive_seed, draw, sampling_weights


def examples(count: int, seed: int = 0) -> list[Example]:
    """Utterances of IEMOCAP-like lengths."""
    seconds = np.clip(np.random.default_rng(seed).lognormal(np.log(4.5), 0.6, count), 1, 15)
    return [Example(Utterance(str(row), f"{row}.wav"), float(length)) for row, length in enumerate(seconds)]


def padding(pieces: list[list[Example]]) -> float:
    """Return padded seconds over real ones."""
    padded = sum(len(piece) * max(example.seconds for example in piece) for piece in pieces)
    return padded / sum(example.seconds for piece in pieces for example in piece)


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


def test_sorted_pieces_pad_next_to_nothing_of_a_split() -> None:
    rows = examples(5531)
    assert padding(cut_pieces(rows, seconds=60)) < 1.01


@pytest.mark.parametrize("batch_size", [8, 16, 32, 64])
def test_pieces_of_steps_pad_at_most_five_percent(batch_size: int) -> None:
    rows = examples(5531)
    steps = [cut_pieces([rows[row] for row in draw(5531, batch_size, 0, step)], seconds=60) for step in range(100)]
    assert padding([piece for step in steps for piece in step]) < 1.05
    assert sum(map(len, steps)) < 100 * batch_size * 0.65  # not one by one


def test_no_other_cut_takes_less() -> None:
    rows = sorted(examples(9), key=lambda example: -example.seconds)

    def cost(cuts: tuple[int, ...]) -> float:
        """Return what pieces between these places take; those too large are never taken."""
        pieces = [rows[start:end] for start, end in itertools.pairwise((0, *cuts, 9))]
        padded = [len(piece) * piece[0].seconds for piece in pieces]
        return sum(padded) + 2.0 * len(pieces) if max(padded) <= 25 and max(map(len, pieces)) <= 4 else float("inf")

    every = [cuts for count in range(9) for cuts in itertools.combinations(range(1, 9), count)]
    found = cut_pieces(rows, seconds=25, size=4, overhead=2.0)
    assert [example for piece in found for example in piece] == rows
    assert cost(tuple(np.cumsum([len(piece) for piece in found])[:-1])) == pytest.approx(min(map(cost, every)))


def test_very_short_utterances_stay_together() -> None:
    rows = [Example(Utterance(str(row), ""), 0.2 + 0.02 * row) for row in range(8)]
    assert len(cut_pieces(rows, seconds=60)) == 1


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
