"""Five tasks on real speech, trained together on Whisper tiny.en: each alone, all, all but one, and the transfer.

    python benchmarks/real_mtl.py DATA WEIGHTS WORK [--steps 60]

DATA and WEIGHTS are those of real_speech.py. The plan stands in WORK/joint; finished runs there are kept. It writes its section
of `docs/results.md`, `results/real_mtl.json`, and `docs/pictures/real-mtl-relations.png`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import soundfile
import yaml
from real_sets import HOME, Row, emodb_phones, learners, lt_words, wake_words, write_table

BEGIN, END = "<!-- made by benchmarks/real_mtl.py: do not edit -->", "<!-- end of what it made -->"
PAGE_BEGIN = "<!-- made by benchmarks/real_speech.py: do not edit below -->"
LONGEST = 4.0  # seconds of a clip: an hour of one core is little for 8 million weights
SEEDS = (1, 2, 3)  # of the run of all tasks, from which the intervals of the relations come
EMOTIONS = {"W": "anger", "F": "happiness", "N": "neutral", "T": "sadness"}
METRICS = {"emotion": "ua", "ks": "acc", "sid": "acc", "dsd": "eer", "pr": "per"}
LOWER = ("eer", "per")  # metrics of which less is better


def emotions(folder: Path) -> Iterator[Row]:
    """Yield EmoDB's emotions, in the splits of its phones: what one task tests, no other one trains on."""
    for row in phones(folder):
        yield {**without(row, "phones"), "label": EMOTIONS[Path(row["audio"]).stem[5]]}


def phones(folder: Path) -> Iterator[Row]:
    """Yield EmoDB's phones: of five clips in a row of a speaker, three are for training."""
    places: dict[str, int] = {}
    for row in emodb_phones(folder):
        place = places[row["speaker"]] = places.get(row["speaker"], -1) + 1
        yield {**row, "split": ("train", "train", "train", "dev", "test")[place % 5]}


def words(folder: Path) -> Iterator[Row]:
    """Yield Lithuanian words: 9 of 28 speakers are tested, 5 choose."""
    rows = list(lt_words(folder))
    speakers = sorted({row["speaker"] for row in rows})
    splits = {name: ("dev", "train", "test", "train", "train", "test")[place % 6] for place, name in enumerate(speakers)}
    for row in rows:
        yield {**row, "split": splits[row["speaker"]]}


def calls(folder: Path) -> Iterator[Row]:
    """Yield wake words and other speech: of five files in a row, two are for training, and two are tested."""
    for place, row in enumerate(wake_words(folder)):
        yield {**row, "split": ("train", "test", "train", "dev", "test")[place % 5]}


def without(row: Row, column: str) -> Row:
    """Return a row without a column."""
    return {key: value for key, value in row.items() if key != column}


SETS = {
    "emotion": (emotions, "emodb_full"),
    "ks": (words, "lt_speech_commands"),
    "sid": (learners, "speechocean762"),
    "dsd": (calls, "precise"),
    "pr": (phones, "emodb_full"),
}


def recipe(model: Path, data: Path, work: Path, steps: int) -> dict[str, Any]:
    """Return the plan: five heads on one upstream that is finetuned."""
    tasks: dict[str, dict[str, Any]] = {
        "emotion": {"batch_size": 4},
        "ks": {"batch_size": 6},
        "sid": {"batch_size": 6, "sid": {"crop_seconds": 1.5}},
        "dsd": {"batch_size": 5},
        "pr": {"batch_size": 5, "pr": {"zero_infinity": True}},
    }
    for task, (rows, folder) in SETS.items():
        table = work / f"joint-{task}.csv"
        kept = [row for row in rows(data / folder) if soundfile.info(row["audio"]).duration <= LONGEST]
        write_table(table, kept)
        tasks[task]["corpus"] = {"name": "manifest", "protocol": "split", "data": str(table)}
    once = {"save_every": 50, "log_every": 10, "patience": None}  # evaluated once, at the end
    alone = {"optimizer": {"lr": 1e-3}, "training": {**once, "steps": 100, "batch_size": 16, "eval_every": 50}}
    return {
        "upstream": {"name": str(model), "attend": "valid", "normalize_layers": True, "trainable": True},
        "tasks": tasks,
        "optimizer": {"name": "adam", "lr": 2e-3, "upstream_lr": 5e-5, "schedule": "linear", "warmup_steps": 5},
        "training": {**once, "steps": steps, "eval_every": steps, "precision": "bf16"},
        "balance": {"cosines_every": 20},
        "single": alone,
        "transfer": alone,
    }


