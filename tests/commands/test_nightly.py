"""`headwater predict … --out labels.csv` night after night: only what is new or changed is computed, and nothing is lost."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.__main__ import dispatch
from headwater.commands.common.shell import run_command
from headwater.inference import predict
from headwater.inference.csv_journal import growing, hold, state_of
from headwater.inference.inputs import files_of, version_of
from headwater.inference.waveforms import AudioItem, name_of

Night = Callable[..., tuple[int, str]]


@pytest.fixture
def recordings(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six files in two folders below the one we are in."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        place = tmp_path / "in" / f"day{number % 2}" / f"{number}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tones.parent / f"{number:02d}.wav", place)
    return tmp_path / "in"


@pytest.fixture
def night(finished: Path, capsys: pytest.CaptureFixture[str]) -> Night:
    """Type `headwater predict RUN in --out labels.csv …`; exit code and stderr come back."""

    def run(*words: object, inputs: str = "in") -> tuple[int, str]:
        capsys.readouterr()
        typed = ["predict", finished, inputs, "--out", "labels.csv", *words]
        return run_command(dispatch, [str(word) for word in typed]), capsys.readouterr().err

    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were opened to be heard."""
    seen: list[str] = []
    hear = predict.windows_of

    def counted(item: AudioItem) -> object:
        seen.append(Path(name_of(item)).name)
        return hear(item)

    monkeypatch.setattr(predict, "windows_of", counted)
    return seen


def rows() -> list[dict[str, str]]:
    """What stands in the csv."""
    with Path("labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def replaced(path: Path, other: Path) -> None:
    """Put another sound in a file's place."""
    shutil.copy(other, path)
    os.utime(path, ns=(1, 1))


@pytest.mark.usefixtures("recordings")
def test_an_unchanged_folder_is_not_read_again_and_its_csv_not_touched(night: Night, opened: list[str]) -> None:
    assert night()[0] == 0
    assert opened == ["0.wav", "2.wav", "4.wav", "1.wav", "3.wav", "5.wav"]  # in the order of their paths
    assert [row["file"] for row in rows()] == [f"in/day{number % 2}/{number}.wav" for number in (0, 2, 4, 1, 3, 5)]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (Path("labels.csv"), state_of(Path("labels.csv")))]
    opened.clear()
    code, message = night()
    assert (code, opened) == (0, [])
    assert "6 files, 0 computed, 6 as they were, 0 of them broken" in message
    assert before == [(path.read_bytes(), path.stat().st_mtime_ns) for path in (Path("labels.csv"), state_of(Path("labels.csv")))]


def test_new_files_are_added_and_changed_ones_replaced_where_they_stand(
    recordings: Path, night: Night, opened: list[str], tones: Path
) -> None:
    night()
    first = rows()
    shutil.copy(tones.parent / "07.wav", recordings / "day0" / "1a.wav")
    replaced(recordings / "day1" / "1.wav", tones.parent / "08.wav")  # 1 was middle, 8 is high
    opened.clear()
    assert "2 computed (1 changed, 1 new), 5 as they were" in night()[1]
    assert opened == ["1a.wav", "1.wav"]
    then = rows()
    assert [row["file"] for row in then] == [*(row["file"] for row in first), "in/day0/1a.wav"]
    assert [was == now for was, now in zip(first, then, strict=False)] == [True, True, True, False, True, True]
    assert then[3]["label"] == "high"


def test_rows_of_files_that_are_gone_stay_and_are_counted(recordings: Path, night: Night) -> None:
    night()
    before = Path("labels.csv").read_bytes()
    (recordings / "day0" / "2.wav").unlink()
    assert "rows of 1 files that are no longer there stay" in night()[1]
    code, message = night(inputs="in/day0/2.wav")  # asked for by name
    assert (code, "0 computed" in message) == (0, True)
    assert Path("labels.csv").read_bytes() == before


def test_a_file_that_was_broken_is_tried_again(recordings: Path, night: Night, opened: list[str], tones: Path) -> None:
    (recordings / "day0" / "2.wav").write_bytes(b"RIFF")
    code, message = night()
    assert (code, "1 of them broken" in message, bool(rows()[1]["error"])) == (3, True, True)
    before = Path("labels.csv").stat().st_mtime_ns
    opened.clear()
    assert night()[0] == 3
    assert opened == ["2.wav"]
    assert Path("labels.csv").stat().st_mtime_ns == before  # the same answer again
    shutil.copy(tones.parent / "02.wav", recordings / "day0" / "2.wav")
    code, message = night()
    assert (code, "1 computed (1 tried again)" in message, rows()[1]["error"]) == (0, True, "")


def test_a_file_that_is_requested_twice_has_one_row(recordings: Path, night: Night) -> None:
    Path("list.csv").write_text("audio\nin/day0/2.wav\n")
    night("list.csv", "in/day0/2.wav")
    assert len(rows()) == len([*recordings.rglob("*.wav")]) == 6


