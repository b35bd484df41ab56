"""Claim: with everything stored, a run over 200,000 utterances reaches its first step in under a minute and opens no audio.

python benchmarks/startup.py --utterances 200000
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from headwater.core.file_cache import file_key
from headwater.corpus.audio import checked_audio
from headwater.corpus.base import Utterance
from headwater.corpus.fingerprints import hashes, row_key
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream
from headwater.upstream.store.space import space_of
from headwater.upstream.store.store import Store
from headwater.upstream.store.writing import Computed

UPSTREAM = "test_hubert"  # five layers of 64: small rows, as many as of a large model
SECONDS = 2.0


def main() -> None:
    """Make the corpus, what is remembered of it and its store, and time the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=200_000)
    parser.add_argument("--pooling", default="mean", choices=("mean", "avgmax"))
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--first-step", metavar="SINCE", type=float, help=argparse.SUPPRESS)
    flags, command = parser.parse_known_args()
    if flags.first_step:
        first_step(flags.first_step, command, flags.profile)
        return
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        table = make_corpus(work, flags.utterances)
        remember(work, flags.utterances, flags.pooling == "mean")
        command = [
            "-u",
            UPSTREAM,
            "-d",
            "emotion",
            "--data",
            str(table),
            "-p",
            str(work / "run"),
            "--store",
            "on",
            "--device",
            "cpu",
        ]
        command += ["-o", f"emotion.pooling={flags.pooling}", "training.steps=100"]
        for _ in range(2):
            again = [sys.executable, __file__, "--first-step", str(time.time()), *["--profile"] * flags.profile, *command]
            subprocess.run(again, check=True, env={**os.environ, "HEADWATER_CACHE": str(work / "cache")})


def audio_of(work: Path, number: int) -> Path:
    """Return where an utterance's file lies."""
    return work / "corpus" / f"{number // 1000:04d}" / f"{number:07d}.wav"


def make_corpus(work: Path, count: int) -> Path:
    """Write a manifest and files that are no audio: whoever opened one would find out."""
    rows = ["audio,label,speaker,split"]
    for number in range(count):
        path = audio_of(work, number)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"no audio")
        split = ("train", "train", "train", "dev", "test")[number % 5]
        rows.append(f"{path.relative_to(work)},class{number % 4},speaker{number % 500},{split}")
    (work / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return work / "manifest.csv"


def remember(work: Path, count: int, pooled: bool) -> None:
    """Write what earlier runs would have: verdicts, hashes, and every utterance's features."""
    upstream, generator = load_upstream(UPSTREAM), np.random.default_rng(0)
    root, rate, wanted = work / "cache" / "store", upstream.spec.sample_rate, {}
    with checked_audio(work / "cache") as verdicts, hashes(root) as known:
        for number in range(count):
            path = audio_of(work, number)
            verdicts.keep(file_key(path), [SECONDS, None])
            known.keep(file_key(path), f"{number:064x}")
            wanted[row_key(f"{number:064x}", Utterance("", str(path)), rate)] = number
    layers = range(upstream.spec.num_layers)
    store = Store(
        root,
        space_of(upstream, UpstreamConfig(), layers=layers, statistics="mean" if pooled else None, precision="float32"),
        UPSTREAM,
    )

    def compute(numbers: Sequence[int]) -> Iterator[tuple[int, Computed]]:
        for position in range(len(numbers)):
            values = generator.standard_normal((1, len(layers), upstream.spec.dim), np.float32)
            yield position, Computed(values, (1.0,) * len(layers), 99)

    store.fill(wanted, compute, lambda _: None)


def first_step(since: float, command: Sequence[str], profiled: bool) -> None:
    """Run the command as a user does, up to its first step; opening audio is an error."""
    profile = cProfile.Profile()
    if profiled:
        profile.enable()

    def audited(event: str, arguments: tuple) -> None:
        if event == "open" and str(arguments[0]).endswith(".wav"):
            raise AssertionError(f"audio was opened: {arguments[0]}")

    sys.addaudithook(audited)
    from headwater.commands import downstream
    from headwater.training import loop

    def stop(*_: object) -> float:
        profile.disable()
        print(f"first step after {time.time() - since:.1f} s ({time.process_time():.1f} s of CPU), no audio opened", flush=True)
        if profiled:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
        os._exit(0)

    loop.take_step = stop
    downstream.main(command)


if __name__ == "__main__":
    main()
