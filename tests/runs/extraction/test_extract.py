"""An extraction in shards, by several processes that are killed, is the store of one; and a run finds it."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from headwater.core.errors import UserError
from headwater.corpus.fingerprints import row_keys
from headwater.corpus.read import load_corpus
from headwater.corpus.recordings.source import Source, find_source
from headwater.runs import features
from headwater.runs.config.resolve import resolve
from headwater.runs.extraction import merge as merging
from headwater.runs.extraction import plan as planning
from headwater.runs.extraction import shard as module
from headwater.runs.extraction.config import ExtractConfig, Kept, Rows
from headwater.runs.extraction.extract import Outcome, Share, extract
from headwater.runs.extraction.job import JOURNAL, Job
from headwater.runs.extraction.shard import Engine
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.store.maintenance import damaged_shards, list_spaces
from headwater.upstream.store.merged import Part, merged_parts
from headwater.upstream.store.shards import open_shard
from headwater.upstream.store.store import Store
from headwater.upstream.store.writing import Computed

processes = multiprocessing.get_context("fork")  # started at once: nothing is imported again
CONFIG = ExtractConfig(UpstreamConfig("test_hubert"))
MEANS = Rows()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 files of noise, 0.1 to 0.3 s."""
    folder, generator = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for number in range(40):
        soundfile.write(folder / f"{number:02d}.wav", 0.1 * generator.standard_normal(int(generator.uniform(1600, 4800))), 16_000)
    return folder


@pytest.fixture(autouse=True)
def one_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time a short sample: these files have few seconds."""
    monkeypatch.setattr(planning, "SAMPLE_SECONDS", 0.5)


def run_extract(
    source: Source, root: Path, *, config: ExtractConfig = CONFIG, rows: Rows = MEANS, **share: object
) -> tuple[Outcome, list[str]]:
    """Extract, and return what came of it and every line that was printed."""
    lines: list[str] = []
    outcome = extract(source, config, rows, root, Share(**share), Runtime("cpu", quiet=True), lines.append, lines.append)  # type: ignore[arg-type]
    return outcome, lines


def stored(root: Path) -> dict[str, bytes]:
    """Return the bytes of every row of a root's only space: of merged parts, read as a run reads them."""
    [space] = list_spaces(root)
    shards = [open_shard(path) for path in space.folder.rglob("*.safetensors")]
    keys = [row.key for shard in shards if shard is not None for row in shard.rows]
    store = Store.__new__(Store)
    store.root, store.folder, store.index = root, space.folder, {}
    described = space.described
    store.space = type("Space", (), {"layers": described["layers"], "dim": described["dim"]})()  # type: ignore[assignment]
    store.look_up(keys)
    assert store.index.keys() == {*keys}
    return {key: place.values().tobytes() for key, place in store.index.items()}


def rows_in(root: Path) -> dict[str, bytes]:
    """Return the bytes of every row below a folder, whoever wrote it."""
    shards = [shard for path in root.rglob("*.safetensors") if (shard := open_shard(path)) is not None]
    return {row.key: shard.values[row.start : row.start + row.frames].tobytes() for shard in shards for row in shard.rows}


def job_of(outcome: Outcome) -> Job:
    """Return the job, which there is."""
    assert outcome.job is not None
    return outcome.job


@pytest.fixture(scope="session")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The rows of an extraction in one shard that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed")
    outcome, _ = run_extract(find_source([str(clips)]), root, shards=1)
    assert outcome.merged is not None
    assert (outcome.merged.utterances, outcome.merged.rows, outcome.failures) == (40, 40, 0)
    return stored(root)


def slow_extract(clips: Path, root: Path, log: Path) -> None:
    """Extract in four shards, and write a line for each utterance that the model has computed; in a process of its own."""
    torch.set_num_threads(1)
    compute = Engine.rows

    def counted(engine: Engine, waveforms: list[np.ndarray]) -> list:
        time.sleep(0.01)
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return compute(engine, waveforms)

    Engine.rows = counted  # type: ignore[method-assign,assignment]
    run_extract(find_source([str(clips)]), root, shards=4)


