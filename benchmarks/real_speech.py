"""Every task on real speech with real weights, and the heads beside each other: `docs/results.md` and `results/` come from here.

    python benchmarks/real_speech.py DATA WEIGHTS WORK [--sets "digits,wake words"] [--upstreams fbank,whisper_tiny_en]

DATA holds the public sets of real_sets.py in their own layouts (what lacks is passed over), WEIGHTS the folders whisper_tiny_en
and whisper_base in the hub's format. Finished runs in WORK are kept.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_sets import HOME, SETS, Set, write_table

BEGIN = "<!-- made by benchmarks/real_speech.py: do not edit below -->"
VALID = "upstream.attend=valid"  # Whisper reads the clip alone, not 30 s of it and silence
UPSTREAMS = ("fbank", "whisper_random", "whisper_tiny_en", "whisper_base")
REAL = ("fbank", "whisper_tiny_en", "whisper_base")
EXACT, ADAM = "exact (the bare command)", "solver=adam"
HEADS: dict[str, tuple[str, ...]] = {
    EXACT: (),
    "the same, all layers mixed": ("exact.keep=mixture",),
    "the same, mean+std": ("{task}.pooling=mean+std",),
    ADAM: ("solver=adam", "training.steps=2000"),
    "solver=adam, layers normed": ("solver=adam", "training.steps=2000", "upstream.normalize_layers=true"),
}


def main() -> None:
    """Train what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--upstreams", default=",".join(UPSTREAMS), metavar="A,B", help="train what is missing of these alone")
    parser.add_argument("--sets", metavar="A,B", help="train what is missing of these sets alone (default: of all)")
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    folders = {name: weights / name for name in REAL[1:]} | {"whisper_random": work / "whisper_random"}
    make_random(folders["whisper_tiny_en"], folders["whisper_random"])
    sets = [one for one in SETS if (data / one.folder).is_dir()]
    path = HOME / "results" / "real_speech.json"
    path.parent.mkdir(exist_ok=True)
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    known = {key_of(row): row for row in before if row["set"] in {one.name for one in sets}}
    todo = [(one, upstream, EXACT) for one in sets for upstream in (REAL if one.trained else UPSTREAMS)]
    compared = [one for one in sets if one.task not in ("avd", "ic") and not one.trained]
    todo += [(one, "whisper_tiny_en", head) for one in compared for head in HEADS if head != EXACT]
    wanted = flags.sets.split(",") if flags.sets else [one.name for one in sets]
    todo = [row for row in todo if row[0].name in wanted and row[1] in flags.upstreams.split(",")]
    for one, upstream, head in todo:  # the page grows as rows come: those of an earlier run stand until theirs do
        row = measure(one, upstream, head, data, folders, work)
        known[key_of(row)] = row
        names = [other.name for other in sets]
        found = sorted(known.values(), key=lambda row: names.index(row["set"]))
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        page = HOME / "docs" / "results.md"
        page.write_text(page.read_text(encoding="utf-8").split(BEGIN)[0] + BEGIN + "\n" + tables(found), encoding="utf-8")


