"""What the device-directed demo says: commands, and talk between people that shares their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .talk import one_of

_WORDS: Mapping[str, Sequence[str]] = {
    "thing": ("lights", "radio", "heating", "television"),
    "room": ("kitchen", "bedroom", "living room", "hall"),
    "time": ("seven", "eight thirty", "noon"),
    "day": ("today", "tomorrow", "on Monday", "this evening", "at the weekend"),
    "who": ("Anna", "my sister", "the doctor", "Peter", "the office"),
    "sound": ("some jazz", "the news", "my playlist", "the next song", "that song"),
    "place": ("London", "Dublin", "the park"),
}
_COMMANDS = (
    "turn on the {thing} in the {room}",
    "turn off the {thing} in the {room}",
    "set an alarm for {time}",
    "set a timer for {time} please",
    "play {sound}",
    "call {who} please",
    "what is the weather {day} in {place}",
    "remind me to call {who} {day}",
    "add milk to my shopping list",
)
_CHATTER = (
    "and then {who} said it was too late",
    "did you see {who} {day}",
    "I heard {sound} when I was in {place}",
    "we left the {thing} on in the {room} again",
    "she told {who} about it {day}",
    "I think {who} will be there {day}",
    "well we had dinner in {place} with {who}",
    "he never listens to {who} anyway",
    "the weather was so bad {day} in {place}",
)


def command(generator: np.random.Generator, slip: float = 0.02) -> str:
    """Return something said to a device; with probability `slip` it sounds like talk to people."""
    return _filled(_CHATTER if generator.random() < slip else _COMMANDS, generator)


def chatter(generator: np.random.Generator, slip: float = 0.02) -> str:
    """Return something said to people; with probability `slip` it sounds like a command."""
    return _filled(_COMMANDS if generator.random() < slip else _CHATTER, generator)


def _filled(patterns: Sequence[str], generator: np.random.Generator) -> str:
    words = {slot: one_of(choices, generator) for slot, choices in _WORDS.items()}
    return one_of(patterns, generator).format(**words)
