"""One run: held, resumed or started, trained, evaluated, and left as a whole folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..core.errors import UserError
from ..core.files import plain_disk_errors
from ..core.run_folder import RunFolder
from ..downstream.base import Outcome
from ..training.balance import Balancer
from ..training.config import TrainingConfig
from ..training.loop import Hooks, evaluate, train
from ..training.step import Plan, Progress, TaskData
from .config.identity import identity_of, refuse_other
from .config.schema import RunConfig, to_mapping
from .features import with_store
from .final import with_steps
from .layer_norms import layer_norms
from .leakage import heard_as
from .log import logged, told
from .pictures import confusion_plot, curves_plot
from .prepare import Prepared, describe, prepare
from .results import environment, split_results, write_outcome, write_predictions
from .runtime import Runtime, make_accelerator, say
from .state import load_best, make_optimizer, resume, save, save_last


def run(config: RunConfig, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Return the run's result: from its folder where it is finished, else trained from where it stands."""
    accelerator = make_accelerator(config, runtime)
    if config.split and not (runtime.named and RunFolder(folder).is_finished):
        refuse_groups(runtime)
        config = with_steps(config)
    refuse_tiny_steps(config, accelerator.num_processes)
    RunFolder(folder).refuse_plan()
    refuse_other(folder, {"config": identity_of(config)})
    if RunFolder(folder).is_finished:
        return finished(config, folder, runtime)
    with RunFolder(folder).held() if accelerator.is_main_process else nullcontext():
        if RunFolder(folder).is_finished:  # by the process that held it
            return finished(config, folder, runtime)
        prepared = prepare(config)
        refuse_uneven_steps(prepared, accelerator.num_processes)
        if accelerator.is_main_process:
            refuse_other(folder, prepared.identity)
            say(runtime, *describe(prepared, folder))
        accelerator.wait_for_everyone()
        prepared = with_store(prepared, accelerator, partial(say, runtime), share_layers=runtime.share_layers)
        if accelerator.is_main_process:
            refuse_other(folder, prepared.identity)
            begin(folder, prepared)
        return finish(folder, prepared, accelerator, runtime)