def key_of(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return what a row is of."""
    return row["set"], row["upstream"], row["head"]


def make_random(like: Path, folder: Path) -> None:
    """Make a model of the same architecture that has learned nothing."""
    if folder.is_dir():
        return
    import torch
    from transformers import AutoConfig, WhisperModel

    torch.manual_seed(0)
    WhisperModel(AutoConfig.from_pretrained(like)).save_pretrained(folder)
    for path in like.iterdir():
        if path.suffix == ".json" and not (folder / path.name).exists():
            shutil.copy(path, folder / path.name)


def run_folder(one: Set, upstream: str, head: str, work: Path) -> Path:
    """Return where a run (or a plan of folds) is kept."""
    return work / "".join(letter if letter.isalnum() else "-" for letter in f"{one.name}-{upstream}-{head}")


def measure(one: Set, upstream: str, head: str, data: Path, folders: Mapping[str, Path], work: Path) -> dict[str, Any]:
    """Return what one run (or plan of folds) says; one that is finished is read. `folders` of upstreams that have one."""
    folder, place = run_folder(one, upstream, head, work), data / one.folder
    if one.make is not None:
        place = one.make(place, work, folders["whisper_tiny_en"].parent)
    if one.rows is not None:
        table = work / f"{''.join(letter for letter in one.name if letter.isalnum())}.csv"
        write_table(table, list(one.rows(place)))
        place = table
    name = str(folders.get(upstream, upstream))
    options = [*one.options, *(option.format(task=one.task) for option in HEADS[head])]
    options += [VALID] if upstream.startswith("whisper") else []
    options += [*one.real] if upstream != "fbank" else []
    folds = ["--folds", "all"] if one.folds else []
    words = [sys.executable, str(HOME / "run_downstream.py"), "-u", name, "-d", one.task, "--data", str(place), *folds]
    shown = f"-u {upstream} -d {one.task} --data {one.folder}{'.csv' if one.rows else ''} {' '.join(folds)}"
    if one.task == "qbe":
        words = [sys.executable, "-m", "headwater", "qbe", "-u", name]
        words += [word for table in ("queries", "documents") for word in (f"--{table}", str(place / f"{table}.csv"))]
        shown = f"-u {upstream} -d qbe --queries queries.csv --documents documents.csv"
    words += ["-p", str(folder), "-o", *options, "--quiet"] if options else ["-p", str(folder), "--quiet"]
    if not (folder / "result.json").is_file():
        print(f"{one.name} · {upstream} · {head}", flush=True)
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    metric = one.shown or result["select_by"]
    pooled = result["pooled"]["test"] if "pooled" in result else {}
    scores = pooled.get("scores") or result["scores"]["test"]
    intervals = pooled.get("intervals") or result["intervals"]["test"]
    runs = [folder / run["name"] for run in result.get("runs", [])] or [folder]
    seconds = sum(json.loads((run / "result.json").read_text())["environment"]["seconds"] for run in runs)
    return {
        "set": one.name,
        "about": one.about,
        "task": one.task,
        "upstream": upstream,
        "head": "trained (the bare command)" if one.trained else head,
        "metric": metric,
        "value": scores[metric],
        "interval": intervals[metric],
        "seconds": round(seconds, 1),
        "command": " ".join(f"{shown} {'-o ' + ' '.join(options) if options else ''}".split()),
    }


def tables(found: Sequence[dict[str, Any]]) -> str:
    """Return the two tables, and the command of each row."""
    trained = [row for row in found if row["head"].startswith("trained")]
    names = list(dict.fromkeys(row["set"] for row in found if row not in trained))
    by_upstream = {(row["set"], row["upstream"]): row for row in found if row["head"] == EXACT}
    lines = [
        "",
        "## Tasks and upstreams",
        "",
        "Heads are the bare command's. In brackets the 95 % interval; seconds of the head alone.",
        "",
    ]
    lines += [f"| set | metric | {' | '.join(UPSTREAMS)} |", f"|---|---|{'---|' * len(UPSTREAMS)}"]
    for name in names:
        rows = [by_upstream.get((name, upstream)) for upstream in UPSTREAMS]
        first = next(row for row in found if row["set"] == name)
        lines.append(f"| {name}: {first['about']} | {first['metric']} | {' | '.join(map(cell, rows))} |")
    lines += [
        "",
        "## Tasks that are trained by steps",
        "",
        "Few utterances, small heads: the order of upstreams counts, not the score. `words in recordings` trains nothing.",
        "",
    ]
    lines += [f"| set | metric | {' | '.join(REAL)} |", f"|---|---|{'---|' * len(REAL)}"]
    for name in dict.fromkeys(row["set"] for row in trained):
        of_set = {row["upstream"]: row for row in trained if row["set"] == name}
        first, rows = next(iter(of_set.values())), [of_set.get(upstream) for upstream in REAL]
        lines.append(f"| {name}: {first['about']} | {first['metric']} | {' | '.join(map(cell, rows))} |")
    lines += ["", "## Heads on the same features", "", "Upstream: Whisper tiny.en. `solver=adam` takes 2,000 steps.", ""]
    with_heads = [name for name in names if any(row["set"] == name and row["head"] == ADAM for row in found)]
    lines += [f"| head | {' | '.join(with_heads)} |", f"|---|{'---|' * len(with_heads)}"]
    for head in HEADS:
        of_head = {row["set"]: row for row in found if (row["head"], row["upstream"]) == (head, "whisper_tiny_en")}
        lines.append(f"| {head} | {' | '.join(cell(of_head.get(name)) for name in with_heads)} |")
    lines += ["", "## Commands", "", "After `python run_downstream.py`:", "", "```"]
    return "\n".join([*lines, *(row["command"] for row in found), "```", ""])


def cell(row: dict[str, Any] | None) -> str:
    """Return a score with its interval and its time; a dash where it was not measured."""
    if row is None:
        return "–"
    ends = row["interval"]
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return f"{row['value']:.3f}{interval}, {row['seconds']:.0f} s"


if __name__ == "__main__":
    main()
