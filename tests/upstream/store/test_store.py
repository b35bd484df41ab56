"""The store: each row computed once, whatever dies or waits; never anything stale."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.core.errors import UserError
from headwater.core.files import format_bytes, parse_size
from headwater.corpus.audio import read_audio
from headwater.corpus.base import Utterance
from headwater.corpus.fingerprints import row_key, row_keys
from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.load import list_upstreams, load_upstream
from headwater.upstream.store import store as module
from headwater.upstream.store.space import Space, fingerprint, space_of
from headwater.upstream.store.store import Store, default_limit, locked_alone, remove
from headwater.upstream.store.writing import Computed

BEFORE = Path(__file__).parents[2] / "fixtures" / "store_before"  # filled by an earlier version
# what names the features of an upstream on every disk that holds some: another key, and all of them are computed again
KEYS_BEFORE = {
    "fbank": "340b8960298e546c7cc4f79d1430d561352c2c720a0a66a1c228d88179fdcba9",
    "fbank_no_cmvn": "39fadca1b882761eb20ef90dc2b39ce389f432614a816b5ded1024855d4ac623",
    "mfcc": "ffd4b62d33fc191731e351dfacfde36525ea7608a55466d4ea7d92f62bd819ce",
    "hashed_words": "76fadbfd74a5e43d50d1f77f8caf55406be9f399f39510b21e431b34444b634b",
    "test_hubert": "57eba000f89f8f2703b114abd76af2165f3be2d6b7daf0a9ffe7aa04fe8433bf",
    "test_hubert_large": "691b3813917479963713e267bc62d36af8faf9568e33646b2e4801715302c095",
    "test_data2vec": "df3fce74b6cd0f0f9873444c2803c85db50c8f4bd05c6621b76afc7e8c92a9bc",
    "test_distilhubert": "ca9f77da7ebbec54d35d53c36ba4ffa90db2e7b8a7994fb440432cfbf727b25d",
    "test_unispeech_sat": "7ad6dd173a1b28819bc967521db9e9f8647c5e7ba23e95c82ead083e84d519bd",
    "test_wavlm": "68d3bab28076c208d3d51133c445ee660df4eb9f4f3f5d4e147bf3bc0a95b75c",
    "test_wav2vec2": "6db8ec3f4973935d672c210f51b9f8e5a076cc8a2ace432fdfa5785ccc28b3e6",
    "test_whisper": "63ba1296f7011c2e031a0ea9c49283cbbbf79cde2ca18244f9e3dcd177cb1fb0",
    "test_bert": "796eb0e0928b42908524e3a78568e865b9844fd16f74a67d827fd69efc9f0614",
    "test_distilbert": "c534fadb8c46b9f96c5f91d5a5183698a49dd2bdb0d8a7fd5284d872ed85d949",
    "test_gpt2": "85d370f7facaafd1b7117a846b1d9a73c3badb05ff87a9c78986a859a21c6073",
    "test_roberta": "fccf33d7b6b6188d0ca7290f9a05e92d5498dee1fa4731da1c45c547f0db32e5",
}
LAYERS, DIM = 3, 4
SPACE = Space("model", tuple(range(LAYERS)), DIM, False, False, "exact", "auto", "all", "float32")
processes = multiprocessing.get_context("fork")  # started at once: nothing is imported again


def key_of(number: int) -> str:
    """A row key as a hash gives it."""
    return f"{random.Random(number).getrandbits(128):032x}"


def features(number: int, scale: float = 1.0) -> np.ndarray:
    """What the upstream says of an utterance: (frame, layer, dim)."""
    return (scale * np.random.default_rng(number).standard_normal((1 + number % 7, LAYERS, DIM))).astype(np.float32)


def computing(log: Path, seconds: float = 0.0, scale: float = 1.0) -> Callable[[Sequence[int]], Iterator[tuple[int, Computed]]]:
    """An upstream that counts: each utterance that it begins is a line in a file."""

    def compute(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
        for position, number in enumerate(numbers):
            with log.open("a") as file:
                file.write(f"{number}\n")
            time.sleep(seconds)
            yield position, Computed(features(number, scale), (1.0,) * LAYERS, 5)

    return compute


def fill(root: Path, count: int, log: Path, seconds: float = 0.0, space: Space = SPACE) -> int:
    """Fill a store with so many utterances."""
    message: list[str] = []
    store = Store(root, space, "model")
    return store.fill({key_of(n): n for n in range(count)}, computing(log, seconds), lambda _: None, show=message.append)


def stored(root: Path, space: Space = SPACE) -> dict[str, bytes]:
    """Every row's bytes, whatever shard it lies in."""
    return {key: np.array(place.values()).tobytes() for key, place in Store(root, space, "model").index.items()}


