"""Texts with slots, `PLAY [artist: THE BEATLES] NOW`: read, written, made of tags, split into tokens, and scored."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ...core.errors import UserError
from ...corpus.base import Utterance
from ..spelling import count_errors, joined, plain_text

Piece = tuple[str, str]  # the name of a slot, "" outside of any; its words
_SLOT = re.compile(r"\[\s*([^\s\[\]:]+)\s*:([^\[\]]*)\]")
_BRACKETS = re.compile(r"[\[\]]")
_TAG = re.compile(r"[BI]-(?=.)")  # in front of a slot's name, where tags tell the first word of a slot from the others
OUTSIDE, TAGS = "O", "iob"  # the tag of a word in no slot; the column of tags


def pieces_of(vocabulary: Mapping[str, Any], utterance: Utterance) -> list[Piece] | None:
    """Return what is said and which slots it fills, in the form that is trained and scored; None where nothing tells."""
    if vocabulary["column"] == TAGS:
        tags = utterance.labels.get(TAGS)
        if tags is None or utterance.text is None:
            return None
        words = utterance.text.split()
        pieces = pieces_of_tags(words, tags if isinstance(tags, list) else str(tags).split(), utterance.id)
    else:
        cell = utterance.labels.get(vocabulary["column"])
        if cell is None:
            return None
        pieces = read(str(cell), utterance.id)
    plain = [(name, plain_text(words, vocabulary["normalize"])) for name, words in pieces]
    return [(name, words) for name, words in plain if words]


def read(text: str, where: str) -> list[Piece]:
    """Return the pieces of a text with slots.

    >>> read("play [artist: the beatles] now", "u1")
    [('', 'play'), ('artist', 'the beatles'), ('', 'now')]
    """
    pieces, place = [], 0
    for slot in _SLOT.finditer(text):
        pieces += [("", text[place : slot.start()]), (slot[1], slot[2])]
        place = slot.end()
    pieces.append(("", text[place:]))
    wrong = next((words for name, words in pieces if not name and _BRACKETS.search(words)), None)
    if wrong is not None:
        raise UserError(
            f"Expected slots such as `play [artist: the beatles] now`, found '{wrong.strip()[:60]}' in '{where}'. "
            "Mend its brackets: a slot holds none, and its name neither space nor colon."
        )
    return [(name, words.strip()) for name, words in pieces if words.strip()]


def pieces_of_tags(words: Sequence[str], tags: Sequence[str], where: str) -> list[Piece]:
    """Return the pieces of words with a tag each: `O`, a slot's name, or that behind B- (its first word) and I-."""
    if len(words) != len(tags):
        raise UserError(
            f"Expected a tag for each of the {len(words)} words of '{where}' (O O artist artist), found {len(tags)}. "
            "Mend its row."
        )
    pieces: list[Piece] = []
    for word, tag in zip(words, tags, strict=True):
        name = "" if tag == OUTSIDE else re.sub(r"[\[\]:]", "", _TAG.sub("", tag, count=1))
        word = _BRACKETS.sub(" ", word)
        if pieces and pieces[-1][0] == name and not (name and tag.startswith("B-")):
            pieces[-1] = (name, f"{pieces[-1][1]} {word}")
        else:
            pieces.append((name, word))
    return pieces


def written(pieces: Iterable[Piece]) -> str:
    """Return pieces as a text with slots.

    >>> written([("", "PLAY"), ("artist", "QUEEN")])
    'PLAY [artist: QUEEN]'
    """
    return " ".join(f"[{name}: {words}]" if name else words for name, words in pieces)


def tokens_of(text: str) -> list[str]:
    """Return the characters of a text, and a token where a slot begins and where it ends.

    >>> tokens_of("A [x: B]")
    ['A', ' ', 'B-x', 'B', 'E-x']
    """
    tokens: list[str] = []
    for name, words in read(text, text):
        tokens += [" "] * bool(tokens) + ([f"B-{name}", *words, f"E-{name}"] if name else [*words])
    return tokens


def text_of(tokens: Sequence[str]) -> str:
    """Return tokens as a text: a slot is what stands between its beginning and the next end of the same name, if anything does.

    >>> text_of(["B-x", "A", "B-y", "E-x", "E-y", "B"])
    '[x: A] B'
    """
    pieces: list[Piece] = []
    place = outside = 0  # what is read so far, and where the words outside of slots begin
    while place < len(tokens):
        name = tokens[place][2:] if tokens[place].startswith("B-") else ""
        end = next((at for at in range(place + 1, len(tokens)) if tokens[at] == f"E-{name}"), None) if name else None
        words = "" if end is None else _characters(tokens[place:end])
        if end is not None and words:
            pieces += [("", _characters(tokens[outside:place])), (name, words)]
            outside = end + 1
            place = end
        place += 1
    pieces.append(("", _characters(tokens[outside:])))
    return written((name, words) for name, words in pieces if words)


def _characters(tokens: Sequence[str]) -> str:
    return joined([token for token in tokens if len(token) == 1])


@lru_cache(maxsize=2**17)  # an interval reads the same predictions a thousand times
def slots_of(text: str) -> tuple[Piece, ...]:
    """Return the slots of a text, in order: name and words."""
    return tuple((name, words) for name, words in read(text, text) if name)


def type_f1(reference: str, prediction: str) -> float:
    """Return the F1 of the names of slots, each counted once: 1 where neither text has any (SUPERB's)."""
    expected, found = ({name for name, _ in slots_of(text)} for text in (reference, prediction))
    return 2 * len(expected & found) / (len(expected) + len(found)) if expected or found else 1.0


@lru_cache(maxsize=2**17)
def value_errors(reference: str, prediction: str) -> tuple[int, int]:
    """Return edits and characters of the reference's slots, each beside the nearest of its name, or nothing (SUPERB's)."""
    edits = characters = 0
    for name, words in slots_of(reference):
        candidates = [value for other, value in slots_of(prediction) if other == name] or [""]
        edits += min(count_errors(words, value).character_errors for value in candidates)
        characters += len(words)
    return edits, characters
