"""Shards: whole after every row, and never taken for whole where they are not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from headwater.upstream.store import shards
from headwater.upstream.store.shards import ShardWriter, open_shard, recover, recover_parts, rows_path

LAYERS, DIM = 3, 4
HALF, FULL = np.dtype("<f2"), np.dtype("<f4")


def features(number: int) -> np.ndarray:
    """Features of an utterance: (frame, layer, dim)."""
    generator = np.random.default_rng(number)
    return generator.standard_normal((1 + number % 5, LAYERS, DIM)).astype(np.float32)


def written(folder: Path, count: int = 6, dtype: np.dtype = FULL) -> ShardWriter:
    """A writer with some rows behind it."""
    writer = ShardWriter(folder, "00", dtype, LAYERS, DIM)
    for number in range(count):
        writer.append(f"{number:032x}", features(number), (1.0, 2.0, 3.0), 10 + number)
    return writer


def recovered(folder: Path) -> list[int]:
    """The rows that are found after a writer's death, their numbers compared with what was written."""
    recover_parts(folder, "00")
    assert not [path for path in folder.iterdir() if path.suffix != ".safetensors"]
    found = []
    for path in folder.glob("*.safetensors"):
        shard = open_shard(path)
        assert shard is not None
        assert shard.is_sound()
        for row in shard.rows:
            np.testing.assert_array_equal(shard.values[row.start : row.start + row.frames], features(int(row.key, 16)))
            found.append(int(row.key, 16))
    return found


@pytest.mark.parametrize("dtype", [HALF, FULL])
def test_a_shard_gives_back_every_row_as_it_was_written(tmp_path: Path, dtype: np.dtype) -> None:
    shard = written(tmp_path, dtype=dtype).finish()
    assert shard is not None
    for number, row in enumerate(shard.rows):
        assert (row.key, row.norms, row.utterance_frames) == (f"{number:032x}", (1.0, 2.0, 3.0), 10 + number)
        np.testing.assert_array_equal(shard.values[row.start : row.start + row.frames], features(number).astype(dtype))


def test_a_shard_is_a_safetensors_file(tmp_path: Path) -> None:
    shard = written(tmp_path).finish()
    assert shard is not None
    np.testing.assert_array_equal(load_file(shard.path)["values"], np.concatenate([features(number) for number in range(6)]))


def test_a_writer_without_a_row_leaves_nothing(tmp_path: Path) -> None:
    assert ShardWriter(tmp_path, "00", FULL, LAYERS, DIM).finish() is None
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_every_row_is_safe_as_soon_as_it_is_appended(tmp_path: Path, count: int) -> None:
    written(tmp_path / "alive", count)
    shutil.copytree(tmp_path / "alive", tmp_path / "dead")  # what a SIGKILL at this moment leaves
    assert recovered(tmp_path / "dead") == list(range(count))


def cut_list(part: Path) -> None:
    rows_path(part).write_bytes(rows_path(part).read_bytes()[:-7])


def cut_data(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-9])


