"""Plans: folds, seeds, sweeps and stages as runs in order; what is done is skipped, and all of it comes into one table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError, nearest
from ..core.options import merge, parse_override, plain
from ..core.process import is_main
from ..core.run_folder import RunFolder
from ..corpus.load import get_reader
from ..downstream import metrics
from ..downstream.base import Outcome
from ..downstream.load import load_task
from ..runs.config.resolve import resolve
from ..runs.config.schema import RunConfig, TaskConfig, roles_of, to_mapping
from ..runs.evaluation import task_place
from ..runs.prepare import read_corpus
from ..runs.results import finite, group_word, intervals_of, read_predictions, read_tables
from ..runs.run import references, run
from ..runs.runtime import Runtime, print_progress
from ..training.loop import relative_gain
from .execute import STAGE, Part, Result, named_runs, run_parts, with_differences
from .pooling import RunOfPlan, TaskOfPlan, write_pooled


def expand(
    config: RunConfig,
    folds: Sequence[int | None],
    seeds: Sequence[int],
    sweeps: Sequence[str],
    layers: Sequence[int | None] | None = None,
) -> list[Part]:
    """Return the runs of a plan, in order; a fold of None leaves each task's own.

    Several layers have a head each, None being the weighted sum.
    """
    settings = [*itertools.product(*(sweep_values(sweep) for sweep in sweeps))]
    layers = [config.upstream.layer] if layers is None else layers
    if config.stages and len(layers) > 1:
        raise UserError("Expected a probe of layers or stages, found both. Probe the run of one stage: -u RUN -l all.")
    refuse_no_choice(config, len(settings) * len(layers))
    if config.solver == "exact" and len(seeds) > 1:
        raise UserError(
            f"Expected one seed for solver=exact, found {len(seeds)}: nothing is drawn, every seed gives the same numbers. "
            "Leave out --seeds, or add -o solver=adam."
        )
    parts: list[Part] = []
    for layer, setting, seed, fold in itertools.product(layers, settings, seeds, folds):
        mapping = to_mapping(config)
        overrides = [] if config.stages else [f"upstream.layer={'null' if layer is None else layer}"]
        for override in (*overrides, *setting):
            mapping = merge(mapping, parse_override(override))
        heads = (["sum"] if layer is None else [f"layer{layer}"]) * (len(layers) > 1)
        label = ",".join([*heads, *setting])
        levels = [label] * bool(label) + [f"seed{seed}"] * (len(seeds) > 1) + [f"fold{fold}"] * (len(folds) > 1)
        drawn = {"seed": seed, "stages": {}, **({} if fold is None else fold_in(mapping, fold))}
        place = own_fold(config) if fold is None else fold
        for part in staged(mapping, drawn, Part(label, seed, place, config, "/".join(levels))):
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


def refuse_no_choice(config: RunConfig, settings: int) -> None:
    """Refuse a sweep of several tasks whose scores are no one number: dev could not choose a setting."""
    if config.is_joint and settings > 1 and config.select != "gain":
        raise UserError(
            "Expected select=gain and the tasks' baselines for a sweep of several tasks, which dev chooses by their mean gain, "
            f"found select={config.select}. Add them to the recipe, or sweep one task: -d {next(iter(config.tasks))}"
        )


def staged(mapping: Mapping[str, Any], drawn: Mapping[str, Any], whole: Part) -> list[Part]:
    """Return the runs of one setting, and of the seed and fold `drawn`: one for each stage, or the one there is."""
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


def fold_in(mapping: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """Return what says the fold in a resolved recipe; of several tasks, that of all whose corpus has several."""
    if "tasks" not in mapping:
        return {"corpus": {"fold": fold}}
    counts = {name: count_folds(section["corpus"]) for name, section in mapping["tasks"].items()}
    return {"tasks": {name: {"corpus": {"fold": fold}} for name, count in counts.items() if count > 1}}


def count_folds(corpus: Mapping[str, Any]) -> int:
    """Return how many folds the protocol of a corpus' section has."""
    return get_reader(corpus["name"]).protocols[corpus["protocol"]]


def sweep_values(sweep: str) -> list[str]:
    """Return `optimizer.lr=1e-4,1e-3` as one override for each value."""
    key, equals, values = sweep.partition("=")
    if not equals or not values:
        raise UserError(f"Expected `--sweep key=a,b`, found '{sweep}'. For instance: --sweep optimizer.lr=1e-4,1e-3")
    # commas inside brackets belong to a value: labels.keep=[neu,sad],[neu,ang]
    return [f"{key}={value.strip()}" for value in re.split(r",(?![^\[{]*[\]}])", values)]


