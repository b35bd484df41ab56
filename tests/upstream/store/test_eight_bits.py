"""Frames in eight bits: what is lost is bounded channel by channel, and kept rows are as safe as others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from headwater.upstream.store.eight_bits import CODE, HEAD, decode, encode
from headwater.upstream.store.maintenance import list_spaces
from headwater.upstream.store.reading import ShardLayers
from headwater.upstream.store.shards import ShardWriter, open_shard, recover_parts
from headwater.upstream.store.space import Space
from headwater.upstream.store.store import Store
from headwater.upstream.store.writing import Computed

LAYERS, DIM = 3, 4
SPACE = Space("model", tuple(range(LAYERS)), DIM, False, False, "exact", "auto", "all", "float32", numbers="int8")
# a step is 1/254 of a channel's range, up to a rounding of float16, and so is that of what is returned
STEP, HALF = 1 / 254 * (1 + 2**-9), 2.0**-11


def features(number: int, frames: int = 9) -> np.ndarray:
    """What an upstream says of an utterance: (frame, layer, dim)."""
    return np.random.default_rng(number).standard_normal((frames, LAYERS, DIM)).astype(np.float32)


def key_of(number: int) -> str:
    """A row key as a hash gives it."""
    return f"{number * 0x1111_1111_1111:032x}"[::-1]


def decoded(stored: np.ndarray) -> np.ndarray:
    """What is read of codes."""
    values = np.empty((len(stored) - HEAD, *stored.shape[1:]), np.float16)
    decode(stored, values)
    return values.astype(np.float32)


def compute(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
    """An upstream."""
    for position, number in enumerate(numbers):
        yield position, Computed(features(number), (1.0,) * LAYERS, 9)


def fill(root: Path, count: int, space: Space = SPACE) -> Store:
    """Fill a store with so many utterances."""
    store = Store(root, space, "model")
    store.fill({key_of(n): n for n in range(count)}, compute, lambda _: None)
    return store


@pytest.mark.parametrize("frames", [1, 2, 700])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_an_error_is_at_most_half_a_step_of_its_own_channel(frames: int, size: float) -> None:
    values = size * features(1, frames)
    stored, _ = encode(values)
    span = values.max(axis=0) - values.min(axis=0)
    middle = np.abs(values.max(axis=0) + values.min(axis=0)) / 2
    # the middle is kept in float16: by as much as it is moved there, the codes reach further
    allowed = (span + 2 * HALF * middle) * STEP / 2 + HALF * np.abs(values) + 1e-7
    assert stored.dtype == CODE
    assert (np.abs(decoded(stored) - values) <= allowed).all()


def test_an_outlier_channel_costs_the_others_nothing() -> None:
    values, alone = features(1, 500), features(1, 500)
    values[:, 1, 2] = 300.0 + 0.2 * values[:, 1, 2]  # large, and varies little: as in Whisper and HuBERT
    others = np.ones((LAYERS, DIM), bool)
    others[1, 2] = False
    np.testing.assert_array_equal(decoded(encode(values)[0])[:, others], decoded(encode(alone)[0])[:, others])
    # and it is no worse itself than in float16, whose step there is 0.25
    error = np.abs(decoded(encode(values)[0]) - values)[:, 1, 2].max()
    assert error <= np.abs(values.astype(np.float16) - values)[:, 1, 2].max() + 0.2 * 8 * STEP


def test_what_is_lost_is_measured_over_the_spread_of_each_channel() -> None:
    values = features(1, 4000)
    values[:, 2, :] = 7.5  # does not vary: there is nothing to lose
    stored, lost = encode(values)
    error = decoded(stored)[:, :2] - values[:, :2]
    expected = np.sqrt((error.var(axis=0) / values[:, :2].var(axis=0)).mean(axis=1))
    np.testing.assert_allclose(lost[:2], expected, rtol=1e-2)
    assert 0.003 < lost[0] < 0.02
    assert lost[2] == 0.0
    np.testing.assert_array_equal(decoded(stored)[:, 2], values[:, 2])


@pytest.mark.parametrize("columns", [slice(None), [0], [2, 0]])
def test_layers_are_decoded_alone_as_among_others(columns: slice | list[int]) -> None:
    stored, _ = encode(features(1, 50))
    some = np.empty((50, len(range(LAYERS)[columns]) if isinstance(columns, slice) else len(columns), DIM), np.float16)
    decode(stored, some, columns)
    np.testing.assert_array_equal(some, decoded(stored)[:, columns])


def test_a_long_utterance_is_decoded_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, _ = encode(features(1, 700))
    at_once = decoded(stored)
    monkeypatch.setattr("headwater.upstream.store.eight_bits._CACHED", 100)
    np.testing.assert_array_equal(decoded(stored), at_once)


def test_a_store_in_eight_bits_gives_frames_and_says_what_was_lost(tmp_path: Path) -> None:
    store = fill(tmp_path, 20)
    for number in range(20):
        place = store.index[key_of(number)]
        assert (place.frames, place.dtype, place.shard.dtype) == (9, np.float16, CODE)
        np.testing.assert_allclose(place.values(), features(number), atol=0.02)
    layers = ShardLayers(store, {str(n): store.index[key_of(n)] for n in range(20)}, [0, 2], "frames in 8 bits, float32")
    assert all(0.001 < lost < 0.01 for lost in layers.lost())
    assert layers.note.startswith("frames are kept in 8 bits, which lose 0.")
    again = Store(tmp_path, SPACE, "model")  # the figures are read from the shards
    assert ShardLayers(again, {str(n): again.index[key_of(n)] for n in range(20)}, [0, 2], "").lost() == layers.lost()
    [space] = list_spaces(tmp_path)
    assert space.holds == "frames in 8 bits"


def test_a_store_in_eight_bits_is_never_taken_for_one_of_floats(tmp_path: Path) -> None:
    of_floats = replace(SPACE, numbers="float16")
    assert of_floats.key != SPACE.key
    assert "numbers" not in of_floats.described()  # a store of before keeps its place
    fill(tmp_path, 5)
    assert Store(tmp_path, of_floats, "model").index == {}


def test_a_shard_in_eight_bits_is_half_as_large_and_a_safetensors_file(tmp_path: Path) -> None:
    store = fill(tmp_path, 40)
    shards = [*{place.shard.path: place.shard for place in store.index.values()}.values()]
    assert sum(shard.values.nbytes for shard in shards) == SPACE.size(40, 40 * 9)
    assert load_file(shards[0].path)["values"].dtype == np.int8
    assert SPACE.size(1, 1000) < 0.503 * replace(SPACE, numbers="float16").size(1, 1000)


def test_what_float16_cannot_hold_is_kept_in_float32(tmp_path: Path) -> None:
    def large(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
        for position, row in compute(numbers):
            yield position, replace(row, values=row.values * (1e6 if numbers[position] % 2 else 1))

    store = Store(tmp_path, SPACE, "model")
    store.fill({key_of(n): n for n in range(12)}, large, lambda _: None)
    np.testing.assert_array_equal(store.index[key_of(3)].values(), features(3) * np.float32(1e6))
    both = np.empty((9, 2, DIM), np.float32)  # a batch of both is in float32
    store.index[key_of(2)].read(both, [0, 2])
    np.testing.assert_array_equal(both, store.index[key_of(2)].values()[:, [0, 2]])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_kill_while_filling_leaves_rows_that_are_gone_on_from_to_the_same_bytes(tmp_path: Path, count: int) -> None:
    def rows(root: Path) -> dict[str, bytes]:
        places = Store(root, SPACE, "model").index
        return {key: np.array(place._stored()).tobytes() for key, place in places.items()}

    fill(tmp_path / "whole", 12)
    folder = tmp_path / "killed" / SPACE.key
    bucket = "00"
    writer = ShardWriter(folder, bucket, CODE, LAYERS, DIM)
    for number in range(count):
        stored, lost = encode(features(number))
        writer.append(key_of(number), stored, (1.0,) * LAYERS, 9, lost)
    shutil.copytree(folder, tmp_path / "copy")  # what a SIGKILL leaves: the writer is never closed
    with next((tmp_path / "copy").glob("*.part")).open("ab") as file:
        file.write(b"\1" * 17)  # the row that was being written
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)
    recover_parts(folder, bucket)
    assert len(rows(tmp_path / "killed")) == count
    fill(tmp_path / "killed", 12)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_the_header_has_room_for_what_is_lost(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "00", CODE, LAYERS, DIM, max_rows=2)
    for number in range(2):
        writer.append(f"{number:032x}", encode(features(number))[0], (-1.23456789e-300,) * LAYERS, 10**7, (1.2345e-300,) * LAYERS)
    shard = writer.finish()
    assert shard is not None
    again = open_shard(shard.path)
    assert again is not None
    assert again.rows[0].lost == (1.23e-300,) * LAYERS
