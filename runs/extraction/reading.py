"""Recordings read, hashed and cut in a thread, ahead of the model."""

from __future__ import annotations

import hashlib
import io
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...core.errors import UserError
from ...core.files import hash_file
from ...corpus.audio import header_seconds, read_complete
from ...corpus.base import Utterance
from ...corpus.fingerprints import row_key
from ...corpus.recordings.cut import utterances_of
from ...corpus.recordings.source import Recording
from .job import Failed, Stored

Item = TypeVar("Item")
AHEAD = 8  # utterances that are read before the model needs them


@dataclass(frozen=True)
class Reading:
    """One utterance as it was read: its samples, or why there are none."""

    recording: str
    is_last: bool  # of its recording
    utterance: Utterance
    key: str = ""
    samples: np.ndarray | None = field(default=None, repr=False)  # None: its row is there already, or it failed
    seconds: float = 0.0
    reason: str = ""  # why it failed

    @property
    def end(self) -> float | None:
        """Where the utterance ends in its file."""
        return None if self.utterance.duration is None else self.utterance.start + self.utterance.duration

    def stored(self) -> Stored:
        """Return the utterance as one that has a row."""
        row = self.utterance
        return Stored(row.id, row.audio, row.start, self.end, self.seconds, self.key)

    def failed(self, reason: str = "") -> Failed:
        """Return the utterance as one that has none."""
        row = self.utterance
        return Failed(row.id, row.audio, row.start, self.end, reason or self.reason)


@dataclass(frozen=True)
class Reader:
    """How recordings become utterances."""

    root: Path  # names are shortened to what lies below it
    stretch: float | None
    sample_rate: int
    has: Callable[[str], bool]  # whether a key's row is there already

    def read(self, recordings: Iterable[Recording]) -> Iterator[Reading]:
        """Yield the utterances of recordings; whatever is wrong with one is said in its place."""
        for recording in recordings:
            yield from self.of_one(recording)

    def of_one(self, recording: Recording) -> Iterator[Reading]:
        """Yield the utterances of one recording: the file is hashed once."""
        whole = Utterance(recording.name, recording.name)
        try:
            if recording.problem:
                raise UserError(recording.problem)
            rows = utterances_of(recording, self.stretch, self.root)
            digest = hash_file(recording.name) if recording.data is None else hashlib.sha256(recording.data).hexdigest()
        except UserError as problem:
            yield Reading(recording.name, True, whole, reason=str(problem))
            return
        for number, row in enumerate(rows, start=1):
            yield self.utterance(recording, row, digest, number == len(rows))

    def utterance(self, recording: Recording, row: Utterance, digest: str, is_last: bool) -> Reading:
        """Return one utterance; what has a row is not decoded."""
        try:
            key = row_key(digest, row, self.sample_rate)
            if self.has(key):
                return Reading(recording.name, is_last, row, key, seconds=seconds_of(recording, row))
            samples = read_complete(recording.name, row.start, row.duration, self.sample_rate, recording.data)
        except UserError as problem:
            return Reading(recording.name, is_last, row, reason=str(problem))
        return Reading(recording.name, is_last, row, key, samples, len(samples) / self.sample_rate)


def seconds_of(recording: Recording, row: Utterance) -> float:
    """Return how long an utterance is, of which nothing is decoded."""
    if row.duration is not None:
        return row.duration
    return header_seconds(recording.name, None if recording.data is None else io.BytesIO(recording.data)) - row.start


class _End:
    """What stands behind the last item: nothing, or what the thread met."""

    def __init__(self, problem: BaseException | None) -> None:
        self.problem = problem


def prefetched(items: Iterable[Item], most: int = AHEAD) -> Iterator[Item]:
    """Yield items that a thread makes ahead; what it meets is raised here."""
    found: queue.Queue[Item | _End] = queue.Queue(most)
    stop = threading.Event()

    def put(item: Item | _End) -> None:
        """Wait for room, as long as somebody takes items."""
        while not stop.is_set():
            with suppress(queue.Full):
                found.put(item, timeout=0.2)
                return

    def make() -> None:
        """Make all items."""
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_End(None))
        except BaseException as problem:  # it is raised in the thread that waits
            put(_End(problem))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while not isinstance(item := found.get(), _End):
            yield item
        if item.problem is not None:
            raise item.problem
    finally:
        stop.set()
        thread.join()
