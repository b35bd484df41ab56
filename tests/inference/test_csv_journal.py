"""The csv that grows, and what is written down beside it: kills, other folders, other names."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from headwater.commands.common.shell import LENIENT
from headwater.corpus.audio import check_files, read_audio
from headwater.corpus.base import Utterance
from headwater.inference import csv_journal as labels_file
from headwater.inference.csv_journal import csv_line, growing, state_of

HEADER = ["file", "label"]
NO_UTF8 = os.fsdecode(b"caf\xe9.wav")


class Killed(BaseException):
    """Stands for a SIGKILL."""


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


def killed_at(name: str, monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> None:
    """Do what a kill cuts short where a function of the module would be called."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(labels_file, name, die)
        with pytest.raises(Killed):
            run()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that we are in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("broken", ["", "low"])
def test_a_kill_before_the_csv_is_put_in_place_leaves_it_for_the_next_night(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path("l.csv")
    night(out, {"a": "low", "b": broken})
    killed_at("written_aside", monkeypatch, lambda: night(out, {"a": "low", "b": broken, "c": "high"}))
    assert labels_in(out) == {"a": "low", "b": broken}
    for _ in range(2):
        assert "c" not in night(out, {"a": "low", "b": broken, "c": "high"})
        assert labels_in(out) == {"a": "low", "b": broken, "c": "high"}


def test_a_kill_before_the_first_csv_is_no_csv_that_was_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path("l.csv")
    killed_at("written_aside", monkeypatch, lambda: night(out, {"a": "low", "b": "high"}))
    with growing(out, {}, HEADER) as table:
        assert (table.todo(["a"], lambda _: [1]), table.notes) == ([], [])
    assert labels_in(out) == {"a": "low", "b": "high"}


def test_a_csv_that_a_kill_left_unconfirmed_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Path("l.csv")
    with monkeypatch.context() as patch:
        patch.setattr(labels_file.LabelsFile, "_remember", lambda *_: None)
        night(out, {"a": "low", "b": "high"})
    night(out, {"a": "low"})
    out.unlink()
    with growing(out, {}, HEADER) as table:
        table.todo(["a"], lambda _: [1])
        assert "was taken away" in table.notes[0]
    assert labels_in(out) == {"a": "low"}


def test_a_file_has_one_row_however_its_path_is_typed(here: Path) -> None:
    Path("rec").mkdir()
    night(Path("l.csv"), {"rec/a": "low"})
    for name in ("rec/../rec/a", f"{here}/rec/a", "./rec//a"):
        assert night(Path("l.csv"), {name: "high"}) == []
    assert night(Path("l.csv"), {f"{here}/rec/a": "high"}, version=2) == [f"{here}/rec/a"]
    assert labels_in(Path("l.csv")) == {f"{here}/rec/a": "high"}  # as it was typed for this answer


def test_another_file_of_the_same_relative_name_has_its_own_row_and_both_are_told_apart(
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


def test_rows_known_by_what_was_typed_are_set_aside() -> None:
    out = Path("l.csv")
    night(out, {"a": "low"})
    first, *rest = map(json.loads, state_of(out).read_text().splitlines())
    del first["layout"]
    state_of(out).write_text("".join(json.dumps(line) + "\n" for line in (first, *rest)))
    with growing(out, {"run": "another"}, HEADER) as table:
        assert table.todo(["a"], lambda _: [1]) == ["a"]
        assert table.notes == [
            "an earlier version wrote down what the rows of l.csv were computed from: "
            "they are kept in l.old.csv, and all is computed anew"
        ]
        table.add("a", ["a", "high"], failed=False)
    assert (labels_in(out), labels_in(Path("l.old.csv"))) == ({"a": "high"}, {"a": "low"})


def test_what_a_kill_left_half_written_is_taken_away() -> None:
    ours, others = [".l.csv.12.tmp", "..l.csv.state.12.tmp"], [".l.csv.my.tmp", ".k.csv.12.tmp"]
    for name in (*ours, *others):
        Path(name).write_text("half")
    night(Path("l.csv"), {"a": "low"})
    assert [Path(name).exists() for name in (*ours, *others)] == [False, False, True, True]


@pytest.mark.parametrize("name", ["a\rb.wav", "a\nb.wav", "a\r\nb.wav", 'a"b,.wav', " a .wav"])
def test_a_name_with_a_line_end_is_read_again_as_it_is(name: str) -> None:
    assert next(csv.reader(io.StringIO(csv_line([name, "low"]), newline=""))) == [name, "low"]
    night(Path("l.csv"), {name: "low"})
    assert labels_in(Path("l.csv")) == {name: "low"}


def test_a_file_whose_name_is_no_utf8_is_heard_and_checked(tones: Path) -> None:
    shutil.copy(tones.parent / "00.wav", NO_UTF8)
    assert len(read_audio(NO_UTF8)) == len(read_audio(tones.parent / "00.wav"))
    seconds, broken = check_files([Utterance("a", NO_UTF8)], Path("cache"))
    assert ([*seconds], broken) == (["a"], [])


def test_a_name_that_is_no_utf8_is_printed_and_written_as_it_is(tones: Path, finished: Path) -> None:
    shutil.copy(tones.parent / "00.wav", NO_UTF8)

    def said(*words: str, **environment: str) -> bytes:
        typed: Sequence[str] = [sys.executable, "-m", "headwater", "predict", str(finished), NO_UTF8, *words]
        done = subprocess.run(typed, capture_output=True, env={**os.environ, **environment}, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    assert said().splitlines()[1].startswith(b"caf\xe9.wav,")
    said("--out", "l.csv")
    assert Path("l.csv").read_bytes().splitlines()[1].startswith(b"caf\xe9.wav,")


def test_a_terminal_without_a_letter_gets_a_question_mark() -> None:
    assert f"· {NO_UTF8} ü".encode("ascii", LENIENT) == b"? caf\xe9.wav ?"
