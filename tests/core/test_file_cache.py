"""What is remembered about files."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path

import pytest

from headwater.core import file_cache as module
from headwater.core.file_cache import FileMemory, file_key


def remember(path: Path) -> FileMemory:
    return FileMemory(path / "facts.sqlite", "It is asked again")


def file(folder: Path, name: str = "a.wav", content: bytes = b"1234") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_what_is_kept_is_recalled_by_the_next_process(tmp_path: Path) -> None:
    keys = [file_key(file(tmp_path, name)) for name in ("a.wav", "b.wav", "c.wav")]
    with remember(tmp_path) as memory:
        memory.keep(keys[0], [1.5, None])
        memory.keep(keys[1], "hash")
    with remember(tmp_path) as memory:
        assert memory.recall(keys) == {keys[0]: [1.5, None], keys[1]: "hash"}
        assert memory.everything() == {keys[0]: [1.5, None], keys[1]: "hash"}


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_not_recalled(tmp_path: Path, change: str) -> None:
    path = file(tmp_path)
    with remember(tmp_path) as memory:
        memory.keep(file_key(path), "fact")
        if change == "size":
            file(tmp_path, content=b"12345")
        else:
            os.utime(path, ns=(0, 12345))
        assert memory.recall([file_key(path)]) == {}


def test_more_files_than_one_query_takes_are_recalled(tmp_path: Path) -> None:
    keys = [(f"/nowhere/{number}.wav", number, 7) for number in range(3 * module._AT_ONCE + 1)]
    with remember(tmp_path) as memory:
        for key in keys:
            memory.keep(key, key[1])
        assert memory.recall(keys) == {key: key[1] for key in keys}
        assert memory.recall(keys[5:7]) == {key: key[1] for key in keys[5:7]}


def test_what_is_forgotten_is_gone(tmp_path: Path) -> None:
    keys = [file_key(file(tmp_path, name)) for name in ("a.wav", "b.wav")]
    with remember(tmp_path) as memory:
        for key in keys:
            memory.keep(key, "fact")
        memory.forget([keys[0][0]])
    with remember(tmp_path) as memory:
        assert [*memory.everything()] == [keys[1]]


def test_a_name_that_is_no_text_is_remembered(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    with open(path, "wb") as sound:
        sound.write(b"1234")
    key = file_key(os.fsdecode(path))
    with remember(tmp_path) as memory:
        memory.keep(key, "fact")
        assert memory.recall([key]) == {key: "fact"}


def keep_many(folder: Path, first: int) -> None:
    with remember(folder) as memory:
        for number in range(first, first + 300):
            memory.keep((f"/nowhere/{number}.wav", 1, 1), number)


def test_several_processes_remember_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=keep_many, args=(tmp_path, 300 * number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    with remember(tmp_path) as memory:
        assert sorted(memory.everything().values()) == list(range(900))


def test_a_memory_that_cannot_be_had_says_what_it_costs_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "facts.sqlite").write_text("this is no database, " * 100)
    key = file_key(file(tmp_path))
    with caplog.at_level(logging.WARNING), remember(tmp_path) as memory:
        memory.keep(key, "fact")
        memory.forget([key[0]])
        assert memory.recall([key]) == {}
        assert memory.everything() == {}
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == ["It is asked again"]