def started(log: Path) -> list[int]:
    """The utterances that were begun."""
    return [int(line) for line in log.read_text().splitlines()] if log.is_file() else []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The rows of a filling that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert fill(folder / "store", 100, folder / "log") == 100
    return stored(folder / "store")


def test_twenty_kills_while_filling_lose_at_most_the_utterance_in_flight(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    generator, kills = random.Random(0), 20
    for _ in range(kills):
        before = len(started(tmp_path / "log"))
        process = processes.Process(target=fill, args=(tmp_path / "store", 100, tmp_path / "log", 0.003))
        process.start()
        while len(started(tmp_path / "log")) < before + 2:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, 0.012))  # in the middle of computing, of writing, of sealing
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert 40 <= len(started(tmp_path / "log")) <= 100 + kills
    fill(tmp_path / "store", 100, tmp_path / "log")
    assert stored(tmp_path / "store") == undisturbed
    assert len(started(tmp_path / "log")) <= 100 + kills
    assert not [*(tmp_path / "store" / SPACE.key).glob("*.part")]


@pytest.mark.parametrize("count", [2, 3])
def test_commands_started_together_compute_no_utterance_twice(tmp_path: Path, count: int, undisturbed: dict[str, bytes]) -> None:
    arguments = (tmp_path / "store", 100, tmp_path / "log", 0.002)
    both = [processes.Process(target=fill, args=arguments) for _ in range(count)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert sorted(started(tmp_path / "log")) == list(range(100))
    assert stored(tmp_path / "store") == undisturbed


def test_a_command_that_waits_says_for_whom(tmp_path: Path) -> None:
    other = processes.Process(target=fill, args=(tmp_path / "store", 1, tmp_path / "log", 0.3))
    other.start()
    while not started(tmp_path / "log"):
        time.sleep(0.01)
    message: list[str] = []
    computed = Store(tmp_path / "store", SPACE, "model").fill(
        {key_of(0): 0}, computing(tmp_path / "log"), lambda _: None, 0, message.append
    )
    other.join()
    assert computed == 0
    assert len(message) == 1
    assert f"waiting for process {other.pid} on" in message[0]


def test_what_was_there_is_not_computed_again(tmp_path: Path) -> None:
    fill(tmp_path / "store", 10, tmp_path / "log")
    assert fill(tmp_path / "store", 14, tmp_path / "log") == 4
    assert sorted(started(tmp_path / "log")) == list(range(14))


def test_every_row_moves_the_bar_once(tmp_path: Path) -> None:
    fill(tmp_path / "store", 5, tmp_path / "log")
    moved: list[int] = []
    Store(tmp_path / "store", SPACE, "model").fill({key_of(n): n for n in range(12)}, computing(tmp_path / "log"), moved.append)
    assert sorted(moved) == list(range(12))


def test_an_interrupted_filling_keeps_what_it_has_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    def interrupted(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
        for position, row in computing(tmp_path / "log")(numbers):
            if len(started(tmp_path / "log")) > 30:
                raise KeyboardInterrupt
            yield position, row

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path / "store", SPACE, "model").fill({key_of(n): n for n in range(100)}, interrupted, lambda _: None)
    assert not [*(tmp_path / "store" / SPACE.key).glob("*.part")]
    assert len(stored(tmp_path / "store")) == 30
    assert fill(tmp_path / "store", 100, tmp_path / "log") == 70


def fill_a_small_disk(root: Path, log: Path) -> None:
    """Fill a store where no file may grow beyond a size."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (7000, 7000))
    try:
        fill(root, 100, log)
    except OSError as problem:
        os._exit(problem.errno)


def test_nothing_half_written_is_taken_for_whole_after_a_full_disk(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    process = processes.Process(target=fill_a_small_disk, args=(tmp_path / "store", tmp_path / "log"))
    process.start()
    process.join()
    assert process.exitcode == 27  # EFBIG
    there = stored(tmp_path / "store")
    assert there.items() <= undisturbed.items()
    fill(tmp_path / "store", 100, tmp_path / "log")
    assert stored(tmp_path / "store") == undisturbed


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def replace_by_garbage(path: Path) -> None:
    path.write_bytes(b"garbage")


@pytest.mark.parametrize("harm", [cut, alter, replace_by_garbage])
def test_a_damaged_shard_is_removed_and_its_rows_computed_again(
    tmp_path: Path, harm: Callable[[Path], None], undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "store", 100, tmp_path / "log")
    shard = sorted((tmp_path / "store" / SPACE.key).glob("*.safetensors"))[3]
    harm(shard)
    again = fill(tmp_path / "store", 100, tmp_path / "log")
    assert 0 < again < 20
    assert f"{shard} is damaged: removed, its rows are computed again" in capsys.readouterr().err
    assert stored(tmp_path / "store") == undisturbed


def test_rows_that_rot_in_place_are_noticed_by_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Size and time of change are as before, so that the file is not compared as a whole."""
    fill(tmp_path / "store", 1, tmp_path / "log")
    [path] = (tmp_path / "store" / SPACE.key).glob("*.safetensors")
    state = path.stat()
    alter(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fill(tmp_path / "store", 1, tmp_path / "log") == 1
    assert f"{path} is damaged: removed" in capsys.readouterr().err


def test_a_stray_file_among_the_shards_is_removed(tmp_path: Path) -> None:
    fill(tmp_path / "store", 5, tmp_path / "log")
    (tmp_path / "store" / SPACE.key / "03-stray.safetensors").write_bytes(b"\0" * 100)
    assert fill(tmp_path / "store", 5, tmp_path / "log") == 0
    assert not (tmp_path / "store" / SPACE.key / "03-stray.safetensors").exists()


def test_a_shard_that_cannot_be_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "store", 5, tmp_path / "log")

    def refuse(path: Path) -> None:
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(module, "open_shard", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        Store(tmp_path / "store", SPACE, "model")
    monkeypatch.undo()
    assert len(stored(tmp_path / "store")) == 5


def test_checksums_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "store", 50, tmp_path / "log")
    for path in (tmp_path / "store" / SPACE.key).glob("*.safetensors"):
        os.utime(path)  # as after copying: not what was remembered when it was written
    checked: list[Path] = []
    is_sound = module.Shard.is_sound
    monkeypatch.setattr(module.Shard, "is_sound", lambda shard: (checked.append(shard.path), is_sound(shard))[1])
    Store(tmp_path / "store", SPACE, "model")
    count = len(checked)
    Store(tmp_path / "store", SPACE, "model")
    assert len(checked) == count > 5


@pytest.mark.parametrize("scale", [float("inf"), float("nan")])
def test_what_is_no_number_is_never_stored(tmp_path: Path, scale: float) -> None:
    numbers = {key_of(n): n for n in range(20)}
    store = Store(tmp_path / "store", SPACE, "model")
    with pytest.raises(UserError, match=r"Expected finite features to store, found NaN or infinity: \d+\. Look for damaged"):
        store.fill(numbers, computing(tmp_path / "log", scale=scale), lambda _: None)
    assert Store(tmp_path / "store", SPACE, "model").index == {}
    assert store.fill(numbers, computing(tmp_path / "log"), lambda _: None) == 20


@pytest.mark.parametrize("scale", [1e5])
def test_what_float16_cannot_hold_is_kept_in_float32(tmp_path: Path, scale: float) -> None:
    numbers = {key_of(n): n for n in range(20)}
    store = Store(tmp_path / "store", SPACE, "model")
    store.fill({key: n for key, n in numbers.items() if n % 2}, computing(tmp_path / "log"), lambda _: None)
    store.fill(numbers, computing(tmp_path / "log", scale=scale), lambda _: None)
    for key, number in numbers.items():
        values = Store(tmp_path / "store", SPACE, "model").index[key].values()
        if number % 2:
            assert values.dtype == np.float16
            np.testing.assert_allclose(values, features(number), rtol=1e-3, atol=1e-6)
        else:
            np.testing.assert_array_equal(values, features(number, scale))


def test_means_are_kept_in_float32(tmp_path: Path) -> None:
    fill(tmp_path / "store", 5, tmp_path / "log", space=replace(SPACE, pooled=True))
    values = Store(tmp_path / "store", replace(SPACE, pooled=True), "model").index[key_of(3)].values()
    np.testing.assert_array_equal(values, features(3))


@pytest.mark.parametrize("field", [field.name for field in fields(Space)])
def test_whatever_a_space_says_separates_it(field: str) -> None:
    old = getattr(SPACE, field)
    new = {bool: not old, str: f"{old}2", int: 77, tuple: (0, 1)}[type(old)]
    assert replace(SPACE, **{field: new}).key != SPACE.key


def test_a_held_space_is_not_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, SPACE, "model")
    assert not remove(store.folder)
    store.held.close()
    assert remove(store.folder)
    assert not [*tmp_path.glob("*/")]


