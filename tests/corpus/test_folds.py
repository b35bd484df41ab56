"""Draws, folds and the choice of a dev part."""

from __future__ import annotations

import random

from headwater.corpus.base import Utterance
from headwater.corpus.folds import choose_dev, compare_counts, deal, in_drawn_order, random_folds

UTTERANCES = [Utterance(f"u{number}", "a.wav", speaker=f"s{number % 7}") for number in range(70)]


def test_a_drawn_order_does_not_depend_on_the_order_of_what_comes_in() -> None:
    names = [f"n{number}" for number in range(50)]
    shuffled = random.Random(3).sample(names, 50)
    assert in_drawn_order(shuffled, 1) == in_drawn_order(names, 1)
    assert in_drawn_order(names, 1) != in_drawn_order(names, 2)
    assert in_drawn_order(names, 1) != names


def test_a_drawn_order_is_the_same_for_ever() -> None:
    assert in_drawn_order("abcdef", 0) == ["f", "d", "a", "c", "b", "e"]


def test_groups_that_are_dealt_have_even_sizes() -> None:
    assert [len(group) for group in deal([str(n) for n in range(11)], 4)] == [3, 3, 3, 2]


def test_random_folds_test_each_utterance_once() -> None:
    folds = [random_folds(UTTERANCES, fold) for fold in range(1, 11)]
    tested = [row.id for splits in folds for row in splits["test"]]
    assert sorted(tested) == sorted(row.id for row in UTTERANCES)
    assert {len(splits["train"]) for splits in folds} == {56}


def test_dev_is_whole_speakers_where_they_are_known() -> None:
    parts, note = choose_dev(UTTERANCES)
    assert len(parts["dev"]) == 10
    assert not {row.speaker for row in parts["dev"]} & {row.speaker for row in parts["train"]}
    assert "1 of the 7 training speakers" in note


def test_dev_of_two_speakers_is_drawn_with_a_note() -> None:
    parts, note = choose_dev([row for row in UTTERANCES if row.speaker in {"s0", "s1"}])
    assert (len(parts["train"]), len(parts["dev"])) == (18, 2)
    assert "only 2 training speakers" in note


def test_only_counts_that_differ_are_named() -> None:
    assert compare_counts("X", {"a": 1, "b": 2}, {"a": 1, "b": 2}) == ()
    notes = compare_counts("X", {"a": 1, "c": 5}, {"a": 1, "b": 2})
    assert notes == ("X differs from the release: b 0 instead of 2, c 5 instead of 0",)