def finished(config: RunConfig, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Return a finished run's result, once corpus and weights are found to be those that it was trained on."""
    result = RunFolder(folder).read().result("scores")
    if not runtime.named:
        refuse_other(folder, prepare(config).identity)
    lacking = [name for name in runtime.by if name not in next(iter(result.get("by", {}).values()), {})]
    if lacking:
        raise UserError(f"Expected --by {lacking[0]} before the run was finished. Now: -m evaluate -e {folder} --by {lacking[0]}")
    say(runtime, f"{folder} is finished: nothing is trained (--again makes a new run)")
    return result


def refuse_groups(runtime: Runtime) -> None:
    """Refuse the scores of groups where there will be no scores."""
    if runtime.by:
        raise UserError(f"Expected no --by beside split=all, which has no score, found --by {runtime.by[0]}. Leave it out.")


def refuse_tiny_steps(config: RunConfig, processes: int) -> None:
    """Refuse a step that leaves a process without an utterance: it would wait for the others for ever."""
    if config.training.batch_size < processes:
        raise UserError(
            f"Expected at least one utterance a step for each of {processes} processes, found training.batch_size="
            f"{config.training.batch_size}. Raise it (it counts over all processes), or start fewer."
        )


def refuse_uneven_steps(prepared: Prepared, processes: int) -> None:
    """Refuse a step that cannot be shared evenly, where its loss gathers from all processes."""
    size = prepared.config.training.batch_size
    if prepared.task.expert.loss_needs == "whole_batch" and size % processes:
        raise UserError(
            f"Expected training.batch_size that {processes} processes share evenly (the loss of {prepared.task.name} compares "
            f"the utterances of a step), found {size}. Set -o training.batch_size={size - size % processes or processes}"
        )


def begin(folder: Path, prepared: Prepared) -> None:
    """Write what makes a folder this run's, before the first step."""
    expert = prepared.task.expert
    name, train = prepared.corpus.name, prepared.task.splits["train"]
    heard = [heard_as(name, example.utterance) for example in train]
    whole = {"all": True} if prepared.config.split else {}
    trainable = {role: one.architecture() for role, one in prepared.upstreams.items() if prepared.model.configs[role].trainable}
    RunFolder(folder).write(
        config=to_mapping(prepared.config),
        trained_on={"corpus": name, "heard": heard, **whole},
        vocabulary={prepared.task.name: expert.vocabulary},
        architectures={str(role): described for role, described in trainable.items() if described is not None},
        identity={**prepared.identity, "marks": list(prepared.marks)},
    )


def finish(folder: Path, prepared: Prepared, accelerator: Accelerator, runtime: Runtime) -> dict[str, Any]:
    """Train what is left, evaluate the best step, write the results, return them."""
    config, model = prepared.config, prepared.model
    model.to(accelerator.device)  # before the optimizer takes up its state, which follows its weights
    optimizer = make_optimizer(model, config)
    progress = resume(folder, prepared, optimizer)
    if not progress.is_new:
        say(runtime, f"going on  at step {progress.step}")
    ready = accelerator.prepare(model)
    if accelerator.scaler is not None:
        optimizer = accelerator.prepare(optimizer)
    with logged(folder, progress, accelerator, model) as log:
        hooks = Hooks(
            log=log if sys.stderr.isatty() else told(log, config, progress.step, partial(say, runtime)),
            save_last=lambda now: save_last(folder, prepared, optimizer, now, accelerator),
            save_best=lambda now: save(RunFolder(folder).best, prepared, now, accelerator),
        )
        criterion = "last" if config.split else "metric"
        plan = Plan(config.training, config.optimizer, config.seed, Balancer([prepared.task.name]), criterion=criterion)
        progress = train(ready, [prepared.task], optimizer, accelerator, plan, progress, hooks)
    accelerator.wait_for_everyone()
    load_best(folder, prepared)
    outcomes = outcomes_of(ready, prepared.task, config.training, accelerator)
    result = result_of(prepared, outcomes, progress, accelerator.device, runtime.by)
    if accelerator.is_main_process:
        write_all(folder, prepared, outcomes, result)
        say(runtime, f"written to {folder}")
    accelerator.wait_for_everyone()
    return result


def outcomes_of(model: torch.nn.Module, task: TaskData, training: TrainingConfig, accelerator: Accelerator) -> dict[str, Outcome]:
    """Return the answers on every split but train; what dev decides, a threshold say, holds for all of them."""
    if not task.splits.get("dev"):  # a final model
        return {}
    dev = evaluate(model, task, "dev", accelerator, training)
    before = dict(task.expert.vocabulary)
    task.expert.calibrate(dev)
    if task.expert.vocabulary != before and dev.scores is not None:
        dev = replace(dev, predictions=task.question.decide(task.expert.vocabulary, dev.scores))
    splits = [name for name, rows in task.splits.items() if name not in ("train", "dev") and rows]
    return {"dev": dev} | {split: evaluate(model, task, split, accelerator, training) for split in splits}


def result_of(
    prepared: Prepared, outcomes: Mapping[str, Outcome], progress: Progress, device: torch.device, by: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what result.json says."""
    config, task = prepared.config, prepared.task
    result = {
        "task": task.name,
        **upstreams_of(prepared),
        "corpus": prepared.corpus.name,
        "protocol": prepared.corpus.protocol,
        "fold": prepared.corpus.fold,
        "seed": config.seed,
        "marks": list(prepared.marks),
        "transcripts": prepared.corpus.tables.get("transcripts", {"source": prepared.corpus.name, "wer": None}),
        "steps": progress.step,
        "best_step": progress.best_step,
        "select_by": config.select_by,
        "metrics": dict(task.question.metrics),
        **split_results(task.question, task.expert.vocabulary, outcomes, task.splits, by),
        "notes": list(prepared.notes),
        "environment": environment(device, progress.seconds),
    }
    if prepared.earlier is not None:
        earlier, trained_on = prepared.earlier, len(task.splits["train"])
        chosen = {"run": earlier.run, "best_steps": list(earlier.best_steps)}
        return {**result, "select_by": "", "split": "all", "trained_on_all": trained_on, "steps_from": chosen}
    # a published value is a mean over the recipe's folds, where it names folds: then it stands beside the plan's
    reference = [] if config.folds else references(config, prepared.marks)
    return {**result, "reference": reference} if reference else result


def upstreams_of(prepared: Prepared) -> dict[str, Any]:
    """Return what result.json says of the upstreams: the names of all of them in one, for tables and captions."""
    upstreams, model = prepared.upstreams, prepared.model
    counts = {role: weights_of(upstream) for role, upstream in upstreams.items()}
    return {
        "upstream": " + ".join(upstream.name for upstream in upstreams.values()),
        "source": " + ".join(upstream.source for upstream in upstreams.values()),
        "trainable": any(section.trainable for section in prepared.model.configs.values()),
        "weights": {**counts, "head": weights_of(model.experts) + weights_of(model.sums)},
    }


def weights_of(part: torch.nn.Module) -> int:
    """Return how many weights a part of a model has."""
    return sum(weight.numel() for weight in part.parameters())


def references(config: RunConfig, marks: Sequence[str]) -> list[dict[str, Any]]:
    """Return the recipe's published values for this very upstream; none beside a demo or untrained run."""
    if marks:
        return []
    run = config.upstream.name, config.corpus.name, config.corpus.protocol
    if config.text_upstream.name:  # the published values are of audio alone
        return []
    return [asdict(row) for row in config.reference if (row.upstream, row.corpus, row.protocol) == run]


def write_all(folder: Path, prepared: Prepared, outcomes: Mapping[str, Outcome], result: dict[str, Any]) -> None:
    """Write predictions, pictures, layer weights, and last the result that makes the run finished."""
    task, marks, there = prepared.task, prepared.marks, RunFolder(folder)
    vocabulary = task.expert.vocabulary
    there.write(vocabulary={task.name: vocabulary})  # with what dev decided
    for split, outcome in outcomes.items():
        write_predictions(there.predictions(split), outcome, task.splits[split], vocabulary)
        write_outcome(there.outcome(split), outcome, marks)
    there.write(layer_weights=layer_weights(prepared))
    with plain_disk_errors(folder):
        for split, counts in result.get("confusion", {}).items():
            confusion_plot(counts, vocabulary["classes"], there.plots / f"confusion-{split}.png", marks=marks)
        if task.question.draw is not None:
            for split, outcome in outcomes.items():
                task.question.draw(vocabulary, outcome, there.plots / split, marks)
        curves_plot(there.metrics, there.plots / "curves.png", marks=marks)
    there.write(result=result)


def layer_weights(prepared: Prepared) -> dict[str, Any]:
    """Return each weighted sum's weights, beside the mean feature norm of its layers over some dev utterances."""
    layers = layer_norms(prepared.model, prepared.task, prepared.config.training)
    return {"upstream": upstreams_of(prepared)["upstream"], "marks": list(prepared.marks), "layers": layers}
