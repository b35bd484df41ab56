"""What a command prints: results go to stdout, everything else to stderr, and of a launch only the first process prints."""

from __future__ import annotations

import sys

from ...core.process import is_main, is_main_of_machine
from ...core.text import printable


def print_result(*lines: str) -> None:
    """Print lines of the result to stdout."""
    if lines and is_main():
        # into a file or a pipe they go as they are
        print(*(map(printable, lines) if sys.stdout.isatty() else lines), sep="\n", flush=True)


def print_note(*lines: str) -> None:
    """Print lines that are not the result to stderr."""
    if lines and is_main():
        print(*map(printable, lines), sep="\n", file=sys.stderr, flush=True)


def print_error(message: object) -> None:
    """Print a user's mistake to stderr, once on each machine of a launch."""
    if is_main_of_machine():
        print(f"error: {printable(str(message))}", file=sys.stderr)
