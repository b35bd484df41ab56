"""The index of indices: rows are found where they lie, whatever was taken away; and a store that has leases in place of flock."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from headwater.upstream.store.maintenance import damaged_shards, list_spaces, prune
from headwater.upstream.store.merged import JOBS, MERGED, Part, find_merged, merged_parts, write_merged, write_part
from headwater.upstream.store.shards import Shard
from headwater.upstream.store.space import Space
from headwater.upstream.store.store import Store, locked_alone, remove
from headwater.upstream.store.writing import Computed, RowWriter

SPACE = Space("model", (0, 1), 3, True, False, "exact", "auto", "all", "float32")
processes = multiprocessing.get_context("fork")


def key_of(number: int) -> str:
    """A row key as a hash gives it."""
    return f"{random.Random(number).getrandbits(128):032x}"


def row(number: int) -> Computed:
    """What an upstream makes of an utterance."""
    return Computed(np.full((1, 2, 3), number, np.float32), (1.0, 1.0), 5)


def part(root: Path, name: str, numbers: Sequence[int]) -> Part:
    """Write a part that holds some rows."""
    folder, shards = root / SPACE.key / JOBS / "job" / name, list[Shard]()
    folder.mkdir(parents=True)
    writer = RowWriter(folder, "rows", SPACE, shards.append, count=20)
    for number in numbers:
        writer.append(key_of(number), row(number))
        if number % 20 == 19:
            writer.close()
    writer.close()
    return write_part(folder, shards, {})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store of two parts, which have a row in common."""
    write_merged(tmp_path / SPACE.key, [part(tmp_path, "00000", range(60)), part(tmp_path, "00001", range(59, 100))])
    return tmp_path


def compute(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
    """Give each utterance its row."""
    for position, number in enumerate(numbers):
        yield position, row(number)


def test_rows_are_found_in_their_parts_and_nothing_else_is_opened(root: Path) -> None:
    store = Store(root, SPACE, "model")
    assert not store.index
    store.look_up([key_of(3), key_of(59), key_of(80), key_of(1000)])
    assert store.index.keys() == {key_of(3), key_of(59), key_of(80)}
    assert all(store.index[key_of(number)].values().max() == number for number in (3, 59, 80))
    assert len({place.shard.path for place in store.index.values()}) == 3


def test_a_filling_computes_what_no_part_has(root: Path) -> None:
    store = Store(root, SPACE, "model")
    assert store.fill({key_of(number): number for number in range(90, 110)}, compute, lambda _: None) == 10
    assert store.index[key_of(95)].values().max() == 95


def test_a_part_that_was_taken_away_is_computed_again(root: Path) -> None:
    [lost] = list(find_merged(root / SPACE.key, [key_of(99)]))
    lost.unlink()
    store = Store(root, SPACE, "model")
    assert store.fill({key_of(99): 99, key_of(0): 0}, compute, lambda _: None) == 1


def test_an_index_that_is_no_longer_whole_costs_the_rows_only(root: Path) -> None:
    (root / SPACE.key / MERGED).write_text("{")
    assert Store(root, SPACE, "model").fill({key_of(0): 0}, compute, lambda _: None) == 1
    (root / SPACE.key / JOBS / "job" / "00000" / "done.json").write_text("[]")
    assert Part.read(root / SPACE.key / JOBS / "job" / "00000") is None


def test_parts_are_counted_verified_and_pruned_with_their_space(root: Path) -> None:
    Store(root, SPACE, "model").held.close()
    [space] = list_spaces(root)
    assert space.rows == 60 + 41
    assert damaged_shards(root) == (len([*root.rglob("*.safetensors")]), [])
    [path] = find_merged(root / SPACE.key, [key_of(99)])
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert damaged_shards(root)[1] == [path]
    removed, held = prune([space])
    assert (len(removed), held) == (1, [])
    assert not merged_parts(root / SPACE.key)


def test_a_store_that_leaves_does_not_take_parts_along(root: Path) -> None:
    Store(root, SPACE, "model").leave()
    assert len(merged_parts(root / SPACE.key)) == 2


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that keeps locks on one machine."""
    monkeypatch.setenv("HEADWATER_LOCKS", "lease")


def slow_fill(root: Path, log: Path) -> None:
    """Fill a store, and write a line for each utterance."""

    def slow(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
        for found in compute(numbers):
            with log.open("a") as file:
                file.write("x\n")
            time.sleep(0.003)
            yield found

    Store(root, SPACE, "model").fill({key_of(number): number for number in range(60)}, slow, lambda _: None)


@pytest.mark.usefixtures("leases")
def test_with_leases_two_processes_share_a_filling_and_a_kill_stops_neither(tmp_path: Path) -> None:
    log = tmp_path / "log"
    many = [processes.Process(target=slow_fill, args=(tmp_path / "store", log)) for _ in range(2)]
    for process in many:
        process.start()
    while not log.exists() or len(log.read_text().split()) < 20:
        time.sleep(0.001)
    assert many[0].pid is not None
    os.kill(many[0].pid, signal.SIGKILL)
    for process in many:
        process.join()
    assert many[1].exitcode == 0
    assert len(log.read_text().split()) <= 61
    store = Store(tmp_path / "store", SPACE, "model")
    assert len(store.index) == 60


@pytest.mark.usefixtures("leases")
def test_with_leases_a_held_space_is_not_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, SPACE, "model")
    with locked_alone(store.folder) as free:
        assert not free
    assert not remove(store.folder)
    store.held.close()
    assert remove(store.folder)
    assert not store.folder.exists()
