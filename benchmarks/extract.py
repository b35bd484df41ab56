"""`headwater extract` on generated files in tars: one process against two, each with one thread, in turn.

    python benchmarks/extract.py --files 20000 --rounds 3 --upstream test_hubert

The files are noise and tones of 0.3 to 0.9 s. Timed from the end of the plan to the merge; the time of processors is that of the
whole command. Three processes are killed in one more pass, whose rows must be those of the first.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from headwater.core.process import environment
from headwater.upstream.store.merged import JOBS, MERGED
from headwater.upstream.store.shards import open_shard

OF_TAR = 500  # files


def make_tars(folder: Path, files: int) -> None:
    """Write tars of generated files, as WebDataset names them."""
    generator = np.random.default_rng(0)
    for tar in range(-(-files // OF_TAR)):
        with tarfile.open(folder / f"shard-{tar:03d}.tar", "w") as archive:
            for number in range(tar * OF_TAR, min(files, (tar + 1) * OF_TAR)):
                samples = int(16_000 * generator.uniform(0.3, 0.9))
                tone = np.sin(2 * np.pi * generator.uniform(80, 3000) * np.arange(samples) / 16_000)
                data = io.BytesIO()
                wave = 0.1 * tone + 0.02 * generator.standard_normal(samples)
                soundfile.write(data, wave, 16_000, format="WAV", subtype="PCM_16")
                entry = tarfile.TarInfo(f"{number:06d}.wav")
                entry.size = data.tell()
                archive.addfile(entry, io.BytesIO(data.getvalue()))


def started(folder: Path, store: Path, upstream: str, shards: int) -> subprocess.Popen:
    """Start the command with one thread."""
    words = ["extract", f"{folder}/*.tar", "-u", upstream, "--store", str(store), "--shards", str(shards), "--quiet"]
    own = environment(OMP_NUM_THREADS="1", HEADWATER_CACHE=str(store.parent / "cache"))
    return subprocess.Popen([sys.executable, "-m", "headwater", *words], env=own, stdout=subprocess.DEVNULL)


def timed(folder: Path, store: Path, upstream: str, shards: int, processes: int) -> tuple[float, float]:
    """Return seconds from the plan to the merge, and seconds of processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [started(folder, store, upstream, shards) for _ in range(processes)]
    for process in running:
        if process.wait():
            raise RuntimeError(f"a process ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    [plan], [merged] = store.glob(f"*/{JOBS}/*/plan.json"), store.glob(f"*/{MERGED}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return merged.stat().st_mtime - plan.stat().st_mtime, used


def killed(folder: Path, store: Path, upstream: str, shards: int, kills: int) -> None:
    """Extract by two processes, one of which is killed so many times."""
    running = [started(folder, store, upstream, shards) for _ in range(2)]
    for number in range(kills):
        while len([*store.glob(f"*/{JOBS}/*/*/done.json")]) < (number + 1) * shards // (kills + 2):
            time.sleep(0.05)
        victim = running.pop(0)
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
        running.append(started(folder, store, upstream, shards))
    for process in running:
        process.wait()
    started(folder, store, upstream, shards).wait()  # where the last two ended together


def rows(store: Path) -> dict[str, bytes]:
    """Return the bytes of every row."""
    found = (open_shard(path) for path in store.rglob("*.safetensors"))
    shards = [shard for shard in found if shard is not None]
    return {row.key: shard.values[row.start : row.start + row.frames].tobytes() for shard in shards for row in shard.rows}


def main() -> None:
    """Print each pass and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--upstream", default="test_hubert")
    parser.add_argument("--kills", type=int, default=3)
    flags = parser.parse_args()
    flags.shards = min(flags.shards, -(-flags.files // OF_TAR))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "tars"
        folder.mkdir()
        make_tars(folder, flags.files)
        print(f"{flags.files} files in {len([*folder.iterdir()])} tars, load {os.getloadavg()[0]:.1f}", flush=True)
        found: dict[int, list[float]] = {1: [], 2: []}
        for number in range(flags.rounds):
            for processes in (1, 2):
                store = Path(place) / f"store-{number}-{processes}"
                seconds, used = timed(folder, store, flags.upstream, flags.shards, processes)
                found[processes].append(flags.files / seconds)
                pace = f"{seconds:.0f} s, {flags.files / seconds:.0f} files a second, {used:.0f} s of processors"
                print(f"round {number}, processes {processes}: {pace}, load {os.getloadavg()[0]:.1f}", flush=True)
        one, two = (statistics.median(found[processes]) for processes in (1, 2))
        print(f"median: {one:.0f} and {two:.0f} files a second, x {two / one:.2f}", flush=True)
        store = Path(place) / "store-killed"
        killed(folder, store, flags.upstream, flags.shards, flags.kills)
        same = rows(store) == rows(Path(place) / "store-0-1")
        print(
            f"{flags.kills} kills: {len(rows(store))} rows, {'equal' if same else 'NOT equal'} to those of one process",
            flush=True,
        )


if __name__ == "__main__":
    main()
