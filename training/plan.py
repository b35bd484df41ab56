"""Runs in order: folds, seeds and sweeps; what is done is skipped, and all of it comes into one table."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..corpus.base import get_reader
from ..downstream.base import Outcome, load_task
from ..errors import UserError
from . import metrics
from .checkpoint import made, read_json, write_json, write_text
from .config import RunConfig, merge, parse_override, resolve, to_mapping
from .results import intervals_of, read_predictions
from .run import Runtime, references, run, say


@dataclass(frozen=True)
class Part:
    """One run of a plan, in a folder below the plan's."""

    setting: str  # of the sweep: "optimizer.lr=0.001"; "": there is none
    seed: int
    fold: int
    config: RunConfig
    name: str  # folder below the plan's; ".": the plan is this one run


def expand(
    config: RunConfig,
    folds: Sequence[int],
    seeds: Sequence[int],
    sweeps: Sequence[str],
    layers: Sequence[int | None] | None = None,
) -> list[Part]:
    """Return the runs of a plan, in order; several layers have a head each, None being the weighted sum."""
    settings = [*itertools.product(*(sweep_values(sweep) for sweep in sweeps))]
    layers = [config.upstream.layer] if layers is None else layers
    parts: list[Part] = []
    for layer, setting, seed, fold in itertools.product(layers, settings, seeds, folds):
        mapping = to_mapping(config)
        overrides = [f"upstream.layer={'null' if layer is None else layer}"]
        for override in (*overrides, *setting, f"seed={seed}", f"corpus.fold={fold}"):
            mapping = merge(mapping, parse_override(override))
        heard = (["sum"] if layer is None else [f"layer{layer}"]) * (len(layers) > 1)
        label = ",".join([*heard, *setting])
        levels = [label] * bool(label) + [f"seed{seed}"] * (len(seeds) > 1) + [f"fold{fold}"] * (len(folds) > 1)
        part = Part(label, seed, fold, resolve([mapping]), "/".join(levels) or ".")
        twin = next((other.name for other in parts if other.config == part.config), None)
        if twin is not None:  # counted twice it would make the spread smaller than it is
            raise UserError(f"Expected the runs of a plan to differ, found '{twin}' and '{part.name}' alike. Leave one out.")
        parts.append(part)
    return parts


def sweep_values(sweep: str) -> list[str]:
    """Return `optimizer.lr=1e-4,1e-3` as one override for each value."""
    key, equals, values = sweep.partition("=")
    if not equals or not values:
        raise UserError(f"Expected `--sweep key=a,b`, found '{sweep}'. For instance: --sweep optimizer.lr=1e-4,1e-3")
    # commas inside brackets belong to a value: labels.keep=[neu,sad],[neu,ang]
    return [f"{key}={value.strip()}" for value in re.split(r",(?![^\[{]*[\]}])", values)]


def all_folds(config: RunConfig) -> list[int]:
    """Return every fold of the config's protocol."""
    return [*range(1, get_reader(config.corpus.name).protocols[config.corpus.protocol] + 1)]


def run_plan(parts: Sequence[Part], folder: Path, runtime: Runtime, jobs: int = 1) -> dict[str, Any]:
    """Run every part that is not done, and return the result of the one run, or the summary of all."""
    if [part.name for part in parts] == ["."]:
        return run(parts[0].config, folder, runtime)
    if (folder / "identity.json").is_file():
        raise UserError(
            f"Expected a folder for {len(parts)} runs, found a single one in '{folder}'. Choose another with -n or -p."
        )
    heard = {part.config.upstream.layer for part in parts}
    runtime = replace(runtime, share_layers=runtime.share_layers or len(heard) > 1)
    done = sum((folder / part.name / "result.json").is_file() for part in parts)
    say(runtime, f"plan      {len(parts)} runs in {folder}, {done} done")
    if jobs > 1:
        results = run_in_processes(parts, folder, runtime, jobs)
    else:
        results = []
        for number, part in enumerate(parts, 1):
            say(runtime, f"run {number} of {len(parts)}: {part.name}")
            results.append(run(part.config, folder / part.name, runtime))
    summary = summarise(parts, results, folder)
    if int(os.environ.get("RANK", "0")) == 0:
        write_json(folder / "result.json", summary)
    return summary


