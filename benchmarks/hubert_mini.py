"""Make the data of hubert_mini, and measure the model: `docs/hubert_mini.md` comes from here.

    python benchmarks/hubert_mini.py data DATA WORK            # unlabelled speech and its manifest, WORK/mini.csv
    python benchmarks/hubert_mini.py speed MODEL WEIGHTS       # seconds per second of audio, beside the teacher's
    python benchmarks/hubert_mini.py evaluate MODEL DATA WEIGHTS WORK [--sets 'digits,Lithuanian words'] [--picture FILE]

DATA holds the public sets in their own layouts, WEIGHTS the teacher's folder (--teacher). MODEL is a folder in the hub's format,
and so is --start, what its training began from. Finished runs in WORK are kept; a model is known by the hash of its weights.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hubert_mini_data import make_data
from real_speech import EXACT, SETS, Set, measure, run_folder

PROBED = (
    "EmoDB, 4 emotions",
    "Lithuanian words",
    "digits",
    "digits' speakers",
    "learners' voices",
    "learners' ratings",
    "wake words",
)
SECONDS = (3, 10, 25)  # of the clips that are timed
ROUNDS = 9
LOWER = ("eer", "per", "wer")  # metrics of which less is better
COLOURS = {"random weights": "lightgray", "its start": "tab:gray", "hubert_mini": "tab:blue", "teacher": "tab:orange"}


def main() -> None:
    """Run the step that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for step, places in {
        "data": ("data", "work"),
        "speed": ("model", "weights"),
        "evaluate": ("model", "data", "weights", "work"),
    }.items():
        of_step = steps.add_parser(step)
        for place in places:
            of_step.add_argument(place, type=lambda text: Path(text).expanduser().absolute())
    steps.choices["data"].add_argument("--seed", type=int, default=0)
    steps.choices["evaluate"].add_argument("--sets", default=",".join(PROBED).replace("EmoDB, 4", "EmoDB 4"))
    steps.choices["evaluate"].add_argument("--start", type=lambda text: Path(text).expanduser().absolute())
    steps.choices["evaluate"].add_argument("--picture", type=Path, help="a png of the layer curves")
    for step in ("speed", "evaluate"):
        steps.choices[step].add_argument("--teacher", default="whisper_base", help="its folder in WEIGHTS")
    flags = parser.parse_args()
    if flags.step == "data":
        make_data(flags.data, flags.work, flags.seed)
    elif flags.step == "speed":
        print(speed(flags.model, flags.weights / flags.teacher))
    else:
        wanted = {name.strip() for name in flags.sets.split(",")}
        sets = [one for one in SETS if one.name in PROBED and one.name.replace(",", "") in wanted]
        models = {"hubert_mini": flags.model, "teacher": flags.weights / flags.teacher}
        if flags.start:
            models["its start"] = flags.start
        evaluate(sets, models, flags.data, flags.work, flags.picture)


