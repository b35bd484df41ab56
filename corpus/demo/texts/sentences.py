"""What the demo's actors say: small grammars whose words hint at the emotion and are shared between emotions."""

from __future__ import annotations

import numpy as np

# emotion -> openers and cores; an opener may stand in several lists, as in life
_GRAMMARS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "neutral": (
        ("Well,", "So,", "Okay,", "I think", "You know,", "Yes,"),
        (
            "the form is on the table",
            "we have to wait in this line",
            "the office opens at nine",
            "it is about an hour from here",
            "they sent the letter on Monday",
            "you can leave your bag here",
            "I have the address somewhere",
            "the train stops at this station",
        ),
    ),
    "happy": (
        ("Oh my God,", "You know,", "Yes,", "Guess what,", "I think", "Wow,"),
        (
            "I got the job",
            "we are getting married",
            "it was such a wonderful day",
            "they said yes to everything",
            "I love the way you look",
            "that is the best news of the year",
            "we had so much fun there",
            "she is coming home for the summer",
        ),
    ),
    "sad": (
        ("I know,", "Well,", "Oh my God,", "I think", "You know,", "No,"),
        (
            "he is never coming home",
            "I miss her every day",
            "there is nothing left for me here",
            "she died before I got there",
            "I did not even say goodbye",
            "it is all over between us",
            "I can not stop thinking about it",
            "nobody came to the station",
        ),
    ),
    "angry": (
        ("No,", "So,", "Oh my God,", "I know,", "Listen,", "Okay,"),
        (
            "I told you to leave me alone",
            "this is not my fault",
            "you lied to me again",
            "do not touch that letter",
            "I have been in this line for an hour",
            "I am sick of your excuses",
            "you never listen to me",
            "get out of my office",
        ),
    ),
}

WORDS_OF = {"neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry", "fru": "angry"}


def sentence_for(emotion: str, generator: np.random.Generator, own: float = 0.7) -> str:
    """Return a sentence: with probability `own` in the emotion's words, else in anybody's."""
    names = sorted(_GRAMMARS)
    chosen = emotion if generator.random() < own else names[generator.integers(len(names))]
    openers, cores = _GRAMMARS[chosen]
    opener = openers[generator.integers(len(openers))]
    core = cores[generator.integers(len(cores))]
    return f"{opener} {core}." if generator.random() < 0.6 else f"{core[0].upper()}{core[1:]}."
