"""Claim: the memory plan of a finetuning run is within 20 % of what its steps take, in every way to finetune.

    python benchmarks/memory_plan.py WORK [--size tiny small base] [--way full lora …] [--seconds 8] [--batch 4]

Each size and way is a process of its own: a model of random weights (as transformers saves them), two steps of the loop. What
they take is the most that the process held (VmHWM) above what it held before the model was built; a step of another model
has loaded the libraries by then. Linux only. With MALLOC_MMAP_THRESHOLD_=65536 the C library keeps no holes of what was freed.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import HubertConfig, HubertModel

from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.runs.state import make_optimizer
from headwater.training.memory import memory_plan, way_of
from headwater.training.step import Plan, clip, step_batches, take_step

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 768},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 2048},
    "base": {},
}
WAYS: dict[str, dict[str, Any]] = {
    "frozen": {"upstream": {"trainable": False}},
    "full": {},
    "lora": {"upstream": {"adapter": "lora"}},
    "checkpointing": {"training": {"gradient_checkpointing": True}},
    "bf16": {"training": {"precision": "bf16"}},
}


def main() -> None:
    """Measure each size and way in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--way", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--here", action="store_true", help="measure the one size and way here (the others start so)")
    flags = parser.parse_args()
    if flags.here:
        print(json.dumps(measure(flags.work, flags.size[0], flags.way[0])))
        return
    write_corpus(flags.work, flags.seconds, flags.batch)
    print(f"two steps of {flags.batch} utterances of up to {flags.seconds:g} s, in MB")
    print(
        f"{'size':<6} {'way':<14} {'weights':>8} {'gradients':>10} {'optimizer':>10} {'activations':>12}"
        f" {'plan':>7} {'measured':>9}"
    )
    for size in flags.size:
        write_model(flags.work / size, SIZES[size])
        for way in flags.way:
            command = [sys.executable, __file__, str(flags.work), "--size", size, "--way", way, "--here"]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            cells = f"{found['weights']:8.0f} {found['gradients']:10.0f} {found['states']:10.0f} {found['activations']:12.0f}"
            ratio = found["total"] / found["measured"]
            print(f"{size:<6} {way:<14} {cells} {found['total']:7.0f} {found['measured']:9.0f}   {ratio:.2f}", flush=True)


def write_corpus(work: Path, seconds: float, batch: int) -> None:
    """Write noise of different lengths, with three labels, and its table; a step has all that is trained on."""
    work.mkdir(parents=True, exist_ok=True)
    generator, rows = np.random.default_rng(0), ["audio,label,speaker,split"]
    for split, count in (("train", batch), ("dev", 3), ("test", 3)):
        for row in range(count):
            length = int(16_000 * seconds * (1 - 0.1 * (row % batch)))
            soundfile.write(work / f"{split}{row}.wav", generator.uniform(-0.1, 0.1, length), 16_000)
            rows.append(f"{split}{row}.wav,{'abc'[row % 3]},{split}{row % 2},{split}")
    (work / "table.csv").write_text("\n".join(rows) + "\n")


def write_model(folder: Path, sizes: dict[str, Any]) -> None:
    """Write a HuBERT of random weights, as transformers saves it."""
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        HubertModel(HubertConfig(**sizes)).save_pretrained(folder)


def measure(work: Path, size: str, way: str) -> dict[str, float]:
    """Return the plan of a step, and what two steps took, in MB."""
    torch.set_num_threads(1)
    steps(work, "test_hubert", way)  # what the first step loads is not the model's fault
    gc.collect()
    before = held("VmRSS")
    plan = steps(work, str(work / size), way)
    parts = {name: getattr(plan, name) / 1e6 for name in ("weights", "gradients", "states", "activations", "total")}
    return {**parts, "measured": (held("VmHWM") - before) / 1e6}


def steps(work: Path, upstream: str, way: str) -> Any:
    """Return the plan of a model, and make two steps; the peak is counted from behind the plan."""
    own = {"task": "emotion", "corpus": {"data": str(work / "table.csv")}, "upstream": {"name": upstream, "trainable": True}}
    small = {"training": {"batch_size": 4}, "solver": "adam"}
    config = resolve([task_default("emotion"), own, small, WAYS[way]])
    accelerator = make_accelerator(config, Runtime("cpu", quiet=True))
    setup = prepare(config)
    model, tasks = setup.model, [*setup.tasks.values()]
    plan = memory_plan(model, tasks, config.training, way_of(config.training, 32, 1), 1, torch.device("cpu"))
    optimizer = make_optimizer(model, config, setup.balancer)
    settings = Plan(config.training, config.optimizer, 1, setup.balancer)
    model.train()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak of now is what is held now
    for step in range(2):
        take_step(model, step_batches(setup.tasks, settings, accelerator, {"emotion": step}), accelerator, settings, step)
        clip(model, 1.0, accelerator)
        optimizer.step()
        optimizer.zero_grad()
    return plan


def held(what: str) -> int:
    """Return the bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
