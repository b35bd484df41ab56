"""What the podcasts of the demo say: small grammars whose words are graded from awful (-2) to wonderful (2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

TOPICS = {
    "food": ("dinner", "soup", "kitchen", "cake"),
    "film": ("movie", "actor", "story", "music"),
    "travel": ("trip", "hotel", "beach", "flight"),
    "work": ("office", "meeting", "project", "boss"),
    "sport": ("game", "team", "coach", "season"),
    "school": ("teacher", "exam", "class", "book"),
    "garden": ("garden", "weather", "summer", "tree"),
    "city": ("city", "street", "house", "market"),
}
_ADJECTIVES = {
    2: ("wonderful", "amazing", "fantastic", "beautiful"),
    1: ("good", "nice", "pleasant"),
    0: ("long", "different", "ordinary", "quiet"),
    -1: ("bad", "boring", "annoying"),
    -2: ("terrible", "awful", "horrible", "disgusting"),
}
_VERBS = {
    2: ("love", "adore"),
    1: ("like", "enjoy"),
    0: ("remember", "know"),
    -1: ("dislike", "avoid"),
    -2: ("hate", "regret"),
}
_EVENTS = {
    2: ("we are so happy", "it is a dream come true"),
    1: ("we had some fun", "it turned out well"),
    0: ("we went there on Monday", "it took about an hour"),
    -1: ("we had some trouble", "it did not work"),
    -2: ("everybody was crying", "it was a disaster"),
}
_PATTERNS = (
    "the {noun} was {adjective}",
    "{event} because of the {noun}",
    "{event} and the {noun} was {adjective}",
    "I {verb} the {noun} because it was {adjective}",
    "I {verb} that {adjective} {noun}",
    "that {adjective} {noun} was all we talked about and {event}",
)
_MIXED = ("the {noun} was {adjective} but {event}", "I {verb} the {noun} but it was {adjective}")
_OPENERS = ("Well,", "You know,", "I mean,", "So,", "Honestly,", "And", "", "", "")
_TAILS = ("last week", "back then", "in the end", "for us", "that day", "", "", "", "")


def graded_sentence(grade: int, topic: str, generator: np.random.Generator, mixed: float = 0.08) -> str:
    """Return a sentence whose words have a grade from -2 to 2; with probability `mixed` it says two things at once."""
    two_sided = generator.random() < mixed
    grades = [grade, -grade if grade else 1] if two_sided else [grade, grade]
    first, second = (grades[index] for index in generator.permutation(2))
    pattern = one_of(_MIXED if two_sided else _PATTERNS, generator)
    # in each mixed pattern the words take different sides
    sides = {"adjective": first, "verb": second, "event": second}
    words = {"noun": one_of(TOPICS[topic], generator)}
    lexicon: dict[str, Mapping[int, Sequence[str]]] = {"adjective": _ADJECTIVES, "verb": _VERBS, "event": _EVENTS}
    words |= {slot: one_of(lexicon[slot][side], generator) for slot, side in sides.items()}
    parts = (one_of(_OPENERS, generator), pattern.format(**words), one_of(_TAILS, generator))
    sentence = " ".join(part for part in parts if part)
    return f"{sentence[0].upper()}{sentence[1:]}."


def one_of(words: Sequence[str], generator: np.random.Generator) -> str:
    """Return one of the words."""
    return words[int(generator.integers(len(words)))]


def misheard(text: str, share: float, generator: np.random.Generator) -> str:
    """Return a sentence as a recogniser may hear it: this share of its words left out or taken for others."""
    every = [word for grammar in (_ADJECTIVES, _VERBS) for words in grammar.values() for word in words]
    every += [noun for nouns in TOPICS.values() for noun in nouns]
    result = []
    for word in text.replace(",", "").rstrip(".").lower().split():
        wrong = generator.random() < share
        if not wrong or generator.random() < 2 / 3:
            result.append(one_of(every, generator) if wrong else word)
    return " ".join(result)
