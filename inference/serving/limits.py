"""How much a server takes on: of one request, and of all together."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...core.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What one request may bring, and how many may wait."""

    most_mb: float = 25.0  # of a request's body
    most_seconds: float = 300.0  # of a file's audio
    most_waiting: int = 256  # requests at once
    most_files: int = 64  # of a request
    most_held_mb: float = 1000.0  # of the bodies of all requests at once
    idle_seconds: float = 30.0  # without a byte of a body that was begun

    @property
    def most_bytes(self) -> int:
        """Bytes of a request's body."""
        return int(self.most_mb * 1e6)


class Refused(UserError):
    """A request that is refused, with its status."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Door:
    """Counts who is inside, and refuses whoever would be too many; of one thread, the event loop's."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.inside, self.held = 0, 0
        self.left: deque[float] = deque(maxlen=100)  # when the last ones left

    @contextmanager
    def entered(self) -> Iterator[Visit]:
        """Count a request, and the bytes of its body, for as long as it is inside."""
        if self.inside >= self.limits.most_waiting:
            raise self.full(f"{self.inside} that wait")
        visit = Visit(self)
        self.inside += 1
        try:
            yield visit
        finally:
            self.inside -= 1
            self.held -= visit.size
            self.left.append(time.monotonic())

    def full(self, found: str) -> Refused:
        """Return the refusal of one more, with the seconds in which those inside will be done, by the pace of the last ones."""
        pace = (self.left[-1] - self.left[0]) / (len(self.left) - 1) if len(self.left) > 1 else 0.1
        seconds = min(60, max(1, math.ceil(self.inside * pace)))
        return Refused(503, f"Expected room for one more request, found {found}. Try again in {seconds} s.", seconds)


@dataclass
class Visit:
    """A request that is inside."""

    door: Door
    size: int = 0  # bytes of its body so far

    def hold(self, size: int) -> None:
        """Count bytes of the body that came in."""
        self.size += size
        self.door.held += size
        if self.door.held > self.door.limits.most_held_mb * 1e6:
            raise self.door.full(f"bodies of {self.door.limits.most_held_mb:g} MB that wait")