def lines_of(log: Path) -> list[str]:
    """Return the lines of a log that may not be there yet."""
    return log.read_text().splitlines() if log.exists() else []


def test_four_shards_by_two_processes_with_three_kills_are_one_store(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    log, root, kills = tmp_path / "log", tmp_path / "store", 3
    outcome, _ = run_extract(find_source([str(clips)]), root, shards=4, shard=0)  # the plan, and one shard
    assert outcome.merged is None
    assert job_of(outcome).left() == [1, 2, 3]
    alive = [processes.Process(target=slow_extract, args=(clips, root, log)) for _ in range(2)]
    for process in alive:
        process.start()
    for _ in range(kills):
        before = len(lines_of(log))
        while len(lines_of(log)) < before + 4:
            assert any(process.is_alive() for process in alive)
            time.sleep(0.001)
        victim = next(process for process in alive if process.is_alive())
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        alive.remove(victim)
        alive.append(processes.Process(target=slow_extract, args=(clips, root, log)))
        alive[-1].start()
    for process in alive:
        process.join()
        assert process.exitcode == 0
    assert len({*lines_of(log)}) >= 2
    assert len(lines_of(log)) <= 30 + kills  # what was in the making, and nothing else, was computed again
    assert stored(root) == undisturbed
    outcome, lines = run_extract(find_source([str(clips)]), root)
    assert outcome.merged is not None
    assert outcome.merged.rows == 40
    assert "done      4 of 4 shards" in lines
    assert not [*root.rglob("*.part")]
    assert not [*root.rglob("*.rows")]
    assert damaged_shards(root) == (len([*root.rglob("*.safetensors")]), [])


def test_two_extractions_that_merge_at_once_are_both_found(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for clip in sorted(clips.iterdir())[:2]:
            shutil.copy(clip, tmp_path / name)
    one, two = (find_source([str(tmp_path / name)]) for name in ("one", "two"))
    jobs = [job_of(run_extract(source, tmp_path / "store", shards=1)[0]) for source in (one, two)]
    other = threading.Thread(target=run_extract, args=(two, tmp_path / "store"))

    def read_meanwhile(space: Path) -> list[Part]:
        """Return the parts as they are, once another merge has had time to write its own."""
        found = [part for part in merged_parts(space) if part.folder.parent != jobs[1].folder]
        if threading.current_thread() is not other:
            other.start()
            other.join(0.5)
        return found

    monkeypatch.setattr(merging, "merged_parts", read_meanwhile)
    run_extract(one, tmp_path / "store")
    other.join()
    assert {part.folder.parent for part in merged_parts(jobs[0].space)} == {job.folder for job in jobs}


def test_the_merge_twice_is_the_merge_once(clips: Path, tmp_path: Path) -> None:
    source = find_source([str(clips)])
    outcome, _ = run_extract(source, tmp_path, shards=3)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "locks" not in path.parts}
    again, _ = run_extract(source, tmp_path)
    assert again.merged == outcome.merged
    unchanged = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "locks" not in path.parts}
    assert {path for path in files if path.suffix != ".sqlite"} == {path for path in unchanged if path.suffix != ".sqlite"}
    assert all(unchanged[path] == content for path, content in files.items() if path.suffix != ".sqlite")


@pytest.mark.parametrize(("name", "mode"), [("{n}.tar", "w"), ("{n}.tar.gz", "w:gz")])
def test_tars_give_the_rows_of_their_files(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes], name: str, mode: str
) -> None:
    for number in range(3):
        with tarfile.open(tmp_path / name.format(n=number), mode) as tar:  # type: ignore[call-overload]
            for path in sorted(clips.iterdir())[number::3]:
                tar.add(path, path.name)
    outcome, lines = run_extract(find_source([str(tmp_path / name.format(n="{0..2}"))]), tmp_path / "store")
    assert stored(tmp_path / "store") == undisturbed
    assert "40 utterances, from the headers of all 40 recordings" in lines[0]
    [row, *_] = csv.DictReader((job_of(outcome).part(0) / "utterances.csv").open())
    assert row["audio"] == str(tmp_path / name.format(n=0) / "00.wav")
    assert (row["start"], row["end"]) == ("", "")


