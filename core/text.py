"""Text from files and names of others, as a terminal and a table can show it."""

from __future__ import annotations

import re
from pathlib import Path

# C0 without tab and line end, DEL, C1, and the marks that turn the direction of writing: a terminal obeys them
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


# an absolute path: in quotes with whatever it holds, else of word characters; a web address has no slash behind a space
_QUOTED_PATH = re.compile("'/([^'\n]+)'")
_PATH = re.compile(r"(?<![\w/.:~<])/(?:[\w.@+~-]+/)+([\w.@+~-]+)")
_NUMBERED = re.compile(r"(seed|fold|layer)\d+")  # the folder of a plan's run: its name alone does not tell which


def without_folders(text: str) -> str:
    """Return a text for people on other machines: of an absolute path only its last part, of a plan's run two.

    >>> without_folders("Layers of /home/ann/models/whisper + /data/mtl/all/seed1")
    'Layers of whisper + all/seed1'
    """
    if text.startswith("/") and Path(text).parent != Path("/") and " + " not in text and "\n" not in text:
        return last_part(text)
    quoted = _QUOTED_PATH.sub(lambda found: f"'{last_part(found[1])}'", text)
    return _PATH.sub(lambda found: last_part(found[0]), quoted)


def last_part(path: str) -> str:
    """Return the last part of a path, with the one before it where it is a run of a plan."""
    parts = Path(path).parts
    return "/".join(parts[-2:] if _NUMBERED.fullmatch(parts[-1]) else parts[-1:])


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
