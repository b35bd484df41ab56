"""Small files: what is written whole, what is not waited for, what a kill leaves behind."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from headwater.core.errors import UserError
from headwater.core.files import clear_asides, hash_file, obstacle, read_json, temporary_folder
from headwater.core.run_folder import RunFolder


def test_an_ordinary_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    assert obstacle(tmp_path / "a") is None


@pytest.mark.parametrize("content", ["[" * 100_000, "[" + "1" * 5000 + "]", "{", "[]", "null"])
def test_json_that_a_run_did_not_write_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)
    with pytest.raises(UserError, match=r"^Expected a run's json in '.*identity\.json', found: .*Remove the file") as problem:
        read_json(tmp_path / "identity.json", ("marks",))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("identity.json", '{"marks": 1}', "int in place of a list at 'marks'"),
        ("identity.json", '{"upstreams": null}', "NoneType in place of a dict at 'upstreams'"),
        ("result.json", '{"seed": "x"}', "str in place of an int at 'seed'"),
        ("vocabulary.json", '{"emotion": []}', "list in place of a dict at 'emotion'"),
    ],
)
def test_a_value_of_another_kind_is_one_line(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    stored = RunFolder(tmp_path).read()
    with pytest.raises(UserError, match=f"found: {words}. Remove the file"):
        {"identity.json": stored.identity, "result.json": stored.result, "vocabulary.json": stored.vocabulary}[name]()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vocabulary.json")
    with pytest.raises(UserError, match="found: a pipe, a socket or a device"):
        read_json(tmp_path / "vocabulary.json")
    with pytest.raises(UserError, match="Expected readable audio, found a pipe, a socket or a device"):
        hash_file(tmp_path / "vocabulary.json")


def test_a_temporary_folder_clears_those_of_killed_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    begin = f"headwater-{socket.gethostname()}-"
    kept = [f"{begin}{os.getpid()}-a", f"{begin}mine", f"headwater-{ended.pid}-b", "else"]
    for name in (*kept, f"{begin}{ended.pid}-c"):
        (tmp_path / name / "inside").mkdir(parents=True)
    with temporary_folder() as folder:
        assert {path.name for path in tmp_path.iterdir()} == {*kept, folder.name}
    assert {path.name for path in tmp_path.iterdir()} == {*kept}


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f".x.png.{ended.pid}.tmp", f".x.png.{os.getpid()}.tmp", ".x.png.old.tmp", f".y.png.{ended.pid}.tmp"]
    for name in names:
        (tmp_path / name).touch()
    clear_asides(tmp_path / "x.png")
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:]}
