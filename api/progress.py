"""Progress in a notebook: one line that changes, and is gone at the end."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

KEPT = ("note", "warning", "passed")  # what lines begin with that are worth reading afterwards


@contextmanager
def shown(quiet: bool | None) -> Iterator[bool]:
    """Give whether a run is quiet: None shows its progress in a notebook, as one line, and nothing elsewhere."""
    update = line_of_notebook() if quiet is None else None
    if update is None:
        yield quiet is not False
        return
    try:
        with redirect_stderr(LastLine(update)):
            yield False
    finally:
        update("")


def line_of_notebook() -> Callable[[str], None] | None:
    """Return what changes a line below the cell that is running; None where no notebook runs it."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    if getattr(get_ipython(), "kernel", None) is None:
        return None
    handle = display({"text/plain": "…"}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


class LastLine(io.TextIOBase):
    """A stream whose last line is shown; notes go where they would have gone."""

    def __init__(self, update: Callable[[str], None]) -> None:
        self.update, self.notes = update, sys.stderr

    def write(self, text: str) -> int:
        """Show the last line that has a word."""
        lines = [line for line in text.splitlines() if line.strip()]
        for line in [line for line in lines if line.startswith(KEPT)]:
            print(line, file=self.notes)
        if lines:
            self.update(lines[-1])
        return len(text)
