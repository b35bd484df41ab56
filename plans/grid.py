"""Plans: folds, seeds, sweeps and stages as runs in order; what is done is skipped, and all of it comes into one table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError, nearest
from ..core.options import merge, parse_override
from ..core.process import is_main
from ..core.run_folder import RunFolder
from ..corpus.load import get_reader
from ..downstream import metrics
from ..downstream.base import Outcome
from ..downstream.load import load_task
from ..runs.config.resolve import resolve
from ..runs.config.schema import RunConfig, roles_of, to_mapping
from ..runs.prepare import read_corpus
from ..runs.results import finite, intervals_of, read_predictions
from ..runs.run import references, run
from ..runs.runtime import Runtime, say
from .execute import STAGE, Part, Result, named_runs, run_parts, with_differences


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
    if config.stages and len(layers) > 1:
        raise UserError("Expected a probe of layers or stages, found both. Probe the run of one stage: -u RUN -l all.")
    parts: list[Part] = []
    for layer, setting, seed, fold in itertools.product(layers, settings, seeds, folds):
        mapping = to_mapping(config)
        overrides = [] if config.stages else [f"upstream.layer={'null' if layer is None else layer}"]
        for override in (*overrides, *setting):
            mapping = merge(mapping, parse_override(override))
        heard = (["sum"] if layer is None else [f"layer{layer}"]) * (len(layers) > 1)
        label = ",".join([*heard, *setting])
        levels = [label] * bool(label) + [f"seed{seed}"] * (len(seeds) > 1) + [f"fold{fold}"] * (len(folds) > 1)
        for part in staged(mapping, Part(label, seed, fold, config, "/".join(levels))):
            twin = next((other.name for other in parts if other.config == part.config), None)
            if twin is not None:  # counted twice it would make the spread smaller than it is
                raise UserError(f"Expected the runs of a plan to differ, found '{twin}' and '{part.name}' alike. Leave one out.")
            parts.append(part)
    if config.split and len(parts) > 1:
        raise UserError(
            f"Expected one run with split=all, since nothing is held out that could choose between several, found {len(parts)}. "
            "Leave out --folds, --seeds, --sweep, stages and -l of several."
        )
    return parts


def staged(mapping: Mapping[str, Any], whole: Part) -> list[Part]:
    """Return the runs of one setting, seed and fold: one for each stage, or the one there is."""
    drawn = {"seed": whole.seed, "corpus": {"fold": whole.fold}, "stages": {}}
    if not mapping["stages"]:
        return [replace(whole, config=resolve([mapping, drawn]), name=whole.name or ".")]
    parts: list[Part] = []
    before: dict[str, str] = {}
    errors: list[str] = []
    for stage, differences in mapping["stages"].items():
        try:
            config = resolve([with_differences({**mapping, "stages": {}}, differences), drawn])
        except UserError as problem:
            errors.append(f"Stage '{stage}': {problem}")
            continue
        name = f"{whole.name}/{stage}".lstrip("/")
        wanted = [reference for reference in named_runs(config) if reference.startswith(STAGE)]
        for reference in (reference for reference in wanted if reference not in before):
            known = ", ".join(before) or "none"
            errors.append(
                f"Expected an earlier stage in stage '{stage}', found '{reference}'.{nearest(reference, before)} "
                f"Before it: {known}."
            )
        needs = {reference: before[reference] for reference in wanted if reference in before}
        parts.append(replace(whole, config=config, name=name, stage=stage, needs=needs))
        before[STAGE + stage] = name
    if errors:
        raise UserError("\n".join(errors))
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


def run_plan(parts: Sequence[Part], folder: Path, runtime: Runtime, jobs: int = 1) -> Result:
    """Run every part that is not done, and return the result of the one run, or the summary of all."""
    if [part.name for part in parts] == ["."]:
        return run(parts[0].own, folder, runtime)
    if RunFolder(folder).identity.is_file():
        raise UserError(
            f"Expected a folder for {len(parts)} runs, found a single one in '{folder}'. Choose another with -n or -p."
        )
    refuse_missing_fold(parts)
    heard = {part.own.upstream.layer for part in parts}
    runtime = replace(runtime, share_layers=runtime.share_layers or len(heard) > 1)
    done = sum(RunFolder(folder / part.name).result.is_file() for part in parts)
    say(runtime, f"plan      {len(parts)} runs in {folder}, {done} done")
    results, _ = run_parts(parts, folder, runtime, jobs)
    reported = [part for part in parts if part.stage == parts[-1].stage]
    summary = summarise(reported, [results[part.name] for part in reported], folder)
    if is_main():
        RunFolder(folder).write(result=summary)
    return summary if len(reported) > 1 else results[reported[0].name]


def refuse_missing_fold(parts: Sequence[Part]) -> None:
    """Refuse folds that the corpus has not (a table with a split of its own has one) before the first one is trained."""
    folds = {part.fold: part.own.corpus for part in parts}
    if len(folds) == 1:
        return
    try:
        read_corpus(folds[min(folds)])
    except UserError:  # of a corpus that cannot be read at all the run itself says so
        return
    read_corpus(folds[max(folds)])


def summarise(parts: Sequence[Part], results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Return all runs of a plan side by side; dev alone decides between the settings of a sweep."""
    config, select_by = parts[0].own, parts[0].own.select_by
    question = load_task(config.task).question(config.expert)
    by_setting: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        by_setting.setdefault(part.setting, []).append(row)
    dev = {
        setting: sum(results[row]["scores"]["dev"][select_by] for row in rows) / len(rows) for setting, rows in by_setting.items()
    }
    best = (max if question.metrics[select_by] == "higher" else min)(dev, key=lambda setting: dev[setting])
    chosen = by_setting[best]
    splits = dict.fromkeys(split for row in chosen for split in results[row]["scores"])
    rows = [
        {"name": part.name, "setting": part.setting, "seed": part.seed, "fold": part.fold, "scores": result["scores"]}
        for part, result in zip(parts, results, strict=True)
    ]
    summary = {
        **{key: results[0][key] for key in ("task", "source", "corpus", "protocol", "marks", "select_by")},
        "upstream": " + ".join(section.name for section in roles_of(config).values()),  # of a stage by its name
        "metrics": dict(question.metrics),
        "runs": rows,
        "mean": {split: means([results[row] for row in chosen], split) for split in splits},
        "pooled": {
            split: pooled([folder / parts[row].name for row in chosen], split, config) for split in splits if split != "dev"
        },
    }
    if len(by_setting) > 1:
        summary |= {"sweep": dev, "chosen": best}
    reference = references(config, summary["marks"])
    if reference and {part.fold for part in parts} == {*config.folds}:
        summary["reference"] = reference
    return summary


