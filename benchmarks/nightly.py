"""The nightly job: 10,000 short files predicted, killed in the middle, gone on with; seconds for an hour of audio.

python benchmarks/nightly.py WORK                  a frozen fbank run, all 10,000 files
python benchmarks/nightly.py WORK -u DIR --files 300   a run on a model folder in transformers' format
"""

from __future__ import annotations

import argparse
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def main() -> None:
    """Make the files and a run, predict undisturbed and with a kill in the middle, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("-u", "--upstream", default="fbank")
    parser.add_argument("--files", type=int, default=10_000)
    flags = parser.parse_args()
    hours = make_files(flags.work / f"files-{flags.files}", flags.files) / 3600
    run = train(flags.work, flags.upstream)
    predict = [sys.executable, "-m", "headwater", "predict", run, flags.work / f"files-{flags.files}", "--out"]
    whole, broken_off = (flags.work / f"{run.name}-{name}.csv" for name in ("undisturbed", "killed"))
    for path in (whole, broken_off):
        for old in (path, state_of(path)):
            old.unlink(missing_ok=True)

    seconds, core, said = timed([*predict, whole])
    print(f"undisturbed     {seconds:8.1f} s   {said}", flush=True)
    kept = kill_in_the_middle([*predict, broken_off], broken_off, flags.files // 2)
    print(f"killed          with {kept} of {flags.files} files written down", flush=True)
    again, _, said = timed([*predict, broken_off])
    print(f"the same again  {again:8.1f} s   {said}")
    print(f"equal to the undisturbed csv, byte for byte: {whole.read_bytes() == broken_off.read_bytes()}")
    before = broken_off.stat().st_mtime_ns
    idle, idle_core, said = timed([*predict, broken_off])
    print(f"nothing new     {idle:8.1f} s   {said}; csv untouched: {broken_off.stat().st_mtime_ns == before}")
    print(f"{flags.upstream}: {hours * 3600:.0f} s of audio in {flags.files} files; without the start of {idle:.1f} s")
    for what, spent in (("", seconds - idle), ("processor ", core - idle_core)):
        print(f"  {spent / hours:.1f} {what}s for an hour of audio, {1000 * spent / flags.files:.2f} ms a file")


def make_files(folder: Path, count: int) -> float:
    """Write tones in noise of 0.5 to 2 s, where they are not there yet; return their seconds."""
    generator, total = np.random.default_rng(0), 0.0
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        seconds, pitch = generator.uniform(0.5, 2.0), generator.uniform(80, 4000)
        samples = int(seconds * RATE)
        total += samples / RATE
        path = folder / f"{number // 1000:02d}" / f"{number:05d}.wav"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            noise = np.random.default_rng(number).standard_normal(samples)
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * np.arange(samples) / RATE) + 0.02 * noise, RATE)
    return total


def train(work: Path, upstream: str) -> Path:
    """Return a demo run on an upstream, trained for a few steps."""
    run = work / f"run-{Path(upstream).name}"
    short = ["-o", "training.steps=20", "training.eval_every=20", "corpus.demo_scale=0.3"]
    command = ["downstream", "-u", upstream, "-d", "emotion", "--demo", "-p", run, "--quiet", *short]
    subprocess.run([sys.executable, "-m", "headwater", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return run


def timed(command: list[str | Path]) -> tuple[float, float, str]:
    """Return the seconds of a command, those of the processor, and the last line that it said."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, core, done.stderr.splitlines()[-1].partition(": ")[2]


def kill_in_the_middle(command: list[str | Path], path: Path, count: int) -> int:
    """Start a command, kill it when so many files are written down, and return how many were."""
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
    while written_down(path) < count and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if path.exists():
        raise SystemExit("the command ended before it could be killed: give it more --files")
    return written_down(path)


def written_down(path: Path) -> int:
    """Return how many files have a row in what a command has written, at work or killed."""
    rows = state_of(path)
    left = [place.read_bytes() for place in (rows, rows.with_name(f"{rows.name}-wal")) if place.exists()]
    return len(set(re.findall(rb'/[0-9]+[.]wav", 0[.]0, null', b"".join(left))))


def state_of(path: Path) -> Path:
    """Return where a csv's rows are written while they come."""
    return path.with_name(f".{path.name}.rows")


if __name__ == "__main__":
    main()
