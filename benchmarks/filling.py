"""Claim: filling the store takes 1/1.4 of one epoch of s3prl's way in float32, 1/2.5 in bf16 where the processor has it.

python benchmarks/filling.py --utterances 32 --repeats 3
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from epoch import reference_run
from reference import alternate, lengths, nothing, random_hubert, write_corpus

from headwater.runs.config.resolve import resolve
from headwater.runs.features import with_store
from headwater.runs.prepare import prepare


def main() -> None:
    """Measure an epoch of the reference, and filling in both precisions, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        table = write_corpus(work / "corpus", lengths(flags.utterances))
        random_hubert(work / "hubert")
        runs = {"reference": reference_run(work, flags.utterances)}
        runs |= {precision: filling_run(work, table, precision) for precision in ("float32", "bf16")}
        medians = alternate(runs, flags.repeats)
    print(f"{flags.utterances} utterances, HuBERT-base, {flags.threads} thread(s), median of {flags.repeats}, in turns")
    for kind, seconds in medians.items():
        print(f"{kind:<10} {seconds:10.3f} s   x{medians['reference'] / seconds:.2f}")


def filling_run(work: Path, table: Path, precision: str) -> Callable[[], float]:
    """Return one filling of an empty store."""
    mapping = {
        "task": "emotion",
        "upstream": {"name": str(work / "hubert")},
        "corpus": {"name": "manifest", "data": str(table)},
        "training": {"precision": precision},
        "store": {"mode": str(work / f"store-{precision}")},
    }
    config = resolve([mapping])

    def run() -> float:
        shutil.rmtree(work / f"store-{precision}", ignore_errors=True)
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu=True, mixed_precision={"float32": "no", "bf16": "bf16"}[precision])
        setup = prepare(config)
        began = time.perf_counter()
        with_store(setup, accelerator, nothing)
        return time.perf_counter() - began

    return run


if __name__ == "__main__":
    main()
