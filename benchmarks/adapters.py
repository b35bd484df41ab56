"""Claim: LoRA trains real models on real speech with a checkpoint of a fraction of what finetuning the whole model leaves.

    python benchmarks/adapters.py DATA WEIGHTS WORK [--steps 40] [--upstreams hubert_mini,whisper_base]

DATA and WEIGHTS are those of real_speech.py. A head on the frozen model is trained for 200 steps; LoRA and the whole model go on
from that head, and one on the frozen model for 2,000 steps stands beside them. Core-seconds are those of the process that trains:
its start, the head of 200 steps and all evaluations are in them. A step and its memory are those of a process that takes a few
steps of a run, and does nothing else. Finished runs in WORK are kept; `results/adapters.json` holds the rows.
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
from typing import Any

import torch
import yaml
from real_mtl import words
from real_sets import learners
from real_speech import HOME, write_table

from headwater.core.options import read_yaml
from headwater.corpus.batch import make_batch
from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
from headwater.runs.state import make_optimizer

UPSTREAMS = ("whisper_tiny_en", "hubert_mini", "whisper_base")
RATES = {"hubert_mini": 2e-4}  # upstream_lr of the whole model; of others 5e-5
BATCH, HEAD_STEPS, FROZEN_STEPS = 8, 200, 2000
FROZEN, LORA, WHOLE = "frozen", "lora", "whole"
SHOWN = {FROZEN: "head, {frozen:,} steps", LORA: "LoRA (rank 8), {steps} steps", WHOLE: "the whole model, {steps} steps"}
OUT = HOME / "results" / "adapters.json"


# name -> (its task, its folder, its rows, what it is); both with speakers enough for an interval
SETS = {
    "learners' voices": ("sid", "speechocean762", learners, "12 speakers, 12 training sentences each"),
    "Lithuanian words, 9 speakers": ("ks", "lt_speech_commands", words, "20 words, 9 of 28 speakers tested"),
}


def main() -> None:
    """Train what is missing, write a row for each set, upstream and way, and time the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--upstreams", default=",".join(UPSTREAMS), metavar="A,B")
    parser.add_argument("--rounds", type=int, default=4, help="timed steps of each way")
    parser.add_argument("--of", type=Path, metavar="RUN", help="take steps of this run here (the others start so)")
    flags = parser.parse_args()
    if flags.of:
        print(json.dumps(steps_of(flags.of, flags.rounds)))
        return
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for upstream in flags.upstreams.split(","):
        for name in SETS:
            write([measure(name, upstream, way, data, weights, work, flags.steps, flags.rounds) for way in SHOWN])


def write(rows: list[dict[str, Any]]) -> None:
    """Put rows into the results, in the place of those of the same set, upstream and head."""
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else []
    known = {(row["set"], row["upstream"], row["head"]): row for row in [*before, *rows]}
    places = {name: place for place, name in enumerate([*SETS, *UPSTREAMS])}
    found = sorted(known.values(), key=lambda row: (places[row["set"]], places[row["upstream"]]))
    OUT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for row in rows:
        print(cells(row), flush=True)


def cells(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    low, high = row["interval"] or (None, None)
    interval = "no interval" if low is None else f"[{low:.3f}, {high:.3f}]"
    step = f"{row['step_core_seconds']:.2f}"
    size, memory = f"{row['checkpoint_mb']:.2f} MB", f"{row['memory_mb']:,} MB"
    score, spent = f"{row['metric']} {row['value']:.3f} {interval}", f"{row['core_seconds']:.0f}"
    return f"| {' | '.join([row['set'], row['upstream'], row['head'], score, spent, step, memory, size])} |"


def plan_of(task: str, table: Path, upstream: str, way: str, steps: int) -> dict[str, Any]:
    """Return the recipe of a way: the frozen model, or a head and what goes on from it."""
    name, whisper = Path(upstream).name, upstream != "hubert_mini"
    training = {"batch_size": BATCH, "piece_size": BATCH}
    common = {
        "task": task,
        "corpus": {"name": "manifest", "data": str(table)},
        "upstream": {"name": upstream, **({"attend": "valid"} if whisper else {})},
        "solver": "adam",
        "training": training,
    }
    if way == FROZEN:
        return {**common, "training": {**training, "steps": FROZEN_STEPS}}
    tuned = {
        LORA: {"upstream": {"trainable": True, "adapter": "lora"}, "optimizer": {"adapter_lr": 2e-3}},
        WHOLE: {"upstream": {"trainable": True}, "optimizer": {"upstream_lr": RATES.get(name, 5e-5)}},
    }[way]
    going_on = {"init_head": "stage:head", "training": {"steps": steps, "eval_every": max(1, steps // 2)}}
    return {**common, "stages": {"head": {"training": {"steps": HEAD_STEPS}}, way: {**tuned, **going_on}}}


def measure(name: str, upstream: str, way: str, data: Path, weights: Path, work: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Return what a run (or a plan of folds) says; one that is finished is read."""
    task, folder, rows, about = SETS[name]
    slug = "".join(letter for letter in name if letter.isalnum())
    table, place = work / f"{slug}.csv", work / f"{slug}-{upstream}-{way}"
    write_table(table, list(rows(data / folder)))
    model = str(weights / upstream) if (weights / upstream).is_dir() else upstream
    recipe = work / f"{place.name}.yaml"
    recipe.write_text(yaml.safe_dump(plan_of(task, table, model, way, steps)), encoding="utf-8")
    spent = place / "core_seconds.json"
    if not spent.is_file():
        command = [
            sys.executable,
            str(HOME / "run_downstream.py"),
            "-c",
            str(recipe),
            "--quiet",
            "--device",
            "cpu",
            "-p",
            str(place),
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.write_text(json.dumps(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    run = place if way == FROZEN else place / way
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    metric, size = result["select_by"], (run / "checkpoints" / "best.safetensors").stat().st_size
    alone = [sys.executable, __file__, str(data), str(weights), str(work), "--of", str(run), "--rounds"]
    return {
        "set": name,
        "about": about,
        "task": task,
        "upstream": upstream,
        "head": SHOWN[way].format(frozen=FROZEN_STEPS, steps=steps),
        "metric": metric,
        "value": result["scores"]["test"][metric],
        "interval": result["intervals"]["test"][metric],
        "seconds": round(result["environment"]["seconds"], 1),
        "core_seconds": round(json.loads(spent.read_text()), 1),
        **json.loads(subprocess.run([*alone, str(rounds)], check=True, capture_output=True, text=True).stdout),
        "checkpoint_mb": round(size / 1e6, 2),
        "best_step": result["best_step"],
        "command": "benchmarks/adapters.py DATA WEIGHTS WORK --upstreams " + upstream,
    }


def steps_of(folder: Path, rounds: int) -> dict[str, Any]:
    """Return the median of what a training step of a run takes, and the most memory that this process held."""
    setup = prepare(resolve([read_yaml(folder / "config.yaml")]))
    optimizer = make_optimizer(setup.model, setup.config, setup.balancer)
    task = next(iter(setup.tasks.values()))
    setup.model.train()
    spent: list[float] = []
    for _ in range(rounds + 1):
        began = time.process_time()
        loss, _ = setup.model(task.name, make_batch(task.splits["train"][:BATCH]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"step_core_seconds": round(median(spent[1:]), 3), "memory_mb": round(peak)}


if __name__ == "__main__":
    main()