def test_a_space_that_is_held_by_two_is_kept_until_both_have_gone(tmp_path: Path) -> None:
    first, second = Store(tmp_path, SPACE, "model"), Store(tmp_path, SPACE, "model")
    first.held.close()
    assert not remove(first.folder)
    second.held.close()
    assert remove(first.folder)


def use_later(root: Path, log: Path, go: Path) -> None:
    """Open a space that is being removed, and fill it; started before, since a fork holds what its parent holds."""
    while not go.exists():
        time.sleep(0.001)
    fill(root, 3, log)


def test_a_space_that_is_removed_while_somebody_waits_for_it_is_made_anew(tmp_path: Path) -> None:
    root, log = tmp_path / "store", tmp_path / "log"
    fill(root, 5, log)
    waiting = processes.Process(target=use_later, args=(root, log, tmp_path / "go"))
    waiting.start()
    with locked_alone(root / SPACE.key) as free:
        assert free
        (tmp_path / "go").touch()
        time.sleep(0.1)  # it stands at the lock now
        gone = root / ".gone"
        os.replace(root / SPACE.key, gone)
        for path in sorted(gone.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    waiting.join()
    assert waiting.exitcode == 0
    assert len(stored(root)) == 3


def test_an_empty_store_that_is_not_used_leaves_no_folder(tmp_path: Path) -> None:
    Store(tmp_path, SPACE, "model").leave()
    assert not [*tmp_path.glob("*/")]
    fill(tmp_path, 2, tmp_path / "log")
    Store(tmp_path, SPACE, "model").leave()
    assert len(stored(tmp_path)) == 2


OFFLINE = [row.name for row in list_upstreams() if row.source == "built in" and row.modality == "audio"]


def test_no_two_upstreams_share_their_features() -> None:
    assert {"fbank", "fbank_no_cmvn", "mfcc", "test_hubert", "test_whisper"} <= {*OFFLINE}
    assert len({fingerprint(load_upstream(name)) for name in OFFLINE}) == len(OFFLINE)


@pytest.mark.parametrize("name", OFFLINE)
def test_an_upstream_has_the_same_fingerprint_in_every_run(name: str) -> None:
    assert fingerprint(load_upstream(name)) == fingerprint(load_upstream(name))


def test_the_same_model_from_another_folder_or_name_shares_its_features(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        tiny_model("test_hubert").save_pretrained(tmp_path / folder)
    found = {fingerprint(load_upstream(str(tmp_path / folder))) for folder in ("here", "there")}
    assert found == {fingerprint(load_upstream("test_hubert"))}


def changed_weight(config: UpstreamConfig) -> Upstream:
    upstream = load_upstream(config)
    with torch.no_grad():
        next(upstream.parameters()).view(-1)[0] += 1e-6
    return upstream


def spaces_of_options() -> dict[str, Space]:
    """The space of each way to use one upstream."""
    plain = UpstreamConfig(name="test_hubert")
    used = {"layers": range(5), "statistics": "mean", "precision": "float32"}

    def of(config: UpstreamConfig = plain, upstream: Upstream | None = None, **changes: Any) -> Space:
        return space_of(upstream or load_upstream(config), config, **{**used, **changes})

    return {
        "plain": of(),
        "a weight": of(upstream=changed_weight(plain)),
        "padding": of(replace(plain, padding="s3prl")),
        "padding of a run folder's own": of(upstream=load_upstream(replace(plain, padding="s3prl"))),
        "normalize_waveform": of(replace(plain, normalize_waveform="yes")),
        "keep_layers": of(replace(plain, keep_layers=2), layers=range(3)),
        "normalize_layers": of(replace(plain, normalize_layers=True)),
        "precision": of(precision="bf16"),
        "one layer": of(layers=[2]),
        "frames": of(statistics=None),
    }


def test_a_changed_weight_or_option_has_a_space_of_its_own() -> None:
    keys = {name: space.key for name, space in spaces_of_options().items()}
    assert len({*keys.values()}) == len(keys), keys


def test_whispers_positions_are_an_option_too() -> None:
    configs = [UpstreamConfig(name="test_whisper", attend=attend) for attend in ("all", "valid")]
    assert len({fingerprint(load_upstream(config)) for config in configs}) == 2


class Foreign(Upstream):
    """Somebody's own upstream without a weight."""

    spec = load_upstream("fbank").spec

    def forward(self, batch: Any, *, views: int = 1, masked: Any = None, layers: Any = None) -> Any:
        """Never called here."""
        raise NotImplementedError


def test_the_code_of_somebodys_own_upstream_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "mine.py"
    monkeypatch.setitem(module.sys.modules, Foreign.__module__, type("Mine", (), {"__file__": str(code)}))
    code.write_text("HOP = 160")
    before = fingerprint(Foreign())
    assert fingerprint(Foreign()) == before
    code.write_text("HOP = 320")
    assert fingerprint(Foreign()) != before


def test_a_row_is_known_by_its_files_bytes_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"the same")
    (tmp_path / "c.wav").write_bytes(b"another!")
    keys = row_keys([Utterance(name, str(tmp_path / name)) for name in ("a.wav", "b.wav", "c.wav")], tmp_path, 16000)
    assert keys["a.wav"] == keys["b.wav"] != keys["c.wav"]


def test_a_changed_file_is_another_row(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"before")
    before = row_keys([Utterance("u", str(path))], tmp_path, 16000)
    path.write_bytes(b"after!")
    os.utime(path, ns=(0, 12345))
    assert row_keys([Utterance("u", str(path))], tmp_path, 16000) != before


def test_another_cut_or_sample_rate_is_another_row() -> None:
    cuts = [(0.0, None), (0.5, None), (0.0, 0.5), (0.5, 0.5), (0.50001, 0.5), (0.5, 0.50001)]
    keys = {row_key("hash", Utterance("u", "a.wav", start, duration), rate) for start, duration in cuts for rate in (8000, 16000)}
    assert len(keys) == 2 * len(cuts)
    assert row_key("other", Utterance("u", "a.wav"), 16000) not in keys


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(b"bytes")
    utterances = [Utterance(str(start), str(tmp_path / "a.wav"), start, 1.0) for start in range(5)]
    first = row_keys(utterances, tmp_path, 16000)
    monkeypatch.setattr("headwater.core.files.hash_file", lambda path: pytest.fail(f"{path} was read again"))
    assert row_keys(utterances, tmp_path, 16000) == first


def test_audio_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected readable audio, found: No such file or directory: .*none\.wav\. Replace"):
        row_keys([Utterance("u", str(tmp_path / "none.wav"))], tmp_path, 16000)


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5TB", 15 * 10**11), ("7B", 7), ("3", 3 * 10**9)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "much", "-5GB", "nanGB", "infGB", "1e9", "5XB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="Expected a size such as 20GB, found"):
        parse_size(text)