def test_a_run_finds_what_was_extracted_and_computes_nothing(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, _ = run_extract(find_source([str(tones)]), tmp_path / "store", shards=4)
    assert outcome.merged is not None
    assert outcome.merged.utterances == 72
    training = {"steps": 4, "batch_size": 8, "eval_every": 2, "log_every": 1, "patience": None}
    recipe = {"task": "emotion", "upstream": {"name": "test_hubert"}, "corpus": {"data": str(tones)}}
    config = resolve([{**recipe, "training": training}])
    own = run(replace(config, store=replace(config.store, mode=str(tmp_path / "own"))), tmp_path / "computed", Runtime("cpu"))

    def refuse(*_: object) -> None:
        raise AssertionError("a row was computed")

    monkeypatch.setattr(features, "compute", refuse)
    found = run(replace(config, store=replace(config.store, mode=str(tmp_path / "store"))), tmp_path / "run", Runtime("cpu"))
    assert "72 utterances are there already (means): no audio is read" in capsys.readouterr().err
    assert found["scores"] == own["scores"]
    assert rows_in(tmp_path / "store") == rows_in(tmp_path / "own")  # to the byte
    [space] = list_spaces(tmp_path / "store")
    assert (space.rows, space.holds) == (72, "means")
    assert not [*space.folder.glob("*.safetensors")]


def test_long_recordings_are_the_rows_of_a_table_that_names_their_stretches(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", 0.1 * np.random.default_rng(0).standard_normal(16_000 * 7 + 4_321), 16_000)
    (tmp_path / "audio").mkdir()
    shutil.move(tmp_path / "long.flac", tmp_path / "audio" / "long.flac")
    rows = Rows(stretch=2.0)
    outcome, lines = run_extract(find_source([str(tmp_path / "audio")]), tmp_path / "store", rows=rows)
    assert "in 4 utterances" in lines[0]
    listed = job_of(outcome).part(0) / "utterances.csv"
    assert [(row["start"], row["end"]) for row in csv.DictReader(listed.open())] == [
        ("0.0", "2.0"),
        ("2.0", "4.0"),
        ("4.0", "6.0"),
        ("6.0", "7.270062"),
    ]
    corpus = load_corpus(
        "manifest", str(listed), protocol="all_test", options={"label_required": False, "splits_required": False}
    )
    keys = row_keys(corpus.splits["test"], tmp_path, 16_000)
    assert {*keys.values()} == {*stored(tmp_path / "store")}


def test_broken_recordings_are_named_counted_and_tried_again_when_wanted(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    shutil.copytree(clips, folder)
    whole = (folder / "03.wav").read_bytes()
    (folder / "03.wav").write_bytes(whole[:-100])
    (folder / "04.wav").write_bytes(b"")
    soundfile.write(folder / "05.wav", np.full(4000, np.nan, np.float32), 16_000, subtype="FLOAT")
    table = tmp_path / "t.csv"
    table.write_text("audio\n" + "".join(f"audio/{path.name}\n" for path in sorted(folder.iterdir())) + "audio/none.wav\n")
    outcome, lines = run_extract(find_source([str(table)]), tmp_path / "store", shards=2)
    assert outcome.merged is not None
    assert (outcome.failures, outcome.merged.utterances) == (4, 37)
    failures = [*csv.DictReader((job_of(outcome).folder / "failures.csv").open())]
    reasons = {row["id"].rpartition("/")[2]: row["reason"] for row in failures}
    assert "cut short: the header promises 100 bytes more" in reasons["03.wav"]
    assert "an empty file (0 bytes)" in reasons["04.wav"]
    assert "samples that are no numbers" in reasons["05.wav"]
    assert "No such file" in reasons["none.wav"]
    assert any(" failed, listed in " in line for line in lines)
    (folder / "03.wav").write_bytes(whole)
    same, _ = run_extract(find_source([str(table)]), tmp_path / "store")
    assert same.failures == 4
    mended, _ = run_extract(find_source([str(table)]), tmp_path / "store", retry=True)
    assert mended.merged is not None
    assert (mended.failures, mended.merged.utterances) == (3, 38)


def test_what_the_model_makes_nothing_of_is_a_failure(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Engine.rows
    lengths = sorted(soundfile.info(path).frames for path in clips.iterdir())

    def spoilt(engine: Engine, waveforms: list[np.ndarray]) -> list[Computed]:
        [row] = original(engine, waveforms)
        place = lengths.index(len(waveforms[0]))
        if place == 0:
            raise ValueError("Expected more samples.")
        values = np.full_like(row.values, np.nan) if place == 1 else row.values
        return [replace(row, values=values, frames=0 if place == 2 else row.frames)]

    source = find_source([str(clips)])
    monkeypatch.setattr(planning, "time_sample", lambda *_: (1.0, 1.0))
    monkeypatch.setattr(Engine, "rows", spoilt)
    outcome, _ = run_extract(source, tmp_path, shards=1)
    assert outcome.merged is not None
    assert (outcome.failures, outcome.merged.utterances) == (3, 37)
    text = (job_of(outcome).folder / "failures.csv").read_text()
    assert "the model refuses it: Expected more samples." in text
    assert "its features are NaN or infinite" in text
    assert "are too short for a frame" in text


def test_a_broken_tar_stops_no_other(clips: Path, tmp_path: Path) -> None:
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for path in sorted(clips.iterdir())[number::2]:
                tar.add(path, path.name)
    content = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(content[: len(content) // 2])
    outcome, _ = run_extract(find_source([str(tmp_path / "{0..1}.tar")]), tmp_path / "store")
    assert outcome.merged is not None
    assert outcome.failures == 1
    assert 20 < outcome.merged.utterances < 35


def test_what_is_in_the_journal_is_not_read_again(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_source([str(clips)])
    outcome, _ = run_extract(source, tmp_path, shards=1)
    job, rows = job_of(outcome), stored(tmp_path)
    (job.part(0) / "done.json").unlink()
    journal = (job.part(0) / JOURNAL).read_bytes()
    (job.part(0) / JOURNAL).write_bytes(journal[:-20])  # killed in the middle of the last line
    read: list[str] = []
    original = module.Reader.of_one

    def counted(reader: module.Reader, recording: object) -> Iterator:
        read.append(recording.name)  # type: ignore[attr-defined]
        return original(reader, recording)  # type: ignore[arg-type]

    monkeypatch.setattr(module.Reader, "of_one", counted)
    monkeypatch.setattr(Engine, "rows", lambda *_: pytest.fail("it was computed again"))
    again, _ = run_extract(source, tmp_path)
    assert again.merged is not None
    assert again.merged.utterances == 40
    assert len(read) == 1
    assert stored(tmp_path) == rows


def test_a_damaged_file_is_found_at_the_merge_and_only_its_rows_are_computed_again(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_source([str(clips)])
    outcome, _ = run_extract(source, tmp_path, shards=4)
    [path] = job_of(outcome).part(2).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    count: list[int] = []
    original = Engine.rows
    monkeypatch.setattr(Engine, "rows", lambda engine, waves: count.append(len(waves)) or original(engine, waves))
    again, _ = run_extract(source, tmp_path)
    assert again.merged is not None
    assert sum(count) == 10
    assert stored(tmp_path) == undisturbed


def test_a_merge_looks_at_a_row_of_each_file(clips: Path, tmp_path: Path) -> None:
    source = find_source([str(clips)])
    outcome, _ = run_extract(source, tmp_path, shards=2)
    [path] = job_of(outcome).part(1).glob("*.safetensors")
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    content[begin:] = bytes(byte ^ 0xFF for byte in content[begin:])  # size and header as before
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"found damage in 00001: what is damaged is removed"):
        run_extract(source, tmp_path)
    assert not path.exists()


def test_a_merge_refuses_an_index_that_was_altered(clips: Path, tmp_path: Path) -> None:
    source = find_source([str(clips)])
    outcome, _ = run_extract(source, tmp_path, shards=2)
    part = job_of(outcome).part(1)
    keys = np.load(part / "keys.npy")
    np.save(part / "keys.npy", keys[::-1])
    with pytest.raises(
        UserError, match=r"Expected 2 sound shards in .*, found damage in 00001: what is damaged is removed. Look"
    ):
        run_extract(source, tmp_path)
    again, _ = run_extract(source, tmp_path)
    assert again.merged is not None
    assert again.merged.rows == 40


def test_rows_that_another_extraction_has_are_not_computed_again(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for path in sorted(clips.iterdir())[:30]:
        shutil.copy(path, tmp_path / "audio")
    run_extract(find_source([str(tmp_path / "audio")]), tmp_path / "store", shards=2)
    outcome, _ = run_extract(find_source([str(clips)]), tmp_path / "store", shards=2)
    assert outcome.merged is not None
    assert (outcome.merged.utterances, outcome.merged.rows) == (40, 10)
    [space] = list_spaces(tmp_path / "store")
    assert space.rows == 40


def test_blocks_of_a_gpu_give_the_rows_of_single_utterances(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = Engine.rows
    monkeypatch.setattr(Engine, "on_cpu", False)
    monkeypatch.setattr(module, "BLOCK_SECONDS", 3.0)
    monkeypatch.setattr(Engine, "rows", lambda engine, waves: sizes.append(len(waves)) or original(engine, waves))
    run_extract(find_source([str(clips)]), tmp_path, shards=1)
    found = stored(tmp_path)
    assert max(sizes) > 4
    assert found.keys() == undisturbed.keys()
    for key, row in undisturbed.items():
        assert np.allclose(np.frombuffer(found[key], np.float32), np.frombuffer(row, np.float32), atol=1e-5)


def test_the_plan_stops_before_anything_is_written(clips: Path, tmp_path: Path) -> None:
    outcome, lines = run_extract(find_source([str(clips)]), tmp_path / "store", plan=True)
    assert outcome.job is None
    assert [line.split()[0] for line in lines] == ["audio", "disk", "time", "shards", "folder"]
    assert "mean of 5 layers in float32, 64 numbers each" in lines[1]
    assert "core-seconds: a second of audio takes" in lines[2]
    assert not [*(tmp_path / "store").iterdir()]


def test_the_plan_says_what_the_disk_holds_in_the_end(clips: Path, tmp_path: Path) -> None:
    for frames in (False, True):
        root = tmp_path / f"store-{frames}"
        outcome, _ = run_extract(find_source([str(clips)]), root, rows=Rows(frames=frames), shards=1)
        planned = int(job_of(outcome).plan["bytes"])
        rows = sum(len(row) for row in stored(root).values())
        assert rows <= planned <= rows + 40 * 1500


def test_large_sources_are_sampled_and_it_is_said(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headwater.runs.extraction import extent

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in sorted(clips.iterdir()):
            tar.add(path, path.name)
    exact = sum(soundfile.info(path).duration for path in clips.iterdir())
    for words in ([str(clips)], [str(tmp_path / "a.tar")]):
        monkeypatch.setattr(extent, "MOST_HEADERS", 25)
        monkeypatch.setattr(extent, "SAMPLED", 25)
        found = extent.measure_extent(find_source(words), None, lambda _: 1)
        assert found.how.startswith("estimated from the headers of 25 of about 4")
        assert "±" in found.how
        assert found.seconds == pytest.approx(exact, rel=0.2)


def test_frames_are_kept_in_16_and_in_8_bits(clips: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(clips.iterdir())[:3]:
        shutil.copy(path, few)
    sizes = {}
    for numbers in ("float16", "int8"):
        config = replace(CONFIG, store=Kept(numbers))  # type: ignore[arg-type]
        run_extract(find_source([str(few)]), tmp_path / numbers, config=config, rows=Rows(frames=True))
        sizes[numbers] = sum(path.stat().st_size for path in (tmp_path / numbers).rglob("*.safetensors"))
        [space] = list_spaces(tmp_path / numbers)
        assert space.holds == ("frames" if numbers == "float16" else "frames in 8 bits")
    assert stored(tmp_path / "float16").keys() == stored(tmp_path / "int8").keys()


def test_frames_beyond_the_stated_size_are_refused_with_the_ways_out(clips: Path, tmp_path: Path) -> None:
    source = find_source([str(clips)])
    with pytest.raises(UserError) as caught:
        run_extract(source, tmp_path, rows=Rows(frames=True), most="10KB")
    message = str(caught.value)
    assert message.startswith("Expected at most 10.0 kB (--most), found ")
    assert "Keep means (without --frames: " in message
    assert "8 bits (-o store.precision=int8: " in message
    assert "one layer (-l N: " in message
    assert message.endswith("raise it: --most 1GB")
    assert "\n" not in message
    assert not [*tmp_path.glob("*/extract")]
    run_extract(source, tmp_path, most="10MB")


def test_a_disk_without_room_is_named_before_anything_is_computed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"Expected room for .* kB in .*, found 1.0 kB free. Choose another disk \(--store DIR\)"):
        run_extract(find_source([str(clips)]), tmp_path)


def test_a_shard_that_another_process_holds_is_refused_and_named(clips: Path, tmp_path: Path) -> None:
    source = find_source([str(clips)])
    outcome, _ = run_extract(source, tmp_path, shards=2, shard=0)
    job = job_of(outcome)
    with job.claimed(1) as claim:
        assert claim is not None
        with pytest.raises(UserError, match=rf"Expected a free shard, found shard 1 by process {os.getpid()} on .*. Wait for it"):
            run_extract(source, tmp_path, shard=1)
        others, _ = run_extract(source, tmp_path)
        assert others.merged is None
        assert others.held[0].startswith("shard 1 by process")
    last, _ = run_extract(source, tmp_path, shard=1)
    assert last.merged is not None


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ({"shards": 0}, "Expected --shards from 1 to 40, the number of files, found 0"),
        ({"shards": 41}, "Expected --shards from 1 to 40, the number of files, found 41"),
        ({"shards": 4, "shard": 4}, "Expected --shard from 0 to 3, found 4. They are counted from 0, as in --array=0-3"),
    ],
)
def test_shards_that_are_none_are_refused(clips: Path, tmp_path: Path, share: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_extract(find_source([str(clips)]), tmp_path, **share)
    assert not [*tmp_path.glob("*/extract")]


def test_another_number_of_shards_than_was_begun_is_refused(clips: Path, tmp_path: Path) -> None:
    source = find_source([str(clips)])
    run_extract(source, tmp_path, shards=4, shard=0)
    with pytest.raises(UserError, match=r"Expected --shards 4, as this extraction was begun, found 5. Leave it out, or remove "):
        run_extract(source, tmp_path, shards=5)


def test_leases_do_what_flock_does(
    clips: Path, tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_LOCKS", "lease")
    log, root = tmp_path / "log", tmp_path / "store"
    many = [processes.Process(target=slow_extract, args=(clips, root, log)) for _ in range(2)]
    for process in many:
        process.start()
    while len(lines_of(log)) < 20:
        time.sleep(0.001)
    many[0].kill()
    for process in many:
        process.join()
    outcome, _ = run_extract(find_source([str(clips)]), root)
    assert outcome.merged is not None
    assert json.loads((job_of(outcome).folder / "plan.json").read_text())["locks"] == "lease"
    assert stored(root) == undisturbed