def alter_data(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[-5] ^= 1
    part.write_bytes(bytes(content))


def append_data(part: Path) -> None:
    part.write_bytes(part.read_bytes() + b"half a row")


def append_nonsense(part: Path) -> None:
    rows_path(part).write_text(rows_path(part).read_text() + '{"a": 1}\n5\n[1, 2]\n["key", "x", 1, 1, [], 1]\n')


@pytest.mark.parametrize(
    ("harm", "left"), [(cut_list, 5), (cut_data, 5), (alter_data, 5), (append_data, 6), (append_nonsense, 6)]
)
def test_a_part_gives_every_row_in_front_of_its_harm(tmp_path: Path, harm: Callable[[Path], None], left: int) -> None:
    harm(written(tmp_path).path)
    assert recovered(tmp_path) == list(range(left))


@pytest.mark.parametrize("lines", [None, b"", b"no json", b"5\n", b"{}\n", b'{"dtype": "F32"', b"\xff\xfe"])
def test_a_part_whose_list_says_nothing_is_taken_away(tmp_path: Path, lines: bytes | None) -> None:
    part = written(tmp_path).path
    if lines is None:
        rows_path(part).unlink()
    else:
        rows_path(part).write_bytes(lines)
    assert recovered(tmp_path) == []


def test_a_kill_between_sealing_and_tidying_leaves_a_list_that_goes_next_time(tmp_path: Path) -> None:
    writer = written(tmp_path)
    lines = rows_path(writer.path).read_bytes()
    writer.finish()
    rows_path(writer.path).write_bytes(lines)
    assert recovered(tmp_path) == list(range(6))


def test_a_part_of_another_bucket_is_left_alone(tmp_path: Path) -> None:
    part = ShardWriter(tmp_path, "01", FULL, LAYERS, DIM).path
    recover_parts(tmp_path, "00")
    assert part.is_file()


@pytest.mark.parametrize("left", [0, 5, 8, 100, 3000, -1])
def test_a_shard_cut_short_is_none(tmp_path: Path, left: int) -> None:
    shard = written(tmp_path).finish()
    assert shard is not None
    shard.path.write_bytes(shard.path.read_bytes()[:left])
    assert open_shard(shard.path) is None


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"\xff" * 64, b"\0" * 64, b"\x02\0\0\0\0\0\0\0{}", b"\x01" * 7])
def test_a_file_of_garbage_is_no_shard(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "00-a.safetensors"
    path.write_bytes(content)
    assert open_shard(path) is None


def test_a_shard_with_altered_numbers_is_not_sound(tmp_path: Path) -> None:
    shard = written(tmp_path).finish()
    assert shard is not None
    assert shard.is_sound()
    alter_data(shard.path)
    altered = open_shard(shard.path)
    assert altered is not None
    assert not altered.is_sound()


@pytest.mark.parametrize("old", [b"1.0, 2.0, 3.0], 10]", b'"F32"', b'"shape": [16'])
def test_a_shard_with_an_altered_header_is_none(tmp_path: Path, old: bytes) -> None:
    shard = written(tmp_path).finish()
    assert shard is not None
    content = shard.path.read_bytes()
    assert content.count(old) == 1
    shard.path.write_bytes(content.replace(old, old.replace(b"1", b"7").replace(b"F32", b"F61")))
    assert open_shard(shard.path) is None


@pytest.mark.parametrize("norm", [1 / 3, 123456789012345.6, 1.23456789e15, 1e-300, float("nan"), float("inf")])
def test_the_header_has_room_for_the_longest_rows(tmp_path: Path, norm: float) -> None:
    writer = ShardWriter(tmp_path, "00", HALF, 49, 1, max_rows=40)
    for number in range(40):
        writer.append(f"{number:032x}", np.ones((4000, 49, 1)), (norm,) * 49, 10**6)
    assert writer.is_full
    shard = writer.finish()
    assert shard is not None
    assert shard.rows[0].norms[0] == pytest.approx(norm, rel=1e-5, nan_ok=True)


def test_a_shard_is_full_by_rows_or_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ShardWriter(tmp_path, "00", FULL, LAYERS, DIM, max_rows=2)
    assert not writer.is_full
    writer.append("0" * 32, features(4), (1.0,) * LAYERS, 5)
    assert not writer.is_full
    monkeypatch.setattr(shards, "MAX_BYTES", features(4).nbytes)
    assert writer.is_full
    monkeypatch.undo()
    writer.append("1" * 32, features(4), (1.0,) * LAYERS, 5)
    assert writer.is_full


def test_a_small_writer_reserves_a_small_header(tmp_path: Path) -> None:
    written(tmp_path / "large").finish()
    small = ShardWriter(tmp_path / "small", "00", FULL, LAYERS, DIM, max_rows=1)
    small.append("0" * 32, features(0), (1.0,) * LAYERS, 5)
    small.finish()
    sizes = {folder: sum(path.stat().st_size for path in (tmp_path / folder).iterdir()) for folder in ("large", "small")}
    assert sizes["small"] < 6000 < sizes["large"]


def test_a_hundred_shards_more_than_are_mapped_need_no_more_files(tmp_path: Path) -> None:
    found = []
    for number in range(shards._MAPPED + 100):
        writer = ShardWriter(tmp_path, f"{number:04d}", FULL, LAYERS, DIM, max_rows=1)
        writer.append(f"{number:032x}", features(number), (1.0,) * LAYERS, 5)
        found.append(writer.finish())
    for number, shard in enumerate(found):
        assert shard is not None
        np.testing.assert_array_equal(shard.values, features(number))
    assert shards._mapped.cache_info().currsize <= shards._MAPPED


def test_recovering_a_part_keeps_its_type(tmp_path: Path) -> None:
    shard = recover(written(tmp_path, dtype=HALF).path)
    assert shard is not None
    assert shard.dtype == HALF
