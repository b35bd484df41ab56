"""Claim: LoRA trains Whisper tiny.en on real speech with a checkpoint of a fiftieth of what finetuning the whole model leaves.

    python benchmarks/adapters.py DATA WEIGHTS WORK [--steps 60]

DATA and WEIGHTS are those of real_speech.py. A head on the frozen model is trained for 200 steps; LoRA and the whole model go on
from that head, and one on the frozen model for 2,000 steps stands beside them. Core-seconds are those of the process that trains;
steps are timed in turns. Finished runs in WORK are kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from real_speech import HOME, SETS, VALID, Set, write_table

from headwater.core.options import read_yaml
from headwater.corpus.batch import make_batch
from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
from headwater.runs.state import make_optimizer

NAMES = ("learners' voices", "Lithuanian words")
BATCH = 8
PIECES = (f"training.batch_size={BATCH}", f"training.piece_size={BATCH}", VALID)
HEAD = "head"  # that LoRA and the whole model go on from
WAYS = {
    HEAD: ("solver=adam", "training.steps=200", *PIECES),
    "frozen": ("solver=adam", "training.steps=2000", *PIECES),
    "lora": ("upstream.trainable=true", "upstream.adapter=lora", "optimizer.adapter_lr=5e-4", *PIECES),
    "lora, fast": ("upstream.trainable=true", "upstream.adapter=lora", "optimizer.adapter_lr=2e-3", *PIECES),
    "whole": ("upstream.trainable=true", "optimizer.upstream_lr=5e-5", *PIECES),
}
TRAINED = ("lora", "lora, fast", "whole")


def main() -> None:
    """Train what is missing, print a row for each set and way, and time the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each way, in turns")
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    sets = {one.name: one for one in SETS if one.rows and (data / one.folder).is_dir()}
    for one in (sets[name] for name in NAMES if name in sets):
        folders = train_all(one, data, weights, work, flags.steps)
        for way, folder in folders.items():
            print(f"{one.name}, {way}: {described(folder)}", flush=True)
        seconds = step_seconds({way: folders[way] for way in TRAINED}, flags.rounds)
        print(f"{one.name}, a step: " + ", ".join(f"{way} {value:.2f} core-s" for way, value in seconds.items()), flush=True)


def train_all(one: Set, data: Path, weights: Path, work: Path, steps: int) -> dict[str, Path]:
    """Return the runs of a set by way, those that are missing trained."""
    slug = "".join(letter for letter in one.name if letter.isalnum())
    table, folders = work / f"{slug}.csv", {way: work / f"{slug}-{way.replace(', ', '-')}" for way in WAYS}
    assert one.rows is not None, f"{one.name} is a table"
    write_table(table, list(one.rows(data / one.folder)))
    for way, folder in folders.items():
        if (folder / "result.json").is_file():
            continue
        command = [sys.executable, str(HOME / "run_downstream.py"), "-u", str(weights / "whisper_tiny_en"), "-d", one.task]
        command += ["--data", str(table), "--quiet", "--device", "cpu", "-p", str(folder), "-o", *one.options, *WAYS[way]]
        if way in TRAINED:
            command += [f"init_head={folders[HEAD]}", f"training.steps={steps}", f"training.eval_every={steps // 3}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (folder / "core_seconds.json").write_text(json.dumps(spent))
    return folders


def described(folder: Path) -> str:
    """Return a run's score on test, its interval if it has one, what it trained, and what it cost."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    metric, spent = result["select_by"], json.loads((folder / "core_seconds.json").read_text())
    score, bounds = result["scores"]["test"][metric], result["intervals"]["test"][metric]
    interval = f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else f" ({result['num_speakers']['test']} speakers: no interval)"
    size = (folder / "checkpoints" / "best.safetensors").stat().st_size / 1e6
    memory = result["environment"]["peak_memory_mb"]
    return (
        f"{metric} {score:.3f}{interval} at step {result['best_step']} of {result['steps']}, "
        f"{spent:.0f} core-s, {memory} MB at most, checkpoint {size:.2f} MB"
    )


def step_seconds(folders: dict[str, Path], rounds: int) -> dict[str, float]:
    """Return the median of what a training step takes in each way, taken in turns on the same utterances."""
    setups = {way: prepare(resolve([read_yaml(folder / "config.yaml")])) for way, folder in folders.items()}
    optimizers = {way: make_optimizer(setup.model, setup.config, setup.balancer) for way, setup in setups.items()}
    spent: dict[str, list[float]] = {way: [] for way in setups}
    for _ in range(rounds + 1):
        for way, setup in setups.items():
            task = next(iter(setup.tasks.values()))
            setup.model.train()
            began = time.process_time()
            loss, _ = setup.model(task.name, make_batch(task.splits["train"][:BATCH]))
            optimizers[way].zero_grad()
            loss.backward()
            optimizers[way].step()
            spent[way].append(time.process_time() - began)
    return {way: median(values[1:]) for way, values in spent.items()}


if __name__ == "__main__":
    main()
