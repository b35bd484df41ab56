"""Hashed words: which words a text has, and vectors that are the same everywhere."""

from __future__ import annotations

import doctest

import numpy as np
import torch

from headwater.upstream.families.text import hashed_words
from headwater.upstream.families.text.hashed_words import vector_of, words_of
from headwater.upstream.load import load_upstream


def test_the_example_is_true() -> None:
    assert doctest.testmod(hashed_words).attempted == 1
    assert doctest.testmod(hashed_words).failed == 0


def test_words_are_lower_cased_letters_digits_and_inner_apostrophes() -> None:
    assert words_of("Don't 'panic' - it's OK_2!") == ["don't", "panic", "it's", "ok", "2"]
    assert words_of("DON\u2019T") == ["don't"], "a typographer's apostrophe is one"
    assert words_of("Scho\u0308n \u2026 \u6771\u4eac") == ["sch\u00f6n", "\u6771\u4eac"], "composed or not, a word is one word"
    assert words_of(" ,.!") == []


def test_a_words_vector_is_the_same_on_every_machine() -> None:
    assert vector_of("hello")[:12].tolist() == [-1, -1, 1, -1, 1, 1, -1, -1, 1, 1, 1, 1]  # 0x2cf, as sha256 begins


def test_vectors_have_variance_one_and_next_to_no_correlation() -> None:
    vectors = np.stack([vector_of(str(number)) for number in range(500)])
    assert np.all(vectors**2 == 1)
    assert abs(vectors.mean()) < 0.01
    correlation = vectors @ vectors.T / 256
    assert np.abs(correlation - np.eye(500)).max() < 0.4


def test_the_mean_over_time_is_a_bag_of_words() -> None:
    upstream = load_upstream("hashed_words")
    one, other = (upstream([text]).values[0].mean(dim=1) for text in ("No, I said no!", "said I no no"))
    assert torch.equal(one, other)
    assert not upstream.spec.centred


def test_an_empty_text_is_one_frame_of_zeros() -> None:
    layers = load_upstream("hashed_words")(["", "you and me"])
    assert layers.lengths == (1, 3)
    assert not bool(layers.values[0][0].any())