def evaluate(sets: Sequence[Set], models: dict[str, Path], data: Path, work: Path, picture: Path | None) -> None:
    """Probe fbank, random weights, what training began from, the model and its teacher; print and write what comes out."""
    work.mkdir(parents=True, exist_ok=True)
    digests = {shown: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() for shown, folder in models.items()}
    random = f"hubert_random {hashlib.sha256((models['hubert_mini'] / 'config.json').read_bytes()).hexdigest()[:8]}"
    models = {"random weights": random_weights(models["hubert_mini"], work / random), **models}
    shown_first = [name for name in ("random weights", "its start", "hubert_mini") if name in models]
    names = {"fbank": "fbank", **{shown: f"{shown} {digests.get(shown, random)[:8]}" for shown in shown_first}}
    names |= {"random weights": random, "teacher": models["teacher"].name}
    folders = {names[shown]: folder for shown, folder in models.items()}
    rows: list[dict[str, Any]] = []
    for one in sets:
        found = {shown: measure(one, name, EXACT, data, folders, work) for shown, name in names.items()}
        row = {"set": one.name, "about": one.about, "metric": found["fbank"]["metric"], "by": found}
        rows.append({**row, "sha256": digests["hubert_mini"]})
        print(line_of(rows[-1]), flush=True)
    (work / f"{names['hubert_mini']}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(rows))
    if picture is not None:
        draw(sets, names, work, picture)


def random_weights(model: Path, folder: Path) -> Path:
    """Make a model of the same architecture that has learned nothing."""
    if not folder.is_dir():
        import torch
        from transformers import AutoConfig, HubertModel

        torch.manual_seed(0)
        HubertModel(AutoConfig.from_pretrained(model)).save_pretrained(folder)
    return folder


def way(row: dict[str, Any]) -> float:
    """Return the share of the way from fbank to the teacher; the teacher's own place where fbank is as good."""
    fbank, mini, teacher = (row["by"][name]["value"] for name in ("fbank", "hubert_mini", "teacher"))
    return float((mini - fbank) / (teacher - fbank)) if teacher != fbank else 1.0


def line_of(row: dict[str, Any]) -> str:
    """Return the table's line of a set."""
    cells = []
    for measured in row["by"].values():
        ends = measured["interval"]
        cells.append(f"{measured['value']:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""))
    return f"| {row['set']}: {row['about']} | {row['metric']} | {' | '.join(cells)} | {way(row):.0%} |"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of all sets, and what it says on average."""
    names = list(rows[0]["by"])
    lines = [f"| set | metric | {' | '.join(names)} | share of the way |", f"|---|---|{'---|' * (len(names) + 1)}"]
    lines += [line_of(row) for row in rows]
    gains = {
        name: statistics.mean((row["by"]["hubert_mini"]["value"] - row["by"][name]["value"]) * sign(row) for row in rows)
        for name in ("random weights", "its start")
        if name in names
    }
    better = sum((row["by"]["hubert_mini"]["value"] - row["by"]["fbank"]["value"]) * sign(row) > 0 for row in rows)
    return "\n".join(
        [
            *lines,
            "",
            f"Mean share of the way from fbank to the teacher: {statistics.mean(map(way, rows)):.0%}; "
            f"better than fbank on {better} of {len(rows)} sets; "
            f"better on average than {', '.join(f'{name} by {gain:.3f}' for name, gain in gains.items())}.",
        ]
    )


def sign(row: dict[str, Any]) -> int:
    """Return -1 where a lower value is better."""
    return -1 if row["metric"] in LOWER else 1


def curve(folder: Path) -> list[tuple[float, float | None, float | None]]:
    """Return the score of each layer alone, with the ends of its interval."""
    path = folder / "plots" / "layer-curve.csv"
    if not path.is_file():
        words = [sys.executable, "-m", "headwater", "plot", "layers", str(folder)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    with path.open(encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["layer"].isdecimal()]
    ends = [[float(row[end]) if row[end] else None for end in ("low", "high")] for row in found]
    return [(float(row["value"]), low, high) for row, (low, high) in zip(found, ends, strict=True)]


def draw(sets: Sequence[Set], names: dict[str, str], work: Path, picture: Path) -> None:
    """Draw the layer curves of the model, its random start and its teacher; fbank is a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.8 * ((len(sets) + 3) // 4)), layout="constrained")
    places = figure.subplots((len(sets) + 3) // 4, min(4, len(sets)), squeeze=False).ravel()
    for axes, one in zip(places, sets, strict=False):
        for shown in [name for name in COLOURS if name in names]:
            colour = COLOURS[shown]
            points = curve(run_folder(one, names[shown], EXACT, work))
            depth = [place / (len(points) - 1) for place in range(len(points))]
            axes.plot(depth, [value for value, _, _ in points], marker="o", color=colour, label=shown)
            for place, (value, low, high) in zip(depth, points, strict=True):
                if low is not None and high is not None and shown == "hubert_mini":
                    axes.vlines(place, low, high, color=colour, alpha=0.4)
                    axes.plot([place], [value], marker="o", color=colour)
        fbank = json.loads((run_folder(one, "fbank", EXACT, work) / "result.json").read_text(encoding="utf-8"))
        score = fbank["pooled"]["test"]["scores"] if "pooled" in fbank else fbank["scores"]["test"]
        axes.axhline(score[fbank["select_by"]], color="black", linestyle=":", label="fbank")
        axes.set_title(one.name)
        axes.set_ylabel(fbank["select_by"].upper() + (" (lower is better)" if fbank["select_by"] in LOWER else ""))
        axes.set_xlabel("depth: first layer 0, last layer 1")
    for axes in places[len(sets) :]:
        axes.set_visible(False)
    figure.legend(*places[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def speed(model: Path, teacher: Path) -> str:
    """Return a table of milliseconds for a second of audio, one thread, each in turn, medians."""
    import torch

    from headwater.upstream.base import UpstreamConfig
    from headwater.upstream.load import load_upstream

    torch.set_num_threads(1)
    valid = UpstreamConfig(name=str(teacher), attend="valid")
    upstreams = {
        "teacher, `attend=valid`": load_upstream(valid),
        "teacher (30 s are computed for any clip)": load_upstream(str(teacher)),
        "hubert_mini": load_upstream(str(model)),
    }
    times: dict[tuple[str, int], list[float]] = {(name, seconds): [] for name in upstreams for seconds in SECONDS}
    with torch.inference_mode():
        for _ in range(ROUNDS + 1):
            for name, seconds in times:
                clip = 0.1 * torch.randn(seconds * 16000)
                begin = time.process_time()
                upstreams[name]([clip])
                times[name, seconds].append(1000 * (time.process_time() - begin) / seconds)
    medians = {key: statistics.median(found[1:]) for key, found in times.items()}  # the first one warms up
    lines = [f"| upstream | {' | '.join(f'{seconds} s' for seconds in SECONDS)} |", f"|---|{'---|' * len(SECONDS)}"]
    for name in upstreams:
        cells = [
            f"{medians[name, seconds]:.1f} (x{medians[name, seconds] / medians['hubert_mini', seconds]:.1f})"
            for seconds in SECONDS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
