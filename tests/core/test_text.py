"""Names of others on a terminal and in a table."""

from __future__ import annotations

import sys

import pytest

from headwater.commands.common.console import print_error, print_note, print_result
from headwater.core.text import as_path, printable

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\r\x9b\u202e.wav"
SPELLED = r"a\x1b]0;owned\x07\x1b[2J\r\x9b\u202e.wav"


def test_control_characters_are_spelled_out_and_lines_and_words_are_not() -> None:
    assert printable(HOSTILE) == SPELLED
    assert printable("two\nlines\tand é 你 \U0001f600 \udcff") == "two\nlines\tand é 你 \U0001f600 \udcff"


@pytest.mark.parametrize(("name", "cell"), [("=1+1.wav", "./=1+1.wav"), ("-x.wav", "./-x.wav"), ("a=b.wav", "a=b.wav")])
def test_a_files_name_is_no_formula(name: str, cell: str) -> None:
    assert as_path(name) == cell


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    print_note(HOSTILE)
    print_error(HOSTILE)
    print_result(HOSTILE)  # into a pipe: as it is
    assert capsys.readouterr() == (f"{HOSTILE}\n", f"{SPELLED}\nerror: {SPELLED}\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_result(HOSTILE)
    assert capsys.readouterr().out == f"{SPELLED}\n"
