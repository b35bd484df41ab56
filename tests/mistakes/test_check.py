"""Mistakes with `headwater check`."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at."""
    monkeypatch.setattr("headwater.checks.machine.examine", lambda _: {})


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--json run", "Expected to write 'run', found: Is a directory. Choose another place, or - for the terminal."),
        ("--json nowhere/out.json", "Expected to write 'nowhere/out.json', found: No such file or directory."),
        ("--jsn out.json", "Unknown argument '--jsn'. Did you mean '--json'?"),
    ],
)
def test_a_place_that_cannot_be_written_and_an_unknown_flag_are_one_line(
    error_of: Callable[..., str], typed: str, message: str
) -> None:
    assert message in error_of(f"headwater check {typed}")