def all_folds(config: RunConfig) -> list[int]:
    """Return every fold of the config's protocol; of several tasks, those that all have whose corpus has several."""
    counts = {name: count_folds(plain(task.corpus)) for name, task in config.tasks.items()}
    several = {name: count for name, count in counts.items() if count > 1}
    if len({*several.values()}) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in several.items())
        raise UserError(f"Expected tasks of as many folds for --folds all, found {listed}. Name the folds: --folds 1,2")
    return [*range(1, max(counts.values()) + 1)]


def own_fold(config: RunConfig) -> int:
    """Return the fold that a config names; of several tasks, that of the first whose corpus has several."""
    folds = [task.corpus.fold for task in config.tasks.values() if count_folds(plain(task.corpus)) > 1]
    return folds[0] if folds else 1


def run_plan(parts: Sequence[Part], folder: Path, runtime: Runtime, jobs: int = 1) -> Result:
    """Run every part that is not done, and return the result of the one run, or the summary of all."""
    if is_single(parts):
        return run(parts[0].config, folder, runtime)
    runtime = checked_runtime(parts, folder, runtime)
    done = sum(RunFolder(folder / part.name).result.is_file() for part in parts)
    print_progress(runtime, f"plan      {len(parts)} runs in {folder}, {done} done")
    results, _ = run_parts(parts, folder, runtime, jobs)
    reported = [part for part in parts if part.stage == parts[-1].stage]
    summary = summarise(reported, [results[part.name] for part in reported], folder)
    if is_main():
        RunFolder(folder).write(result=summary)
        write_together(reported, results, summary, folder, runtime)
    return summary if len(reported) > 1 else results[reported[0].name]


def is_single(parts: Sequence[Part]) -> bool:
    """Return whether a plan is one run, in the plan's own folder."""
    return [part.name for part in parts] == ["."]


def checked_runtime(parts: Sequence[Part], folder: Path, runtime: Runtime) -> Runtime:
    """Return where the runs of a plan compute, once its folder and folds are found to be right."""
    if is_single(parts):
        RunFolder(folder).refuse_plan()
        return runtime
    if RunFolder(folder).identity.is_file():
        raise UserError(
            f"Expected a folder for {len(parts)} runs, found a single one in '{folder}'. Choose another with -n or -p."
        )
    refuse_missing_fold(parts)
    layers = {part.config.upstream.layer for part in parts}
    return replace(runtime, share_layers=runtime.share_layers or len(layers) > 1)


def write_together(parts: Sequence[Part], results: Mapping[str, Result], summary: Result, folder: Path, runtime: Runtime) -> None:
    """Write what the runs of a plan give together, of a sweep those of the setting that dev chose."""
    chosen = [part for part in parts if part.setting == summary.get("chosen", part.setting)]
    if len(chosen) < 2:
        return
    config, names = chosen[0].config, short_names([part.name for part in chosen])
    runs = [
        RunOfPlan(name, folder / part.name, part.fold, part.seed, results[part.name])
        for name, part in zip(names, chosen, strict=True)
    ]
    tasks = [
        TaskOfPlan(name, task.select_by, summary["tasks"][name] if config.is_joint else summary, config.is_joint)
        for name, task in config.tasks.items()
    ]
    write_pooled(folder, runs, tasks, summary["marks"], runtime)


def short_names(names: Sequence[str]) -> list[str]:
    """Return names of runs without the folders that they share: `lr=1e-3/seed1/fold2` as `seed1/fold2`.

    >>> short_names(["a/seed1/frz", "a/seed2/frz"])
    ['seed1', 'seed2']
    """
    levels = [*zip(*(name.split("/") for name in names), strict=True)]
    kept = [level for level in levels if len({*level}) > 1]
    return ["/".join(words) for words in zip(*kept, strict=True)]


def refuse_missing_fold(parts: Sequence[Part]) -> None:
    """Refuse folds that a corpus has not (a table with a split of its own has one) before the first one is trained."""
    folds = {part.fold: part.config.tasks for part in parts}
    if len(folds) == 1:
        return
    first, last = folds[min(folds)], folds[max(folds)]
    for name in (name for name in last if last[name].corpus != first[name].corpus):
        try:
            read_corpus(first[name].corpus)
        except UserError:  # of a corpus that cannot be read at all the run itself says so
            continue
        read_corpus(last[name].corpus)


