"""The csv that grows, and what is written down beside it: kills, other folders, other names."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from headwater.commands.common.shell import LENIENT
from headwater.core.errors import UserError
from headwater.corpus.audio import check_files, read_audio
from headwater.corpus.base import Utterance
from headwater.inference.csv_journal import csv_line, growing, state_of

HEADER = ["file", "label"]
NO_UTF8 = os.fsdecode(b"caf\xe9.wav")


def night(path: Path, labels: dict[str, str], version: object = 1) -> list[str]:
    """Ask for files with an answer each (none: a broken one); what was computed comes back."""
    with growing(path, {}, HEADER) as table:
        todo = table.todo([*labels], lambda _: [version])
        for name in todo:
            assert isinstance(name, str)
            table.add(name, [name, labels[name]], failed=not labels[name])
    return [*map(str, todo)]


def labels_in(path: Path) -> dict[str, str]:
    """What stands in the csv."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["label"] for row in csv.DictReader(file)}


A_NIGHT = """
import json, os, signal, sys
from pathlib import Path
from headwater.inference.csv_journal import growing

kill, labels = sys.argv[1], json.loads(sys.argv[2])
rename = os.replace

def killed_here(*places):
    "Die where the csv is put in its place: before it is, or after."
    if kill == "after":
        rename(*places)
    os.kill(os.getpid(), signal.SIGKILL)

os.replace = killed_here
with growing(Path("l.csv"), {}, ["file", "label"]) as table:
    for name in table.todo([*labels], lambda _: [1]):
        table.add(name, [name, labels[name]], failed=not labels[name])
        if kill == name:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_night(kill: str, labels: Mapping[str, str]) -> None:
    """Ask in a process that dies by SIGKILL: with a file's row, or `before` or `after` the csv is put in its place."""
    done = subprocess.run([sys.executable, "-c", A_NIGHT, kill, json.dumps(labels)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that we are in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("broken", ["", "low"])
def test_a_kill_before_the_csv_is_put_in_place_leaves_it_for_the_next_night(broken: str) -> None:
    out = Path("l.csv")
    night(out, {"a": "low", "b": broken})
    killed_night("before", {"a": "low", "b": broken, "c": "high"})
    assert labels_in(out) == {"a": "low", "b": broken}
    for _ in range(2):
        assert "c" not in night(out, {"a": "low", "b": broken, "c": "high"})
        assert labels_in(out) == {"a": "low", "b": broken, "c": "high"}


def test_a_kill_before_the_first_csv_is_no_csv_that_was_taken_away() -> None:
    out = Path("l.csv")
    killed_night("before", {"a": "low", "b": "high"})
    with growing(out, {}, HEADER) as table:
        assert (table.todo(["a"], lambda _: [1]), table.notes) == ([], [])
    assert labels_in(out) == {"a": "low", "b": "high"}


def test_a_kill_loses_no_row_and_nothing_that_it_left_stays() -> None:
    killed_night("b", {"a": "low", "b": "high", "c": "low"})
    assert night(Path("l.csv"), {"a": "low", "b": "high", "c": "low"}) == ["c"]
    killed_night("before", {"a": "low", "d": "high"})
    assert night(Path("l.csv"), {"a": "low"}) == []
    assert sorted(os.listdir()) == [state_of(Path("l.csv")).name, "l.csv"]


def test_a_kill_behind_the_csv_and_then_others_leave_it_ours() -> None:
    labels = {"a": "low", "b": "high", "c": "low", "d": "high"}
    killed_night("after", {"a": "low"})
    for name in ("b", "c"):
        killed_night(name, labels)
    assert labels_in(Path("l.csv")) == {"a": "low"}
    assert night(Path("l.csv"), labels) == ["d"]
    assert labels_in(Path("l.csv")) == labels


def test_a_csv_that_a_kill_left_unconfirmed_can_be_taken_away() -> None:
    out = Path("l.csv")
    killed_night("after", {"a": "low", "b": "high"})
    night(out, {"a": "low"})
    out.unlink()
    with growing(out, {}, HEADER) as table:
        table.todo(["a"], lambda _: [1])
        assert "was taken away" in table.notes[0]
    assert labels_in(out) == {"a": "low"}


def test_a_csv_that_comes_back_after_a_kill_keeps_its_lines() -> None:
    out = Path("l.csv")
    night(out, {"a": "low", "b": "high"})
    out.rename("away.csv")
    killed_night("before", {"a": "low"})
    Path("away.csv").rename(out)
    with pytest.raises(UserError, match="as `headwater predict` left it, found it changed"):
        night(out, {"a": "low"})
    assert labels_in(out) == {"a": "low", "b": "high"}


def test_rows_that_cannot_be_read_are_one_line_and_what_it_says_helps() -> None:
    out = Path("l.csv")
    night(out, {"a": "low"})
    state_of(out).write_bytes(b"no database" * 500)
    with pytest.raises(UserError, match=r"the rows of 'l\.csv' in '\.l\.csv\.rows', found: file is not a database.*rm '\.l"):
        night(out, {"a": "low"})
    state_of(out).unlink()
    assert night(out, {"a": "low"}) == ["a"]
    assert labels_in(Path("l.old.csv")) == {"a": "low"}


def test_a_file_has_one_row_however_its_path_is_typed(here: Path) -> None:
    Path("rec").mkdir()
    night(Path("l.csv"), {"rec/a": "low"})
    for name in ("rec/../rec/a", f"{here}/rec/a", "./rec//a"):
        assert night(Path("l.csv"), {name: "high"}) == []
    assert night(Path("l.csv"), {f"{here}/rec/a": "high"}, version=2) == [f"{here}/rec/a"]
    assert labels_in(Path("l.csv")) == {f"{here}/rec/a": "high"}  # as it was typed for this answer


def test_another_file_of_the_same_relative_name_has_its_own_row_and_both_are_distinguished(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = here / "l.csv"
    for folder, label in (("one", "low"), ("two", "high")):
        (here / folder).mkdir()
        monkeypatch.chdir(here / folder)
        assert night(out, {"a": label, folder: label}) == ["a", folder]
    assert labels_in(out) == {f"{here}/one/a": "low", "one": "low", f"{here}/two/a": "high", "two": "high"}


def test_two_dots_behind_a_link_are_followed_as_the_system_does(here: Path) -> None:
    (here / "far" / "below").mkdir(parents=True)
    (here / "in").mkdir()
    (here / "in" / "link").symlink_to(here / "far" / "below")
    assert night(Path("l.csv"), {"in/a": "low", "in/link/../a": "high", "far/a": "?"}) == ["in/a", "in/link/../a"]


def test_rows_that_an_earlier_version_wrote_down_are_set_aside() -> None:
    out, earlier = Path("l.csv"), Path(".l.csv.state")
    out.write_text("file,label\na,low\n")
    earlier.write_text('{"layout": 2, "about": {}, "header": ["file", "label"]}\n')
    with growing(out, {"run": "another"}, HEADER) as table:
        assert table.todo(["a"], lambda _: [1]) == ["a"]
        assert table.notes == [
            "an earlier version wrote down what the rows of l.csv were computed from: "
            "they are kept in l.old.csv, and all is computed anew"
        ]
        table.add("a", ["a", "high"], failed=False)
    assert (labels_in(out), labels_in(Path("l.old.csv"))) == ({"a": "high"}, {"a": "low"})
    assert not earlier.exists()


def test_what_a_kill_left_half_written_is_taken_away() -> None:
    ours, others = [".l.csv.12.tmp"], [".l.csv.my.tmp", ".k.csv.12.tmp"]
    for name in (*ours, *others):
        Path(name).write_text("half")
    night(Path("l.csv"), {"a": "low"})
    assert [Path(name).exists() for name in (*ours, *others)] == [False, True, True]


@pytest.mark.parametrize("name", ["a\rb.wav", "a\nb.wav", "a\r\nb.wav", 'a"b,.wav', " a .wav"])
def test_a_name_with_a_line_end_is_read_again_as_it_is(name: str) -> None:
    assert next(csv.reader(io.StringIO(csv_line([name, "low"]), newline=""))) == [name, "low"]
    night(Path("l.csv"), {name: "low"})
    assert labels_in(Path("l.csv")) == {name: "low"}


def test_a_file_whose_name_is_no_utf8_is_read_and_checked(tones: Path) -> None:
    shutil.copy(tones.parent / "00.wav", NO_UTF8)
    assert len(read_audio(NO_UTF8)) == len(read_audio(tones.parent / "00.wav"))
    seconds, broken = check_files([Utterance("a", NO_UTF8)], Path("cache"))
    assert ([*seconds], broken) == (["a"], [])


def test_a_name_that_is_no_utf8_is_printed_and_written_as_it_is(tones: Path, finished: Path) -> None:
    shutil.copy(tones.parent / "00.wav", NO_UTF8)

    def message(*words: str, **environment: str) -> bytes:
        typed: Sequence[str] = [sys.executable, "-m", "headwater", "predict", str(finished), NO_UTF8, *words]
        done = subprocess.run(typed, capture_output=True, env={**os.environ, **environment}, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    assert message().splitlines()[1].startswith(b"caf\xe9.wav,")
    message("--out", "l.csv")
    assert Path("l.csv").read_bytes().splitlines()[1].startswith(b"caf\xe9.wav,")


def test_a_terminal_without_a_letter_gets_a_question_mark() -> None:
    assert f"· {NO_UTF8} ü".encode("ascii", LENIENT) == b"? caf\xe9.wav ?"