def test_bytes_are_printed_in_words() -> None:
    assert [format_bytes(size) for size in (12, 39_936, 3_594_000_000)] == ["12 B", "39.9 kB", "3.6 GB"]


def test_the_default_limit_is_the_smaller_of_50_gb_and_a_quarter_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, limit in ((40 * 10**9, 10 * 10**9), (10**13, 50 * 10**9)):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
        assert default_limit(tmp_path / "not" / "there") == limit


@pytest.mark.parametrize("name", KEYS_BEFORE)
def test_the_key_of_an_upstream_is_what_it_was(name: str) -> None:
    assert fingerprint(load_upstream(name), "weights") == KEYS_BEFORE[name]


@pytest.mark.parametrize(("name", "pooled", "tolerance"), [("fbank", False, 2e-2), ("test_hubert", True, 1e-5)])
def test_a_store_of_before_is_found_and_nothing_is_computed(name: str, pooled: bool, tolerance: float, tmp_path: Path) -> None:
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    upstream, utterances = load_upstream(name), [Utterance(file, str(tmp_path / file)) for file in ("0.wav", "1.wav")]
    layers = range(upstream.spec.num_layers)
    space = space_of(
        upstream, UpstreamConfig(name=name), layers=layers, statistics="mean" if pooled else None, precision="float32"
    )
    store = Store(tmp_path / "store", space, name)
    keys = row_keys(utterances, tmp_path / "store", upstream.spec.sample_rate)

    def compute(missing: Sequence[Utterance]) -> Iterator[tuple[int, Computed]]:
        assert not missing, "the features are there"
        return iter(())

    assert store.fill({keys[row.id]: row for row in utterances}, compute, lambda _: None) == 0
    for row in utterances:
        with torch.no_grad():
            found = upstream([read_audio(row.audio)])
        expected = torch.stack([value[0] for value in found.values], dim=1)
        expected = expected.mean(dim=0, keepdim=True) if pooled else expected
        assert np.abs(store.index[keys[row.id]].values() - expected.numpy()).max() <= tolerance