def run_in_processes(parts: Sequence[Part], folder: Path, runtime: Runtime, jobs: int) -> list[dict[str, Any]]:
    """Run several parts at once, each in a process with its share of the cores."""
    if "RANK" in os.environ:
        raise UserError("Expected one process for --jobs, found torchrun. Use --jobs alone, or torchrun with --jobs 1.")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))

    def start(part: Part) -> dict[str, Any]:
        """Run one part to its end and return its result."""
        place = folder / part.name
        # what this process resolved is what that one runs
        asked = recipes / f"{parts.index(part)}.yaml"
        write_text(asked, yaml.safe_dump(to_mapping(part.config), sort_keys=False, allow_unicode=True))
        verb = [sys.executable, "-m", "headwater", "downstream"]
        flags = ["-c", str(asked), "-v", str(part.fold), "-p", str(place), "--device", runtime.device]
        command = [*verb, *flags, *["--share-layers"] * runtime.share_layers]
        ended = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": threads}, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise UserError(f"Run '{part.name}' stopped:\n{ended.stderr.strip()[-2000:]}")
        say(runtime, f"done      {part.name}")
        return read_json(place / "result.json")

    with made(folder), tempfile.TemporaryDirectory(prefix="headwater-") as name, ThreadPoolExecutor(jobs) as pool:
        recipes = Path(name)
        return list(pool.map(start, parts))


def summarise(parts: Sequence[Part], results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Return all runs of a plan side by side; dev alone decides between the settings of a sweep."""
    config, select_by = parts[0].config, parts[0].config.select_by
    task = load_task(config.task)
    by_setting: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        by_setting.setdefault(part.setting, []).append(row)
    dev = {
        setting: sum(results[row]["scores"]["dev"][select_by] for row in rows) / len(rows) for setting, rows in by_setting.items()
    }
    best = (max if task.metrics[select_by] == "higher" else min)(dev, key=lambda setting: dev[setting])
    chosen = by_setting[best]
    rows = [
        {"name": part.name, "setting": part.setting, "seed": part.seed, "fold": part.fold, "scores": result["scores"]}
        for part, result in zip(parts, results, strict=True)
    ]
    summary = {
        **{key: results[0][key] for key in ("task", "upstream", "source", "corpus", "protocol", "marks", "select_by")},
        "runs": rows,
        "mean": {split: means([results[row] for row in chosen], split, [*task.metrics]) for split in ("dev", "test")},
        "pooled": pooled([folder / parts[row].name for row in chosen], config),
    }
    if len(by_setting) > 1:
        summary |= {"sweep": dev, "chosen": best}
    reference = references(config, summary["marks"])
    if reference and {part.fold for part in parts} == {*config.folds}:
        summary["reference"] = reference
    return summary


def means(results: Sequence[Mapping[str, Any]], split: str, names: Sequence[str]) -> dict[str, Any]:
    """Return mean and spread of each metric over runs that have the split."""
    there = [result["scores"][split] for result in results if split in result["scores"]]
    if not there:
        return {}
    found = {}
    for name in names:
        mean, spread = metrics.mean_and_spread([scores[name] for scores in there])
        found[name] = {"mean": mean, "spread": spread, "runs": len(there)}
    return found


def pooled(folders: Sequence[Path], config: RunConfig) -> dict[str, Any]:
    """Return the scores of all runs' test predictions taken together, with intervals over their speakers."""
    task, outcomes, speakers = load_task(config.task), [], []
    for folder in folders:
        if (folder / "predictions-test.csv").is_file():
            outcome, who = read_predictions(folder / "predictions-test.csv")
            outcomes.append(replace(outcome, scores=None))
            speakers += who
    if not outcomes:
        return {}
    vocabulary = read_json(folders[0] / "vocabulary.json")[config.task]
    joined = Outcome.join(outcomes)

    def score(outcome: Outcome) -> dict[str, float]:
        return task.score(vocabulary, outcome)

    return {
        "scores": score(joined),
        "intervals": intervals_of(score, [*task.metrics], joined, speakers),
        "num_speakers": len({*speakers} - {""}),
        "num_utterances": len({*joined.ids}),  # of several seeds each utterance counts once
    }
