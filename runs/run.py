"""One run: held, resumed or started, trained, evaluated, and left as a whole folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..core.errors import UserError
from ..core.files import plain_disk_errors
from ..core.run_folder import TOGETHER, RunFolder
from ..training.loop import Hooks, shows_progress, train
from ..training.sharding import shard
from ..training.step import Plan, Progress, TaskData
from ..upstream.adapters import WITHOUT
from .config.identity import identity_of, refuse_other
from .config.schema import RunConfig, batch_size_of, to_mapping
from .evaluation import Evaluation, evaluate_kept, evaluate_task, keep_own_best, own_result, write_evaluation
from .exact import curve_of, described, solve
from .features import with_store
from .final import with_steps
from .heads import fit_to_teachers
from .layer_norms import layer_norms
from .leakage import utterance_key
from .log import Trackers, displayed, followed, improving_notes, logged, refuse_unknown, show_memory
from .pictures import chance_levels, confusion_plot, cosines_plot, curves_plot, run_title
from .prepare import RunSetup, describe, prepare
from .results import environment, write_layer_outcomes
from .runtime import Runtime, make_accelerator, print_progress
from .state import load_weights, make_optimizer, resume, save, save_last
from .store_choice import Reuse

Evaluations = Mapping[str, Mapping[str, Evaluation]]  # task -> the weights that were kept ("best", of several tasks also "last")


def run(config: RunConfig, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Return the run's result: from its folder where it is finished, else trained from where it stands."""
    refuse_unknown(config)
    accelerator = make_accelerator(config, runtime)
    if config.split and not (runtime.named and RunFolder(folder).is_finished):
        refuse_groups(runtime)
        config = with_steps(config)
    refuse_tiny_steps(config, accelerator.num_processes)
    RunFolder(folder).refuse_plan()
    refuse_other(folder, {"config": identity_of(config)})
    if RunFolder(folder).is_finished:
        return finished(config, folder, runtime)
    with RunFolder(folder).locked() if accelerator.is_main_process else nullcontext():
        if RunFolder(folder).is_finished:  # by the process that held it
            return finished(config, folder, runtime)
        setup = prepare(config)
        refuse_uneven_steps(setup, accelerator.num_processes)
        if accelerator.is_main_process:
            refuse_other(folder, setup.identity)
            print_progress(runtime, *describe(setup, folder))
        before = features_before(folder, config)
        accelerator.wait_for_everyone()
        if before is not None:
            reuse = Reuse(runtime.share_layers, runtime.place.count, before)
            setup = with_store(setup, accelerator, partial(print_progress, runtime), reuse)
        if accelerator.is_main_process:
            refuse_other(folder, setup.identity)
            begin(folder, setup)
        with followed(folder, setup, accelerator, runtime) as trackers:
            result = finish(folder, setup, accelerator, runtime, trackers)
            if accelerator.is_main_process:
                trackers.end(folder, result)
        return result


def features_before(folder: Path, config: RunConfig) -> dict[str, str] | None:
    """Return the features, by task, of the run that is gone on with; None where it began before joint runs had a store."""
    run = RunFolder(folder)
    if not (run.last.is_file() and run.identity.is_file()):
        return {}
    features = run.read().identity().get("features")
    return {next(iter(config.tasks)): features} if isinstance(features, str) else features