def means(results: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Return mean and spread of each metric over runs that have the split."""
    there = [result["scores"][split] for result in results if split in result["scores"]]
    found = {}
    for name in (name for name in there[0] if name != "loss"):
        values = [scores[name] for scores in there if scores.get(name) is not None]  # None: not defined in that run
        if values:
            mean, spread = metrics.mean_and_spread(values)
            found[name] = {"mean": mean, "spread": spread, "runs": len(values)}
    return found


def pooled(folders: Sequence[Path], split: str, config: RunConfig) -> dict[str, Any]:
    """Return the scores of all runs' predictions for a split taken together, with intervals over their speakers."""
    question, outcomes, speakers = load_task(config.task).question(config.expert), [], []
    places = [RunFolder(folder) for folder in folders]
    for path in (place.predictions(split) for place in places):
        if path.is_file():
            outcome, who = read_predictions(path)
            outcomes.append(outcome)
            speakers += who
    if not outcomes:
        return {}
    vocabulary = places[0].read().vocabulary()[config.task]
    joined = Outcome.join(outcomes)

    def score(outcome: Outcome) -> dict[str, float]:
        """Return every metric of all runs' answers."""
        return question.score(vocabulary, outcome)

    return {
        "scores": finite(score(joined)),
        "intervals": intervals_of(score, [*question.metrics], joined, speakers),
        "num_speakers": len({*speakers} - {""}),
        "num_utterances": len({*joined.ids}),  # of several seeds each utterance counts once
    }
