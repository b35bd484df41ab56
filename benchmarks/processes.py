"""Six tasks at once in one process and in several: the same losses and weights, to rounding, and an end by itself.

    python benchmarks/processes.py WORK [--processes 2] [--steps 20]

All tasks of the demo, finetuned, dropout off (its draws are each process' own): every loss of every step is compared, and
every weight after the last one. On a machine of one node, through gloo.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import safetensors.torch

STILL = ("upstream.dropout=0", "tasks.asr.asr.dropout=0", "tasks.sf.sf.dropout=0")
NOISE = "k_proj.bias"  # softmax cancels it: its gradient is rounding, which Adam makes as large as any other


def train(folder: Path, processes: int, steps: int) -> float:
    """Run all tasks in a fresh folder, and return the seconds it took."""
    shutil.rmtree(folder, ignore_errors=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    steered = (f"training.steps={steps}", f"training.eval_every={steps}", "training.log_every=1", "balance.cosines_every=0")
    command = [sys.executable, *launcher, "-m", "headwater", "mtl", "-u", "test_hubert", "--demo", "--scenario", "all"]
    began = time.monotonic()
    subprocess.run(
        [*command, "-p", str(folder), "--device", "cpu", "--quiet", "-o", *STILL, *steered],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        timeout=1200,
        check=True,
    )
    return time.monotonic() - began


def losses(folder: Path) -> dict[tuple[int, str, str], float]:
    """Return every loss that was logged."""
    lines = [json.loads(line) for line in (folder / "all" / "seed1" / "metrics.jsonl").read_text().splitlines()]
    return {(line["step"], line["split"], line["task"]): line["loss"] for line in lines}


def weights(folder: Path) -> dict[str, object]:
    """Return what was learnt, after the last step."""
    found = safetensors.torch.load_file(folder / "all" / "seed1" / "checkpoints" / "last.safetensors")
    return {key: value for key, value in found.items() if not key.startswith("optimizer.") and not key.endswith(NOISE)}


def main() -> None:
    """Train both ways, and print the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    flags = parser.parse_args()
    seconds = {count: train(flags.work / str(count), count, flags.steps) for count in (1, flags.processes)}
    one, several = (losses(flags.work / str(count)) for count in seconds)
    assert one.keys() == several.keys(), "other steps or tasks were drawn"
    first, second = (weights(flags.work / str(count)) for count in seconds)
    assert first.keys() == second.keys(), "other weights were learnt"
    apart = {key: float((first[key] - second[key]).abs().max()) for key in first}  # type: ignore[operator]
    worst = max(apart, key=apart.__getitem__)
    print(f"{len(one)} losses: largest difference {max(abs(one[key] - several[key]) for key in one):.1e}")
    print(f"{len(apart)} tensors: largest difference {apart[worst]:.1e} ({worst})")
    print("seconds: " + ", ".join(f"{count} processes {took:.0f}" for count, took in seconds.items()))


if __name__ == "__main__":
    main()