def test_stretches_of_a_file_have_a_row_each(night: Night, recordings: Path, opened: list[str]) -> None:
    soundfile.write(recordings / "long.wav", 0.1 * np.sin(np.arange(16_000)), 16_000)
    Path("list.csv").write_text("audio,start,end\nin/long.wav,0,0.5\nin/long.wav,0.5,1\n")
    night(inputs="list.csv")
    assert [(row["start"], row["end"]) for row in rows()] == [("0.000", "0.500"), ("0.500", "1.000")]
    Path("list.csv").write_text("audio,start,end\nin/long.wav,0,0.5\nin/long.wav,0.5,0.75\n")
    opened.clear()
    night(inputs="list.csv")
    assert (len(opened), len(rows())) == (1, 3)


def test_a_killed_night_goes_on_where_it_was_and_ends_with_the_same_csv(
    finished: Path, recordings: Path, night: Night, opened: list[str], tones: Path
) -> None:
    for number in range(200):
        shutil.copy(tones.parent / f"{number % 72:02d}.wav", recordings / f"x{number}.wav")
    words = [sys.executable, "-m", "headwater", "predict", str(finished), "in", "--out", "labels.csv"]
    state = state_of(Path("labels.csv"))
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while written_down(state) < 20:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("labels.csv").exists()
    kept = written_down(state)
    _, message = night()
    assert len(opened) == 206 - kept <= 186
    assert f"{206 - kept} computed" in message
    after = Path("labels.csv").read_bytes()
    for path in (state, Path("labels.csv")):
        path.unlink()
    night()
    assert Path("labels.csv").read_bytes() == after


def written_down(state: Path) -> int:
    """Return how many rows a command has written into the database, at work or killed."""
    left = [path.read_bytes() for path in (state, state.with_name(f"{state.name}-wal")) if path.exists()]
    return len(set(re.findall(rb'/in/[a-z0-9/]+[.]wav", 0[.]0, null', b"".join(left))))


@pytest.mark.usefixtures("recordings")
def test_a_csv_that_nothing_is_known_of_is_kept_aside_and_all_is_computed(night: Night, opened: list[str]) -> None:
    night()
    state_of(Path("labels.csv")).unlink()
    old = Path("labels.csv").read_bytes().replace(b",low,", b",LOW,")
    Path("labels.csv").write_bytes(old)
    opened.clear()
    assert "nothing says what the rows of labels.csv were computed from: they are kept in labels.old.csv" in night()[1]
    assert (len(opened), Path("labels.old.csv").read_bytes()) == (6, old)
    assert "LOW" not in Path("labels.csv").read_text()


@pytest.mark.usefixtures("recordings")
def test_a_csv_that_was_taken_away_is_written_again_with_what_is_requested(night: Night, opened: list[str]) -> None:
    night()
    Path("labels.csv").unlink()
    opened.clear()
    assert "labels.csv was taken away" in night(inputs="in/day0")[1]
    assert (opened, len(rows())) == ([], 3)


def test_folders_are_searched_in_order_without_hidden_files_and_loops(tmp_path: Path) -> None:
    for name in ("b/2.WAV", "a/1.flac", "a/.hidden.wav", ".cache/3.wav", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert files_of([str(tmp_path)]) == [str(tmp_path / name) for name in ("a/1.flac", "b/2.WAV")]


def test_a_row_depends_on_size_and_time_and_on_the_words_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"12")
    os.utime(path, ns=(5, 5))
    assert version_of(str(path), has_audio=True, has_text=False) == [2, 5]
    assert version_of(str(path), has_audio=True, has_text=True) == [2, 5, None]
    path.with_suffix(".txt").write_text("said")
    os.utime(path.with_suffix(".txt"), ns=(7, 7))
    assert version_of(str(path), has_audio=True, has_text=True) == [2, 5, [4, 7]]
    assert version_of(str(tmp_path / "gone.wav"), has_audio=True, has_text=True) is None
    assert version_of(str(tmp_path / "gone.wav"), has_audio=False, has_text=True) == [None]


def test_names_that_are_no_utf8_are_written_as_they_are(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    with growing(tmp_path / "l.csv", {}, ["file", "label"]) as table:
        assert table.todo([name], lambda _: [1]) == [name]
        table.add(name, [name, "low"], failed=False)
    assert (tmp_path / "l.csv").read_bytes() == b"file,label\ncaf\xe9.wav,low\n"
    with growing(tmp_path / "l.csv", {}, ["file", "label"]) as table:
        assert table.todo([name], lambda _: [1]) == []


def test_what_is_written_down_is_a_database_that_a_reader_can_follow(tmp_path: Path) -> None:
    with growing(tmp_path / "l.csv", {"run": "x"}, ["file", "label"]) as table:
        table.todo(["a.wav"], lambda _: [1, 2])
        table.add("a.wav", ["a.wav", "low"], failed=False)
    with closing(sqlite3.connect(state_of(tmp_path / "l.csv"))) as database:
        about, digest = database.execute("SELECT about, digest FROM csv").fetchone()
        item, row = database.execute("SELECT item, row FROM rows").fetchone()
    assert json.loads(about) == {"about": {"run": "x"}, "columns": ["file", "label"]}
    assert digest == hashlib.sha256((tmp_path / "l.csv").read_bytes()).hexdigest()
    assert json.loads(item) == [os.path.abspath("a.wav"), 0.0, None]
    assert json.loads(row) == {"version": [1, 2], "fields": ["a.wav", "low"], "failed": False}


def test_a_csv_is_held_by_one_command(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    with growing(path, {}, ["file"]), pytest.raises(ValueError, match=r"another `headwater predict` is writing"):
        hold(path)
