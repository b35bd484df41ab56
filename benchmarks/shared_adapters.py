"""Claim: N finished runs with adapters over one model take the memory of one model, and each predicts what it does alone.

    python benchmarks/shared_adapters.py RUN … [--copies 8]

Each RUN has trained an adapter (benchmarks/adapters.py leaves some). Of each: how far the merged model is from the one with the
adapter beside it, and how far what peft loads from the exported files is. Then RUN is loaded 1 and `--copies` times, each in a
process of its own: apart (`load_run`) and together (`load_runs`); memory is what the process holds more than before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import headwater
from headwater.inference.export.hub_format import export_adapter
from headwater.inference.trained_run import TrainedRun
from headwater.upstream.base import Layers, Upstream
from headwater.upstream.load import load_upstream

WAYS = ("apart", "together")
TEXT = "they say so, and it is a long way to the end of the sentence"


def main() -> None:
    """Compare, then measure each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--way", choices=WAYS, help="measure this one here (the others start so)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.way:
        print(held(flags.way, flags.runs * flags.copies))
        return
    for run in flags.runs:
        print(f"{run}: {compared(run)}", flush=True)
        for copies in (1, flags.copies):
            command = [sys.executable, __file__, str(run), "--copies", str(copies), "--way"]
            found = {way: subprocess.run([*command, way], capture_output=True, text=True, check=True).stdout for way in WAYS}
            print(f"  {copies} times: " + ", ".join(f"{way} {float(value):.1f} MB" for way, value in found.items()), flush=True)


def compared(folder: Path) -> str:
    """Return how far the merged model, and what peft loads, are from the run's model with its adapter."""
    run = headwater.load_run(folder)
    assert isinstance(run, TrainedRun), "one run"
    role = next(role for role, section in run.model.configs.items() if section.adapter != "none")
    section, mine = run.model.configs[role], layers(run.model.upstream(role))
    with tempfile.TemporaryDirectory() as place:
        from peft import PeftModel

        export_adapter(folder, Path(place) / "adapter")
        plain = load_upstream(section, "text" if role == "text" else "audio")
        before = layers(plain)
        PeftModel.from_pretrained(plain.get_submodule("model"), str(Path(place) / "adapter")).eval()  # in place
        by_peft = farthest(layers(plain), mine)
    merged = farthest(layers(load_upstream(str(folder), "text" if role == "text" else "audio")), mine)
    beside = headwater.load_runs(folder, folder)
    assert all(isinstance(one, TrainedRun) for one in beside)
    alike = [farthest(layers(one.model.upstream(role)), mine) for one in beside if isinstance(one, TrainedRun)]
    return (
        f"merged {merged:.2e}, by peft {by_peft:.1e}, beside another {max(alike):.1e} "
        f"(the adapter changes layers by up to {farthest(before, mine):.1e}, of up to {largest(mine):.1f})"
    )


def layers(upstream: Upstream) -> Layers:
    """Return what an upstream computes of one utterance."""
    sound = torch.randn(40_000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        return upstream([TEXT] if upstream.spec.modality == "text" else [sound])


def farthest(mine: Layers, theirs: Layers) -> float:
    """Return the largest difference of two passes."""
    return max(float((left - right).abs().max()) for left, right in zip(mine.values, theirs.values, strict=True))


def largest(mine: Layers) -> float:
    """Return the largest value of a pass."""
    return max(float(value.abs().max()) for value in mine.values)


def held(way: str, folders: list[Path]) -> float:
    """Return what runs take in memory, in MB; the code and one run's passing needs are counted before."""
    headwater.load_run(folders[0])
    before = resident()
    runs = headwater.load_runs(*folders) if way == "together" else [headwater.load_run(folder) for folder in folders]
    after = resident()
    assert len(runs) == len(folders)
    return after - before


def resident() -> float:
    """Return what the process holds now, in MB, what is free given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
