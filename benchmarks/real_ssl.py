"""Pretraining beside supervised tasks on real speech: does it help an upstream to transfer to the task that was left out?

    python benchmarks/real_ssl.py DATA WORK [--steps 40]

DATA is that of real_speech.py. Words and voices are trained together on hubert_mini, with masked prediction of units of
its own layer 2 on all of their training audio beside them, and without. It prints the transfers to each task over three seeds.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import yaml
from real_mtl import SETS
from real_sets import HOME, write_table

TASKS = ("ks", "sid")
SEEDS = "1,2,3"


def recipe(data: Path, work: Path, steps: int) -> dict:
    """Return the plan with the pretraining task in it."""
    tasks, unlabelled = {}, []
    for task in TASKS:
        make, folder = SETS[task]
        rows = list(make(data / folder))
        table = work / f"ssl-{task}.csv"
        write_table(table, rows)
        tasks[task] = {"batch_size": 4, "corpus": {"name": "manifest", "protocol": "split", "data": str(table)}}
        unlabelled += [{"audio": row["audio"], "split": row["split"]} for row in rows if row["split"] in ("train", "dev")]
    listed = {row["audio"]: row for row in unlabelled}  # a clip that two tasks have is here once
    write_table(work / "ssl-audio.csv", [*listed.values()])
    tasks["pretrain"] = {
        "batch_size": 6,
        "pretrain": {"units": 100, "teacher_layer": 2, "sample_frames": 50_000},
        "corpus": {"name": "manifest", "protocol": "split", "data": str(work / "ssl-audio.csv")},
    }
    once = {"save_every": 100, "log_every": 20, "patience": None}
    alone = {"optimizer": {"lr": 1e-3}, "training": {**once, "steps": 200, "batch_size": 32, "eval_every": 100}}
    return {
        "upstream": {"name": "hubert_mini", "trainable": True, "front_end": "trained", "normalize_layers": True},
        "teacher": {"name": "hubert_mini"},
        "tasks": tasks,
        "optimizer": {"name": "adam", "lr": 1e-3, "upstream_lr": 3e-4, "schedule": "linear", "warmup_steps": 10},
        "training": {**once, "steps": steps, "eval_every": steps},
        "single": alone,
        "transfer": alone,
    }


def transfers(plan: Path) -> dict[str, list[float]]:
    """Return the test score of each task on the upstream that was trained on the others, seed by seed."""
    found: dict[str, list[float]] = {task: [] for task in TASKS}
    with (plan / "table1.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["run"] == "transfer-" and line["weights"] == "last":
                found[line["task"]].append(float(line["value"]))
    return found


def main() -> None:
    """Train both plans, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=40, help="of the joint runs")
    flags = parser.parse_args()
    data, work = flags.data.expanduser().absolute(), flags.work.expanduser().absolute()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "ssl.yaml"
    config.write_text(yaml.safe_dump(recipe(data, work, flags.steps)), encoding="utf-8")
    scores = {}
    for name, only in (("with", []), ("without", ["--only", ",".join(TASKS)])):
        command = [sys.executable, str(HOME / "run_mtl.py"), "-c", str(config), "-p", str(work / f"ssl-{name}")]
        subprocess.run([*command, "--scenario", "transfer", "--seeds", SEEDS, *only], check=True)
        scores[name] = transfers(work / f"ssl-{name}")
    print("| transfer to | without pretraining | with | difference of pairs of seeds |\n|---|---|---|---|")
    for task in TASKS:
        pairs = [after - before for before, after in zip(scores["without"][task], scores["with"][task], strict=True)]
        cells = [f"{mean(values):.3f} ± {stdev(values):.3f}" for values in (scores["without"][task], scores["with"][task])]
        half = 4.303 * stdev(pairs) / len(pairs) ** 0.5  # Student's t, two degrees of freedom
        print(f"| {task} | {' | '.join(cells)} | {mean(pairs):+.3f} [{mean(pairs) - half:+.3f}, {mean(pairs) + half:+.3f}] |")


if __name__ == "__main__":
    main()
