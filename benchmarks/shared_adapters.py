"""Claim: N finished runs with adapters over one model take the memory of one model, and each predicts what it does alone.

    python benchmarks/shared_adapters.py RUN … [--copies 8] [--audio CLIP.wav]

Each RUN has trained an adapter (benchmarks/adapters.py leaves some). Of each: how far the merged model is from the one with its
adapter beside it, how far each of them is from itself in float64, and how far what peft loads from the exported files is. Then
RUN is loaded `--copies` times, apart (`load_run`) and together (`load_runs`), each in a process of its own; memory is what the
process holds more than before.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

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
    parser.add_argument("--audio", type=Path, help="16 kHz, mono (default: 2.5 s of noise)")
    parser.add_argument("--way", choices=WAYS, help="measure this one here (the others start so)")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.way:
        print(held(flags.way, flags.runs * flags.copies))
        return
    for run in flags.runs:
        print(f"{run}: {compared(run, flags.audio)}", flush=True)
        command = [sys.executable, __file__, str(run), "--copies", str(flags.copies), "--way"]
        found = {way: subprocess.run([*command, way], capture_output=True, text=True, check=True).stdout for way in WAYS}
        print(f"  {flags.copies} times: " + ", ".join(f"{way} {float(size):.1f} MB" for way, size in found.items()), flush=True)


def compared(folder: Path, audio: Path | None) -> str:
    """Return how far the merged model, and what peft loads, are from the run's model with its adapter."""
    layers = partial(layers_of, read(audio))
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
    merged = layers(load_upstream(str(folder), "text" if role == "text" else "audio"))
    exact = layers(in_float64(run.model.upstream(role)))
    beside = headwater.load_runs(folder, folder)
    assert all(isinstance(one, TrainedRun) for one in beside)
    alike = [farthest(layers(one.model.upstream(role)), mine) for one in beside if isinstance(one, TrainedRun)]
    return (
        f"merged {farthest(merged, mine):.1e}, by peft {by_peft:.1e}, beside another {max(alike):.1e}; from float64: "
        f"with the adapter beside it {farthest(exact, mine):.1e}, merged {farthest(exact, merged):.1e} "
        f"(the adapter changes layers by up to {farthest(before, mine):.1e}, of up to {largest(mine):.1f})"
    )


def read(audio: Path | None) -> Tensor:
    """Return the samples of a clip, or noise."""
    if audio is None:
        return torch.randn(40_000, generator=torch.Generator().manual_seed(1)) * 0.1
    return torch.from_numpy(soundfile.read(audio, dtype="float32")[0])


def in_float64(upstream: Upstream) -> Upstream:
    """Return a copy that computes in float64 from its first weight on."""
    exact = copy.deepcopy(upstream).double()
    for part in exact.modules():
        if any(True for _ in part.parameters(recurse=False)):
            part.register_forward_pre_hook(lambda _, inputs: tuple(widened(value) for value in inputs))
    return exact


def widened(value: Any) -> Any:
    """Return a tensor of floats in float64; anything else as it is."""
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def layers_of(sound: Tensor, upstream: Upstream) -> Layers:
    """Return what an upstream computes of one utterance."""
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
    for _ in range(2):
        headwater.load_run(folders[0])
        before = resident()
    runs = headwater.load_runs(*folders) if way == "together" else [headwater.load_run(folder) for folder in folders]
    after = resident()
    assert len(runs) == len(folders)
    return after - before


def resident() -> float:
    """Return what the process holds of its own now (no mapped file), in MB, what is free given back."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
