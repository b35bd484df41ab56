"""The phones of an utterance: those of its table, or of its words in a lexicon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ...core.errors import UserError
from ...corpus.base import Utterance
from ..spelling import plain_text

_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N"),
    *("NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
_NO_SPEECH = ("SIL", "SPN")  # silence and noise


def arpabet(stress: bool) -> list[str]:
    """Return the phones of ARPAbet as LibriSpeech's lexicons have them, silence and noise too: 71, or 41 without stress.

    >>> len(arpabet(stress=True)), len(arpabet(stress=False))
    (71, 41)
    """
    vowels = [f"{vowel}{mark}" for vowel in _VOWELS for mark in ("012" if stress else [""])]
    return sorted([*vowels, *_CONSONANTS, *_NO_SPEECH])


def phones_of(vocabulary: Mapping[str, Any], utterance: Utterance) -> str | None:
    """Return an utterance's phones with a space between them; None where it has none, or a word that is in no lexicon."""
    if vocabulary["column"] is not None:
        cell = utterance.labels.get(vocabulary["column"])
        if cell is None:
            return None
        if not isinstance(cell, str | list):
            raise UserError(
                f"Expected phones with a space between them in column '{vocabulary['column']}' of '{utterance.id}', "
                f"found {str(cell)[:60]}. Mend its row, or name another column: -o labels.column=HEADER"
            )
        phones = " ".join(map(str, cell) if isinstance(cell, list) else cell.split())
    else:
        words = words_of(utterance)
        if words is None or not vocabulary["lexicon"].keys() >= {*words}:
            return None
        phones = " ".join(vocabulary["lexicon"][word] for word in words)
    return phones if vocabulary["stress"] else without_stress(phones)


def words_of(utterance: Utterance) -> list[str] | None:
    """Return the words of an utterance's transcript as a lexicon spells them; None where it has none."""
    return None if utterance.text is None else plain_text(utterance.text, "upper").split()


def missing_words(lexicon: Mapping[str, str], utterances: Iterable[Utterance]) -> Counter[str]:
    """Return the words of transcripts that are not in a lexicon, and how often they are said."""
    return Counter(word for row in utterances for word in words_of(row) or () if word not in lexicon)


def without_stress(phones: str) -> str:
    """Return phones without the digits of ARPAbet's stress.

    >>> without_stress("HH AH0 L OW1")
    'HH AH L OW'
    """
    return " ".join(phone.rstrip("012") or phone for phone in phones.split())
