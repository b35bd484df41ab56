"""What a command prints: results go to stdout, everything else to stderr, and of a launch only the first process prints."""

from __future__ import annotations

import sys

from ...core.process import is_main, is_main_of_machine


def print_result(*lines: str) -> None:
    """Print lines of the result to stdout."""
    if lines and is_main():
        print(*lines, sep="\n", flush=True)


def print_note(*lines: str) -> None:
    """Print lines that are not the result to stderr."""
    if lines and is_main():
        print(*lines, sep="\n", file=sys.stderr, flush=True)


def print_error(message: object) -> None:
    """Print a user's mistake to stderr, once on each machine of a launch."""
    if is_main_of_machine():
        print(f"error: {message}", file=sys.stderr)