def summarise(parts: Sequence[Part], results: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    """Return all runs of a plan side by side; dev alone decides between the settings of a sweep."""
    config = parts[0].config
    scores = [scores_of(config, result) for result in results]
    by_setting: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        by_setting.setdefault(part.setting, []).append(row)
    signs = {name: 1.0 if directions(task)[task.select_by] == "higher" else -1.0 for name, task in config.tasks.items()}
    dev = {setting: sum(dev_of(config, scores[row], signs) for row in rows) / len(rows) for setting, rows in by_setting.items()}
    falls = not config.is_joint and signs[config.only.task] < 0
    best = (min if falls else max)(dev, key=lambda setting: dev[setting])
    chosen = by_setting[best]
    rows = [
        {"name": part.name, "setting": part.setting, "seed": part.seed, "fold": part.fold, "scores": result.get("scores", found)}
        for part, result, found in zip(parts, results, scores, strict=True)
    ]
    places = [folder / parts[row].name for row in chosen]
    tasks = {
        name: summarise_task(config, name, [scores[row][name] for row in chosen], places, results[0]) for name in config.tasks
    }
    summary = {
        "source": results[0]["source"],
        "marks": results[0]["marks"],
        "upstream": " + ".join(section.name for section in roles_of(config).values()),  # of a stage by its name
        "runs": rows,
        **({"tasks": tasks} if config.is_joint else tasks[config.only.task]),
    }
    if len(by_setting) > 1:
        summary |= {"sweep": dev, "chosen": best}
    reference = [] if config.is_joint else references(config, summary["marks"])
    if reference and {part.fold for part in parts} == {*config.folds}:
        summary["reference"] = reference
    return summary


def scores_of(config: RunConfig, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of each task with the best weights, by split."""
    if config.is_joint:
        return {name: result["tasks"][name]["best"]["scores"] for name in config.tasks}
    return {config.only.task: result["scores"]}


def directions(task: TaskConfig) -> Mapping[str, str]:
    """Return a task's metrics, and whether more of them is better."""
    return load_task(task.task).question(task.expert).metrics


def dev_of(config: RunConfig, scores: Mapping[str, Any], signs: Mapping[str, float]) -> float:
    """Return what dev says of a run: the metric of one task, or the mean gain of several over their baselines."""
    found = {name: scores[name]["dev"][task.select_by] for name, task in config.tasks.items()}
    if not config.is_joint:
        return found[config.only.task]
    if config.select != "gain":  # no choice between settings
        return 0.0
    return sum(relative_gain(signs[name], found[name], config.baselines[name]) for name in found) / len(found)


def summarise_task(
    config: RunConfig, name: str, scores: Sequence[Mapping[str, Any]], places: Sequence[Path], result: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one task's mean and spread over runs, and the scores of all their predictions taken together."""
    task = config.tasks[name]
    below = [task_place(place, "best", name) for place in places] if config.is_joint else places
    splits = dict.fromkeys(split for found in scores for split in found)
    facts = result["tasks"][name] if config.is_joint else result
    vocabulary = RunFolder(places[0]).read().vocabulary(name)[name]
    with RunFolder(places[0]).usable_vocabulary():
        load_task(task.task).question(task.expert).answer(vocabulary)
    return {
        **{key: facts[key] for key in ("task", "corpus", "protocol", "select_by")},
        "metrics": dict(directions(task)),
        "mean": {split: means(scores, split) for split in splits},
        "pooled": {split: pooled(below, split, task, vocabulary) for split in splits if split != "dev"},
    }


def means(scores: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Return mean and spread of each metric over runs that have the split."""
    there = [found[split] for found in scores if split in found]
    summary = {}
    for name in (name for name in there[0] if name != "loss"):
        values = [row[name] for row in there if row.get(name) is not None]  # None: not defined in that run
        if values:
            mean, spread = metrics.mean_and_spread(values)
            summary[name] = {"mean": mean, "spread": spread, "runs": len(values)}
    return summary


def pooled(folders: Sequence[Path], split: str, task: TaskConfig, vocabulary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of all runs' predictions for a split taken together, with intervals over their speakers."""
    places = [place for place in map(RunFolder, folders) if place.predictions(split).is_file()]
    if not places:
        return {}
    question, outcomes, speakers = load_task(task.task).question(task.expert), [], []
    for place in places:
        outcome, who = read_predictions(place.predictions(split), question.answer(vocabulary))
        outcomes.append(outcome)
        speakers += who
    joined, tables, answer = Outcome.join(outcomes), read_tables(places, split), question.answer(vocabulary)
    return {
        "scores": finite(question.score(vocabulary, joined, tables)),
        "intervals": intervals_of(question, vocabulary, joined, speakers, tables),
        "num_speakers": len({*speakers} - {""}),
        "resampled": group_word(speakers),
        "num_utterances": len({*joined.ids}),  # of several seeds each utterance counts once
        **({"classes": list(answer.classes)} if answer.classes else {}),
        **answer.counts(joined.references, joined.predictions),
    }
