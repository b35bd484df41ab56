"""Five tasks on real speech, trained together on Whisper tiny.en: each alone, all, all but one, and the transfer.

    python benchmarks/real_mtl.py DATA WEIGHTS WORK [--steps 150]

DATA and WEIGHTS are those of real_speech.py. The plan stands in WORK/joint, with its tables and the graph of relations; finished
runs are kept. It writes `results/real_mtl.json`, `docs/pictures/real-mtl-relations.png`, and that section of `docs/results.md`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from real_sets import HOME, Row, emodb_phones, learners, lt_words, rated_learners, write_table

TASKS = ("emotion", "ks", "sid", "avd", "pr")
STEPS = {"eval_every": 150, "save_every": 50, "log_every": 10, "patience": None}
EMOTIONS = {"W": "anger", "F": "happiness", "N": "neutral", "T": "sadness"}


def emodb_emotions(folder: Path) -> Iterator[Row]:
    """Yield EmoDB's emotions, split by speaker as its phones are: what one task tests, no other one trains on."""
    for row in emodb_phones(folder):
        name = Path(row["audio"]).stem
        yield {key: value for key, value in row.items() if key != "phones"} | {"label": EMOTIONS[name[5]]}


def rated_sentences(folder: Path) -> Iterator[Row]:
    """Yield learners' ratings, split by sentence as their voices are."""
    for row, rated in zip(learners(folder), rated_learners(folder), strict=True):
        yield {**rated, "split": row["split"]}


SETS = {
    "emotion": (emodb_emotions, "emodb_full"),
    "ks": (lt_words, "lt_speech_commands"),
    "sid": (learners, "speechocean762"),
    "avd": (rated_sentences, "speechocean762"),
    "pr": (emodb_phones, "emodb_full"),
}


def recipe(model: Path, data: Path, work: Path, steps: int) -> dict[str, Any]:
    """Return the plan: five heads on one upstream that is finetuned."""
    heads: dict[str, dict[str, Any]] = {
        "emotion": {"batch_size": 4},
        "ks": {"batch_size": 8},
        "sid": {"batch_size": 8, "sid": {"crop_seconds": 1.5}},
        "avd": {"batch_size": 4, "avd": {"scale": [0, 10]}},
        "pr": {"batch_size": 4, "pr": {"zero_infinity": True}},
    }
    for task, (rows, folder) in SETS.items():
        table = work / f"joint-{task}.csv"
        write_table(table, list(rows(data / folder)))
        heads[task]["corpus"] = {"name": "manifest", "protocol": "split", "data": str(table)}
    alone = {"optimizer": {"lr": 1e-3}, "training": {**STEPS, "steps": steps, "batch_size": 16, "eval_every": 50}}
    return {
        "upstream": {"name": str(model), "attend": "valid", "trainable": True},
        "tasks": heads,
        "optimizer": {"name": "adam", "lr": 1e-3, "upstream_lr": 3e-5, "schedule": "linear", "warmup_steps": 10},
        "training": {**STEPS, "steps": steps, "eval_every": steps},
        "balance": {"cosines_every": 25},
        "single": alone,
        "transfer": alone,
    }


def main() -> None:
    """Train the plan, and write its section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--steps", type=int, default=150)
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    config = work / "joint.yaml"
    config.write_text(yaml.safe_dump(recipe(weights / "whisper_tiny_en", data, work, flags.steps)), encoding="utf-8")
    words = [sys.executable, str(HOME / "run_mtl.py"), "-c", str(config), "-p", str(work / "joint"), "--scenario", "paper"]
    for more in (["--seeds", "1"], ["--seeds", "1,2,3", "--only", "all"]):
        subprocess.run([*words, *more], check=True)
    print(json.dumps(sorted(path.name for path in (work / "joint").iterdir())))


if __name__ == "__main__":
    main()
