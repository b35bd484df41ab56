"""Spelling of texts: one form for all of them, characters as numbers, and the errors of a prediction."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BLANK = 0  # characters count from 1
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


def encode(characters: Sequence[str], text: str) -> list[int]:
    """Return the numbers of a text's characters; those that nothing stands for are left out."""
    places = _places(tuple(characters))
    return [places[sign] for sign in text if sign in places]


@lru_cache(maxsize=8)
def _places(characters: tuple[str, ...]) -> dict[str, int]:
    return {sign: place for place, sign in enumerate(characters, start=1)}


def decode(characters: Sequence[str], best: Sequence[int]) -> str:
    """Return the text that the best character of each frame spells: repeats are one, blanks are nothing."""
    spelt = "".join(characters[place - 1] for place, _ in groupby(best) if place != BLANK)
    return " ".join(spelt.split())


def frames_needed(spelt: Sequence[int]) -> int:
    """Return how many frames a text takes at least: one for each character, and a blank between two alike."""
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