def finished(config: RunConfig, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Return a finished run's result, once corpora and weights are found to be those that it was trained on."""
    result = RunFolder(folder).read().result("tasks" if config.is_joint else "scores")
    if not runtime.named:
        refuse_other(folder, prepare(config).identity)
    refuse_missing_groups(result, folder, runtime.by)
    again = "" if config.is_joint else " (--again makes a new run)"
    print_progress(runtime, f"{folder} is finished: nothing is trained{again}")
    return result


def refuse_missing_groups(result: Mapping[str, Any], folder: Path, by: Sequence[str]) -> None:
    """Refuse scores of groups that a finished run did not compute."""
    scored = [task["best"] for task in result["tasks"].values()] if "tasks" in result else [result]
    groups: list[Mapping[str, Any]] = [next(iter(found.get("by", {}).values()), {}) for found in scored]
    lacking = [name for name in by if any(name not in there for there in groups)]
    if lacking:
        evaluate = f"-m evaluate -e {folder}" + " -d TASK" * ("tasks" in result)
        raise UserError(f"Expected --by {lacking[0]} before the run was finished. Now: {evaluate} --by {lacking[0]}")


def refuse_groups(runtime: Runtime) -> None:
    """Refuse the scores of groups where there will be no scores."""
    if runtime.by:
        raise UserError(f"Expected no --by beside split=all, which has no score, found --by {runtime.by[0]}. Leave it out.")


def refuse_tiny_steps(config: RunConfig, processes: int) -> None:
    """Refuse a step that leaves a process without an utterance: it would wait for the others for ever."""
    for name, task in config.tasks.items():
        size = batch_size_of(config, task)
        if size < processes:
            of_task, option = (f" of '{name}' in", "") if config.is_joint else ("", "training.")
            raise UserError(
                f"Expected at least one utterance{of_task} a step for each of {processes} processes, found {option}batch_size="
                f"{size}. Raise it (it counts over all processes), or start fewer."
            )


def refuse_uneven_steps(setup: RunSetup, processes: int) -> None:
    """Refuse a step that cannot be shared evenly, where its loss gathers from all processes."""
    for name, task in setup.tasks.items():
        size = task.batch_size
        if task.expert.loss_needs == "whole_batch" and size % processes:
            joint = setup.config.is_joint
            what, option = (f"a batch_size of '{name}'", f"tasks.{name}") if joint else ("training.batch_size", "training")
            raise UserError(
                f"Expected {what} that {processes} processes share evenly (the loss of {name} compares the utterances of a "
                f"step), found {size}. Set -o {option}.batch_size={size - size % processes or processes}"
            )


def begin(folder: Path, setup: RunSetup) -> None:
    """Write what makes a folder this run's, before the first step."""
    config = setup.config
    trained_on = {name: trained_on_of(setup, name) for name in setup.tasks}
    whole = [role for role, section in setup.model.configs.items() if section.trainable and section.adapter == WITHOUT]
    trainable = {role: setup.model.upstream(role).architecture() for role in whole}
    RunFolder(folder).write(
        config=to_mapping(config),
        trained_on=trained_on if config.is_joint else trained_on[config.only.task],
        vocabulary=vocabularies(setup.tasks),
        architectures={str(role): described for role, described in trainable.items() if described is not None},
        identity={**setup.identity, "marks": list(setup.marks)},
    )


def trained_on_of(setup: RunSetup, name: str) -> dict[str, Any]:
    """Return which utterances a task is trained on."""
    corpus = setup.corpora[name].name
    trained_on = [utterance_key(corpus, example.utterance) for example in setup.tasks[name].splits["train"]]
    return {"corpus": corpus, "heard": trained_on, **({"all": True} if setup.config.split else {})}


def vocabularies(tasks: Mapping[str, TaskData]) -> dict[str, Any]:
    """Return the vocabulary of each task."""
    return {name: task.expert.vocabulary for name, task in tasks.items()}


def finish(folder: Path, setup: RunSetup, accelerator: Accelerator, runtime: Runtime, trackers: Trackers) -> dict[str, Any]:
    """Train what is left, evaluate the weights that are kept, write the results, return them."""
    config, model = setup.config, setup.model
    if config.solver == "exact":
        return finish_exact(folder, setup, accelerator, runtime)
    show_memory(setup, accelerator, runtime)
    if config.training.shard and accelerator.num_processes == 1:
        print_progress(
            runtime, "note      one process holds the whole model: --shard shares it out among those that torchrun starts"
        )
    elif config.training.shard:  # before the device gets more than its part
        shard(model, accelerator.device, accelerator.num_processes, config.training.precision)
    model.to(accelerator.device)  # before the optimizer takes up its state, which follows its weights
    setup.balancer.to(accelerator.device)
    optimizer = make_optimizer(model, config, setup.balancer)
    progress = resume(folder, setup, optimizer)
    if progress.is_new:
        fit_to_teachers(model, setup.tasks, config.seed, partial(print_progress, runtime))
    else:
        print_progress(runtime, f"going on  at step {progress.step}")
    ready = model if model.sharded else accelerator.prepare(model)
    if accelerator.scaler is not None:
        optimizer = accelerator.prepare(optimizer)
    evaluate_now = partial(evaluate_task, ready, config.training, accelerator, runtime.by)
    with (
        logged(folder, progress, accelerator, model, trackers) as log,
        displayed(log, setup, progress, accelerator, runtime) as display,
    ):
        hooks = Hooks(
            log=display.log,
            stepped=display.stepped,
            save_last=lambda now: save_last(folder, setup, optimizer, now, accelerator),
            save_best=lambda now: save(RunFolder(folder).best, setup, now, accelerator),
        )
        if config.is_joint:
            hooks = replace(hooks, task_best=partial(keep_own_best, folder, setup.marks, evaluate_now, accelerator))
        progress = train(ready, [*setup.tasks.values()], optimizer, accelerator, plan_of(setup), progress, hooks)
    accelerator.wait_for_everyone()
    if config.is_joint:
        found: Evaluations = evaluate_kept(folder, setup, progress, evaluate_now, accelerator)
    else:
        load_weights(model, RunFolder(folder).best)
        found = {name: {"best": evaluate_now(task)} for name, task in setup.tasks.items()}
    result = result_of(folder, setup, found, progress, accelerator.device)
    layers = layer_weights(setup) if model.sharded or accelerator.is_main_process else {}  # all processes must take part
    if accelerator.is_main_process:
        write_all(folder, setup, found, result, layers)
        notes = [f"note      {note}" for note in result["notes"] if note not in setup.notes]
        print_progress(runtime, *notes, f"written to {folder}")
    accelerator.wait_for_everyone()
    return result


def finish_exact(folder: Path, setup: RunSetup, accelerator: Accelerator, runtime: Runtime) -> dict[str, Any]:
    """Compute the head, evaluate it, write the results, return them; every process comes to the same head."""
    config, model = setup.config, setup.model
    [task] = setup.tasks.values()
    began = time.monotonic()
    model.to(accelerator.device)
    with solving(accelerator) as show:
        solved = solve(model, task, config.exact, config.training, accelerator, show)
    progress = Progress(step=1, best_step=1, seconds=time.monotonic() - began)
    save(RunFolder(folder).best, setup, progress, accelerator)
    found: Evaluations = {task.name: {"best": evaluate_task(model, config.training, accelerator, runtime.by, task)}}
    result = {**result_of(folder, setup, found, progress, accelerator.device), "exact": described(solved, task)}
    if accelerator.is_main_process:
        there = RunFolder(folder)
        there.write(layers=curve_of(solved, found[task.name]["best"].task))
        for role, outcomes in solved.alone.items():
            write_layer_outcomes(there, role, outcomes, setup.marks)
        if solved.all_layers:
            write_layer_outcomes(there, TOGETHER, [solved.all_layers], setup.marks)
        write_all(folder, setup, found, result, layer_weights(setup))
        print_progress(runtime, f"written to {folder}")
    accelerator.wait_for_everyone()
    return result


@contextmanager
def solving(accelerator: Accelerator) -> Iterator[Callable[[str], None]]:
    """Give a function that shows which layer is being solved, on a terminal."""
    with tqdm(desc="solving", bar_format="{desc} {postfix}", leave=False, disable=not shows_progress(accelerator)) as bar:
        yield lambda what: bar.set_postfix_str(what)


def plan_of(setup: RunSetup) -> Plan:
    """Return the settings of the loop."""
    config = setup.config
    return Plan(
        config.training,
        config.optimizer,
        config.seed,
        setup.balancer,
        config.sampling,
        config.balance.cosines_every,
        "last" if config.split else config.select,
        config.baselines,
    )


def result_of(folder: Path, setup: RunSetup, found: Evaluations, progress: Progress, device: torch.device) -> dict[str, Any]:
    """Return what result.json says; of several tasks, for each the scores of the last step, the best, and its own best."""
    config = setup.config
    tasks = {name: {**facts_of(setup, name)} for name in setup.tasks}
    result = {
        **upstreams_of(setup),
        "seed": config.seed,
        "marks": list(setup.marks),
        "steps": progress.step,
        "best_step": progress.best_step,
    }
    if config.is_joint:
        for name, facts in tasks.items():
            facts |= {kept: evaluation.result for kept, evaluation in found[name].items()}
            if name in progress.bests:  # a final model has no step of its own for each task
                facts |= {"own_step": progress.bests[name][0], "own": own_result(folder, name)}
        balance = {"method": config.balance.method, "weights": setup.balancer.weights()}
        result |= {"select": config.select, "balance": balance, "tasks": tasks}
    else:
        [[name, facts]] = tasks.items()
        result = {**facts, **result, **found[name]["best"].result}
    result |= {"notes": [*setup.notes, *improving_notes(config, progress)], "environment": environment(device, progress.seconds)}
    if setup.earlier is not None:
        earlier = setup.earlier
        counts = {name: len(task.splits["train"]) for name, task in setup.tasks.items()}
        chosen = {"run": earlier.run, "best_steps": list(earlier.best_steps)}
        trained_on = counts if config.is_joint else counts[config.only.task]
        empty = {} if config.is_joint else {"select_by": ""}
        return {**result, **empty, "split": "all", "trained_on_all": trained_on, "steps_from": chosen}
    # a published value is a mean over the recipe's folds, where it names folds: then it stands beside the plan's
    reference = [] if config.folds or config.is_joint else references(config, setup.marks)
    return {**result, "reference": reference} if reference else result


def facts_of(setup: RunSetup, name: str) -> dict[str, Any]:
    """Return what result.json says of a task, its corpus and its metrics."""
    corpus, task, section = setup.corpora[name], setup.tasks[name], setup.config.tasks[name]
    return {
        "task": section.task,
        "corpus": corpus.name,
        "protocol": corpus.protocol,
        "fold": corpus.fold,
        "transcripts": corpus.tables.get("transcripts", {"source": corpus.name, "wer": None}),
        "select_by": task.select_by,
        "metrics": dict(task.question.metrics),
        **({"report_by": section.report_by} if section.report_by else {}),
        **({"release": corpus.release} if corpus.release else {}),
    }


def upstreams_of(setup: RunSetup) -> dict[str, Any]:
    """Return the part of result.json about the upstreams: the names of all of them in one, for tables and captions."""
    upstreams, model = setup.upstreams, setup.model
    adapters = {role: section.adapter for role, section in model.configs.items() if section.adapter != WITHOUT}
    # all that there is of a role: a model, and the adapters of tasks over it
    counts = {role: weights_of(torch.nn.ModuleList([upstream, *model.forms(role)])) for role, upstream in upstreams.items()}
    return {
        "upstream": " + ".join(upstream.name for upstream in upstreams.values()),
        "source": " + ".join(upstream.source for upstream in upstreams.values()),
        "trainable": any(section.trainable for section in setup.model.configs.values()),
        **({"adapters": adapters} if adapters else {}),
        "weights": {**counts, "head": weights_of(model.experts) + weights_of(model.sums)},
    }


def weights_of(part: torch.nn.Module) -> int:
    """Return how many weights a part of a model has."""
    return sum(weight.numel() for weight in part.parameters())


def references(config: RunConfig, marks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the recipe's published values for this very upstream; none beside a demo or untrained run."""
    if marks:
        return []
    corpus = config.only.corpus
    run = config.upstream.name, corpus.name, corpus.protocol
    if config.text_upstream.name:  # the published values are of audio alone
        return []
    return [asdict(row) for row in config.reference if (row.upstream, row.corpus, row.protocol) == run]


def write_all(folder: Path, setup: RunSetup, found: Evaluations, result: dict[str, Any], layers: Mapping[str, Any]) -> None:
    """Write predictions, pictures, layer weights, and last the result that makes the run finished."""
    marks, there, joint = setup.marks, RunFolder(folder), setup.config.is_joint
    kept = {name: of_task["best"] for name, of_task in found.items()}
    there.write(vocabulary=vocabularies({name: evaluation.task for name, evaluation in kept.items()}))  # with what dev decided
    there.write(layer_weights=layers)
    with plain_disk_errors(folder):
        for name, evaluation in kept.items():
            prefix, task, facts = f"{name}-" * joint, evaluation.task, facts_of(setup, name)
            if not joint:  # of several tasks they lie below the folder already
                write_evaluation(there, evaluation, marks)
            for split, counts in evaluation.result.get("confusion", {}).items():
                metric = task.question.primary_metric
                about = facts["task"], result["upstream"], facts["corpus"], metric, evaluation.result["scores"][split][metric]
                title = run_title(f"Confusion, {split}", *about)
                confusion_plot(
                    counts, evaluation.result["classes"], there.confusion(split, name * joint), title=title, marks=marks
                )
            draw = task.question.draw or (lambda *_: None)
            for split, outcome in evaluation.outcomes.items():
                draw(task.expert.vocabulary, outcome, there.plots / f"{prefix}{split}", marks)
        if setup.config.solver != "exact":
            corpora = ", ".join(dict.fromkeys(corpus.name for corpus in setup.corpora.values()))
            curves_plot(
                there.metrics,
                there.curves,
                title=run_title("Learning curves", " + ".join(kept), result["upstream"], corpora),
                chosen=result.get("best_step"),
                chance=chance_levels({name: {**facts_of(setup, name), **kept[name].result} for name in kept}),
                marks=marks,
            )
        if joint:
            cosines_plot(there.metrics, there.plots / "cosines.png", marks=marks)
    there.write(result=result)


def layer_weights(setup: RunSetup) -> dict[str, Any]:
    """Return each weighted sum's weights, beside the mean feature norm of its layers over some dev utterances."""
    layers: dict[str, Any] = {}
    for task in setup.tasks.values():
        layers |= layer_norms(setup.model, task, setup.config.training)
    return {"upstream": upstreams_of(setup)["upstream"], "marks": list(setup.marks), "layers": layers}