def main() -> None:
    """Train the plan, and write its section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=60, help="of the joint runs")
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    config, plan = work / "joint.yaml", work / "joint"
    config.write_text(yaml.safe_dump(recipe(weights / "whisper_tiny_en", data, work, flags.steps)), encoding="utf-8")
    command = [sys.executable, str(HOME / "run_mtl.py"), "-c", str(config), "-p", str(plan), "--scenario", "paper"]
    subprocess.run(command, check=True)
    subprocess.run([*command, "--seeds", ",".join(map(str, SEEDS)), "--only", "all"], check=True)
    write(plan, flags.steps)


def write(plan: Path, steps: int) -> None:
    """Write what a finished plan says: its numbers, its picture, and its part of the page."""
    rows = read_rows(plan)
    relations = json.loads((plan / "relations.json").read_text(encoding="utf-8"))
    found = {"steps": steps, "rows": rows, "relations": relations}
    (HOME / "results" / "real_mtl.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shutil.copy(plan / "relations.png", HOME / "docs" / "pictures" / "real-mtl-relations.png")
    page = HOME / "docs" / "results.md"
    before, _, after = page.read_text(encoding="utf-8").partition(BEGIN)
    if not after:
        before, _, after = before.partition(PAGE_BEGIN)
        after = f"{END}\n\n{PAGE_BEGIN}{after}"
    made = "\n".join([BEGIN, "", *table(rows), "", *edges(relations), "", ""])
    page.write_text(before + made + END + after.partition(END)[2], encoding="utf-8")


def read_rows(plan: Path) -> list[dict[str, Any]]:
    """Return every score of the plan with the interval over the test's speakers."""
    rows = []
    with (plan / "table1.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["weights"] == "last"]
    for line in lines:
        run, task, metric = line["run"], line["task"], line["metric"]
        alone = run.endswith("-")  # single- and transfer-: a run of one task
        result = json.loads((plan / f"{run}{task if alone else ''}" / f"seed{line['seed']}" / "result.json").read_text())
        own = result if alone else result["tasks"][task]["last"]
        seed, seconds = int(line["seed"]), result["environment"]["seconds"]
        interval = own["intervals"]["test"][metric]
        scores = {"metric": metric, "value": float(line["value"]), "interval": interval, "seconds": seconds}
        rows.append({"run": run.strip("-"), "task": task, "seed": seed, **scores})
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the paper's table: mean and spread where there are seeds, and intervals over the test's speakers."""
    names = {"single": "(a) alone, frozen", "all": "(b-1) all tasks, finetuned"}
    names |= {f"without-{task}": f"(b-2) all but {task}" for task in SETS} | {"transfer": "(c) transfer, frozen"}
    heads = [f"{task} {metric}{'↓' if metric in LOWER else '↑'}" for task, metric in METRICS.items()]
    lines = [f"| | {' | '.join(heads)} | s a run |", f"|---|{'---|' * (len(heads) + 1)}"]
    for run, name in names.items():
        of_run = [row for row in rows if row["run"] == run]
        seconds = {(row["task"] if run in ("single", "transfer") else "", row["seed"]): row["seconds"] for row in of_run}
        cells = [cell([row for row in of_run if row["task"] == task]) for task in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} | {mean(seconds.values()):.0f} |" if seconds else f"| {name} |")
    return lines


def cell(rows: list[dict[str, Any]]) -> str:
    """Return the scores of a task in runs of one kind: of several seeds their mean and spread, and their intervals' mean ends."""
    if not rows:
        return "X"
    values, intervals = [row["value"] for row in rows], [row["interval"] for row in rows if row["interval"]]
    ends = [mean(ends) for ends in zip(*intervals, strict=True)]
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def edges(relations: dict[str, Any]) -> list[str]:
    """Return what leaving a task out does to the others, with intervals."""
    lines = ["| left out | task | change of its score, % | 95 % interval |", "|---|---|---|---|"]
    for edge in sorted(relations["improvement"] + relations["hurt"], key=lambda edge: edge["change"]):
        ends = edge.get("interval")
        shown = f"{100 * ends[0]:+.0f} to {100 * ends[1]:+.0f}" if ends else "–"
        lines.append(f"| {edge['from']} | {edge['to']} | {100 * edge['change']:+.1f} | {shown} |")
    return lines


if __name__ == "__main__":
    main()
