"""Frames in 8 bits beside float16 and beside no store: bytes, seconds, what is lost, and scores of phone recognition.

    python benchmarks/eight_bits.py DATA WEIGHTS WORK [--only speed] [--seeds 3]

DATA and WEIGHTS as for `real_speech.py`. Ways are measured in turns, medians of three, on one thread: seconds of
the processor for an hour of audio, and of the clock where a disk is read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median, stdev

import torch
from accelerate import Accelerator
from real_speech import HOME, SETS, VALID, write_table
from reference import random_hubert

from headwater.corpus.audio import read_audio
from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example, make_batch
from headwater.corpus.fingerprints import row_keys
from headwater.inference.load import load_run
from headwater.inference.trained_run import TrainedRun
from headwater.runs.evaluation import evaluate_task
from headwater.runs.features import compute, with_store
from headwater.runs.prepare import prepare
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.runs.store_choice import forget
from headwater.training.batches import cut_pieces
from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.load import load_upstream
from headwater.upstream.store.reading import ShardLayers
from headwater.upstream.store.space import Numbers, space_of
from headwater.upstream.store.store import Store

KEPT: tuple[Numbers, ...] = ("float16", "int8")
PHONES = ("learners' phones", "EmoDB's phones")
REPEATS = 3


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--only", choices=("speed", "scores"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    flags.work.mkdir(parents=True, exist_ok=True)
    if flags.only != "scores":
        files = sorted(flags.data.glob("LibriSpeech/train-clean-100/*/*/*.flac"))
        base = random_hubert(flags.work / "hubert_base_random") if not (flags.work / "hubert_base_random").is_dir() else None
        base = base or flags.work / "hubert_base_random"
        whisper = UpstreamConfig(name=str(flags.weights / "whisper_tiny_en"), attend="valid")
        print("| upstream | MB an hour and layer | fill | read, from memory | from the disk | without a store | lost by layer |")
        print("|---|---|---|---|---|---|---|")
        for name, config, step in (
            ("Whisper tiny.en", whisper, 4),
            ("`test_hubert`", UpstreamConfig(name="test_hubert"), 4),
            ("HuBERT-base size, random weights", UpstreamConfig(name=str(base)), 30),
        ):
            speed(name, config, files[::step], flags.work / "stores")
    if flags.only != "speed":
        print("\n| set | kept in | phone error rate of the test by seed | mean |\n|---|---|---|---|")
        for name in PHONES:
            scores(name, flags)


def speed(name: str, config: UpstreamConfig, files: Sequence[Path], root: Path) -> None:
    """Print two rows: what an hour of audio takes in bytes, and in seconds to fill, to read and to do without."""
    upstream = load_upstream(config).eval()
    examples = [Example(Utterance(str(file), str(file)), len(read_audio(file)) / 16_000) for file in files]
    hours = sum(example.seconds for example in examples) / 3600
    layers, accelerator = range(upstream.spec.num_layers), Accelerator(cpu=True)
    spaces = {
        numbers: space_of(upstream, config, layers=layers, statistics=None, precision="float32", numbers=numbers)
        for numbers in KEPT
    }
    took: dict[str, list[float]] = {}
    on_the_fly(upstream, examples[:2])  # a model's first pass is slower
    for _ in range(REPEATS):
        took.setdefault("without", []).append(seconds_of(lambda: on_the_fly(upstream, examples)))
        for numbers, space in spaces.items():
            shutil.rmtree(root, ignore_errors=True)
            store = Store(root, space, name)
            keys = row_keys([example.utterance for example in examples], root, 16_000)
            wanted = {keys[example.utterance.id]: example for example in examples}

            def fill(store: Store = store, wanted: dict[str, Example] = wanted) -> None:
                store.fill(wanted, lambda rows: compute(upstream, store.space, rows, accelerator), lambda _: None)

            took.setdefault(f"{numbers} fill", []).append(seconds_of(fill))
            stored = ShardLayers(store, {name: store.index[key] for name, key in keys.items()}, layers, numbers)
            for path in store.folder.glob("*.safetensors"):
                forget(path)
            for kind, clock in (("disk", time.perf_counter), ("memory", time.process_time)):
                took.setdefault(f"{numbers} {kind}", []).append(seconds_of(lambda stored=stored: read(stored, examples), clock))
            size = sum({place.shard.path: place.shard.values.nbytes for place in store.index.values()}.values())
            took[f"{numbers} size"] = [size / 1e6 / len(layers)]
            took[f"{numbers} lost"] = [100 * value for value in stored.lost()]
            store.held.close()
    shutil.rmtree(root)
    found = {what: median(values) / hours for what, values in took.items() if "lost" not in what}
    for numbers in KEPT:
        cells = [f"{found[f'{numbers} {what}']:.{digits}f} s" for what, digits in (("fill", 0), ("memory", 2), ("disk", 2))]
        lost = ", ".join(f"{value:.2f}" for value in took[f"{numbers} lost"])
        without = f"{found['without']:.0f} s"
        print(
            f"| {name}, {numbers} | {found[f'{numbers} size']:.1f} | {' | '.join(cells)} | {without} | {lost or '-'} |",
            flush=True,
        )


def seconds_of(work: Callable[[], None], clock: Callable[[], float] = time.process_time) -> float:
    """Return how long something takes: of the processor, which other work does not inflate, or by another clock."""
    began = clock()
    work()
    return clock() - began


@torch.no_grad()
def on_the_fly(upstream: Upstream, examples: Sequence[Example]) -> None:
    """Compute an epoch in batches of one length, as a step without a store does."""
    for piece in cut_pieces(examples, seconds=60.0):
        upstream(make_batch(piece))


def read(stored: ShardLayers, examples: Sequence[Example]) -> None:
    """Read an epoch in batches of eight."""
    for start in range(0, len(examples), 8):
        stored.layers(examples[start : start + 8])


def scores(name: str, flags: argparse.Namespace) -> None:
    """Print the phone error rates of a set's test, by what the frames are kept in and by seed."""
    [one] = [one for one in SETS if one.name == name]
    assert one.rows is not None
    table = flags.work / f"{''.join(letter for letter in name if letter.isalnum())}.csv"
    write_table(table, list(one.rows(flags.data / one.folder)))
    beside = []
    for numbers in KEPT:
        found = []
        for seed in range(1, flags.seeds + 1):
            folder = flags.work / f"{table.stem}-{numbers}-{seed}"
            if not (folder / "result.json").is_file():
                words = [
                    sys.executable,
                    str(HOME / "run_downstream.py"),
                    "-u",
                    str(flags.weights / "whisper_tiny_en"),
                    "-d",
                    "pr",
                ]
                words += [
                    "--data",
                    str(table),
                    "-p",
                    str(folder),
                    "--quiet",
                    "--seed",
                    str(seed),
                    "--store",
                    str(flags.work / "kept"),
                ]
                options = [VALID, f"store.precision={numbers}", f"training.steps={flags.steps}", "training.eval_every=200"]
                subprocess.run([*words, "-o", *options], check=True, stdout=subprocess.DEVNULL)
            found.append(100 * json.loads((folder / "result.json").read_text())["scores"]["test"]["per"])
            if numbers == "float16":
                beside.append([per_of(folder, flags.work / "kept", other) for other in KEPT])
        spread = f" ± {stdev(found):.2f}" if len(found) > 1 else ""
        print(f"| {name} | {numbers} | {', '.join(f'{value:.2f}' for value in found)} | {mean(found):.2f}{spread} |", flush=True)
    pairs = "; ".join(f"{half:.2f} and {eight:.2f}" for half, eight in beside)
    print(f"| {name} | heads of float16, reading float16 and int8 | {pairs} | |", flush=True)


def per_of(folder: Path, kept: Path, numbers: Numbers) -> float:
    """Return the phone error rate of a run's test, its head reading frames that are kept otherwise."""
    trained = load_run(folder)
    assert isinstance(trained, TrainedRun)
    config = trained.config
    config = replace(config, store=replace(config.store, mode=str(kept), precision=numbers))
    accelerator = make_accelerator(config, Runtime("cpu"))
    [task] = with_store(prepare(config), accelerator, lambda *_: None).tasks.values()
    assert task.source.kind.startswith("frames in 8 bits" if numbers == "int8" else "frames,"), task.source.kind
    found = evaluate_task(trained.model, config.training, accelerator, (), task)
    return 100 * found.result["scores"]["test"]["per"]


if __name__ == "__main__":
    main()
