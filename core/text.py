"""Text from files and names of others, as a terminal and a table can show it."""

from __future__ import annotations

import re

# C0 without tab and line end, DEL, C1, and the marks that turn the direction of writing: a terminal obeys them
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return a text whose control characters are spelled out.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def as_path(name: str) -> str:
    """Return a file's name for a cell of a table: one that a spreadsheet would take for a formula begins with `./`."""
    return printable(f"./{name}" if name.startswith(("=", "+", "-", "@")) else name)


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    >>> duration(42), duration(200), duration(1260), duration(30_000)
    ('42 s', '3 min 20 s', '21 min', '8.3 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole / 60:.0f} min" if whole < 7200 else f"{whole / 3600:.1f} h"
