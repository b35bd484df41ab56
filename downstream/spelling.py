"""Spelling of texts: one form for all of them, tokens as numbers, and the errors of a prediction."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BLANK = 0  # tokens count from 1
_MOST_NAMED = 5  # unseen tokens named in a result
_APOSTROPHES = dict.fromkeys(map(ord, "’ʼ＇"), "'")


def plain_text(text: str, normalize: str) -> str:
    """Return a text as it is trained and scored: one space between words and, unless 'none', capital letters without punctuation.

    Letters of any alphabet, digits and the apostrophes beside them are kept; everything else parts words.

    >>> plain_text("Don’t stop, well-known boys’ boat!", "upper")
    "DON'T STOP WELL KNOWN BOYS' BOAT"
    """
    if normalize == "none":
        return " ".join(text.split())
    folded = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).upper()
    kept = "".join(sign if sign == "'" or unicodedata.category(sign)[0] in "LMN" else " " for sign in folded)
    return " ".join(word for word in kept.split() if word.strip("'"))


def encode(tokens: Sequence[str], pieces: Iterable[str]) -> list[int]:
    """Return the numbers of a text's characters or other pieces; those that no token stands for are left out."""
    places = _places(tuple(tokens))
    return [places[piece] for piece in pieces if piece in places]


@lru_cache(maxsize=8)
def _places(tokens: tuple[str, ...]) -> dict[str, int]:
    return {token: place for place, token in enumerate(tokens, start=1)}


def read_greedily(tokens: Sequence[str], best: Sequence[int]) -> list[str]:
    """Return what the best token of each frame spells: repeats are one, blanks are nothing."""
    return [tokens[place - 1] for place, _ in groupby(best) if place != BLANK]


def joined(characters: Sequence[str]) -> str:
    """Return characters as a text, one space between words."""
    return " ".join("".join(characters).split())


def unseen_tokens(unit: str, tokens: Sequence[str], pieces: Iterable[str]) -> dict[str, str]:
    """Return which pieces of a split's references no prediction can have, since training had none of them: each is an error."""
    known = {*tokens}
    unseen = Counter(piece for piece in pieces if piece not in known)
    if not unseen:
        return {}
    named = " ".join(f"{piece} ({count})" for piece, count in unseen.most_common(_MOST_NAMED))
    return {f"{unit} unseen in training": named + " …" * (len(unseen) > _MOST_NAMED)}


def frames_needed(spelt: Sequence[int]) -> int:
    """Return how many frames a target takes at least: one for each token, and a blank between two alike."""
    return len(spelt) + sum(first == second for first, second in pairwise(spelt))


@dataclass(frozen=True)
class Errors:
    """Wrong, missing and added words and characters of a prediction, and how many there should have been."""

    word_errors: int
    words: int
    character_errors: int
    characters: int


@lru_cache(maxsize=2**17)  # an interval counts the same predictions a thousand times
def count_errors(reference: str, hypothesis: str) -> Errors:
    """Return the errors of one prediction, the fewest that turn it into the reference."""
    if not reference or not hypothesis:  # there is nothing to align
        words, characters = len((reference or hypothesis).split()), len(reference or hypothesis)
        return Errors(words, len(reference.split()), characters, len(reference))
    import jiwer

    by_word, by_character = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
    return Errors(_wrong(by_word), len(reference.split()), _wrong(by_character), len(reference))


def _wrong(found: Any) -> int:
    return found.substitutions + found.deletions + found.insertions


def error_rates(references: ArrayLike, hypotheses: ArrayLike) -> Mapping[str, float]:
    """Return word and character errors of a whole split over its words and characters; no number where it has none."""
    pairs = zip(np.asarray(references).tolist(), np.asarray(hypotheses).tolist(), strict=True)
    found = [count_errors(reference, hypothesis) for reference, hypothesis in pairs]
    words, characters = sum(each.words for each in found), sum(each.characters for each in found)
    return {
        "wer": sum(each.word_errors for each in found) / words if words else float("nan"),
        "cer": sum(each.character_errors for each in found) / characters if characters else float("nan"),
    }
