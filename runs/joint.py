"""A run of several tasks: one finetuned upstream, an expert each; held, resumed and left as a whole folder."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator

from ..core.errors import UserError
from ..core.files import plain_disk_errors
from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors
from ..corpus.base import Corpus
from ..downstream.base import Outcome
from ..plugins.provenance import identity_of_code
from ..training.balance import Balancer, make_balancer
from ..training.loop import Hooks, train
from ..training.model import Model
from ..training.step import Plan, Progress, TaskData, shared_weights
from ..upstream.base import Upstream
from ..upstream.load import load_upstream
from .config.identity import fingerprint, mtl_identity, refuse_other
from .config.schema import MtlConfig, RunConfig, mtl_mapping
from .layer_norms import layer_norms
from .leakage import heard_as, learnt_before
from .log import logged
from .pictures import confusion_plot, cosines_plot, curves_plot
from .prepare import describe_upstream, marks_of, read_corpus, resolved_layer, start_from, task_data
from .results import environment, split_results, write_outcome, write_predictions
from .run import outcomes_of
from .runtime import Runtime, make_accelerator, say
from .state import make_optimizer, resume, save, save_last

KEPT = ("last", "best")  # the two sets of weights that a run of several tasks is tested with


@dataclass(frozen=True)
class PreparedTasks:
    """A run of several tasks that can start."""

    config: MtlConfig
    tasks: Mapping[str, TaskData]
    corpora: Mapping[str, Corpus]
    model: Model
    balancer: Balancer
    identity: Mapping[str, Any]
    marks: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """The upstream, by its role."""
        return {"audio": self.model.upstream("audio")}


def run_tasks(config: MtlConfig, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Return the run's result: from its folder where it is finished, else trained from where it stands."""
    accelerator = make_accelerator(config, runtime)
    refuse_tiny_steps(config, accelerator.num_processes)
    RunFolder(folder).refuse_plan()
    refuse_other(folder, {"config": mtl_identity(config)})
    with RunFolder(folder).held() if accelerator.is_main_process else nullcontext():
        if RunFolder(folder).is_finished:
            if not runtime.named:
                refuse_other(folder, prepare_tasks(config).identity)
            say(runtime, f"{folder} is finished: nothing is trained")
            return RunFolder(folder).read().result("tasks")
        prepared = prepare_tasks(config)
        refuse_uneven_tasks(prepared.tasks, accelerator.num_processes)
        if accelerator.is_main_process:
            refuse_other(folder, prepared.identity)
            say(runtime, *describe_tasks(prepared, folder))
            begin(folder, prepared)
        accelerator.wait_for_everyone()
        return finish_tasks(folder, prepared, accelerator, runtime)


def refuse_tiny_steps(config: MtlConfig, processes: int) -> None:
    """Refuse a task's step that the processes cannot share."""
    for name, run in config.runs.items():
        size = run.training.batch_size
        if size < processes:
            raise UserError(
                f"Expected at least one utterance of '{name}' in a step for each of {processes} processes, found "
                f"batch_size={size} (it counts over all processes). Raise it, or start fewer."
            )


def refuse_uneven_tasks(tasks: Mapping[str, TaskData], processes: int) -> None:
    """Refuse steps that the processes cannot share evenly, where a task's loss gathers from all of them."""
    for name, task in tasks.items():
        if task.expert.loss_needs == "whole_batch" and task.batch_size % processes:
            raise UserError(
                f"Expected a batch_size of '{name}' that {processes} processes share evenly (its loss compares the utterances of "
                f"a step), found {task.batch_size}. "
                f"Set -o tasks.{name}.batch_size={task.batch_size - task.batch_size % processes or processes}"
            )


def prepare_tasks(config: MtlConfig) -> PreparedTasks:
    """Load and check everything that the run needs; what is missing is named in one message."""
    problems, corpora = [], {}
    for name, run in config.runs.items():
        try:
            corpora[name] = read_corpus(run.corpus)
        except UserError as problem:
            problems.append(of_task(name, run, problem))
    try:
        upstream = load_upstream(config.upstream, "audio")
    except UserError as problem:
        problems.append(str(problem))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    tasks, notes = tasks_of(config, corpora, upstream)
    experts = {name: task.expert for name, task in tasks.items()}
    section = resolved_layer(config.upstream, upstream)
    model = Model({"audio": upstream}, experts, {"audio": section}, shares_sums=config.shared_weights)
    balancer = make_balancer(config.balance, list(tasks))
    refuse_nothing_shared(config, balancer, shares=bool(shared_weights(model)))
    if config.training.gradient_checkpointing:
        upstream.recompute_blocks()
    heads = {name: Path(run.init_head).expanduser() for name, run in config.runs.items() if run.init_head}
    for name, folder in heads.items():
        start_from(model, folder, task=name, of=config.runs[name].task)
    identity = {
        "config": mtl_identity(config),
        "corpus": {name: fingerprint(task.splits) for name, task in tasks.items()},
        "upstreams": {"audio": upstream.weights_hash()},
        "init_heads": {name: head_hash(folder) for name, folder in heads.items()},
        **identity_of_code({f"task.{name}": run.task for name, run in config.runs.items()} | {"audio": config.upstream.name}),
    }
    marks = marks_of([corpus.demo for corpus in corpora.values()], {"audio": upstream})
    return PreparedTasks(config, tasks, corpora, model, balancer, identity, marks, notes)


def tasks_of(config: MtlConfig, corpora: Mapping[str, Corpus], upstream: Upstream) -> tuple[dict[str, TaskData], tuple[str, ...]]:
    """Return the tasks as the loop sees them, and what a user should know of each."""
    tasks: dict[str, TaskData] = {}
    notes: list[str] = []
    for name, run in config.runs.items():
        try:
            tasks[name], told = task_data(name, run, corpora[name], {"audio": upstream})
            told += learnt_before(run, corpora[name], tasks[name].splits)
        except UserError as problem:
            raise UserError(of_task(name, run, problem)) from None
        notes += [f"{name}: {note}" for note in told]
    return tasks, tuple(notes)


def of_task(name: str, run: RunConfig, problem: UserError) -> str:
    """Return what is wrong with one task, its advice in the words of a run of several."""
    words = re.sub(rf"-o ({run.task}|labels|corpus)\.", rf"-o tasks.{name}.\1.", str(problem))
    return f"{name}: {words}"


def head_hash(folder: Path) -> str:
    """Return a hash of a run's weights; its file also says how long they took."""
    tensors, _ = load_tensors(RunFolder(folder).best)
    return hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()


def refuse_nothing_shared(config: MtlConfig, balancer: Balancer, *, shares: bool) -> None:
    """Refuse to balance gradients where the tasks share no weight or no step: nothing of theirs can be in conflict."""
    wants = balancer.needs != "losses" or config.balance.cosines_every
    asked = f"--balance {config.balance.method}" if balancer.needs != "losses" else "balance.cosines_every"
    if balancer.needs != "losses" and config.sampling.mode != "all":
        raise UserError(
            f"Expected all tasks in every step for {asked}, found sampling {config.sampling.mode}: one task's gradient has "
            "nothing to meet. Use --sampling all, or --balance fixed, uncertainty or dwa."
        )
    if wants and not shares:
        raise UserError(
            f"Expected weights that the tasks share for {asked}, found a frozen upstream and a weighted sum for each task: "
            "their gradients never meet. Set -o upstream.trainable=true, add --shared-weights, or leave it out."
        )


def describe_tasks(prepared: PreparedTasks, folder: Path) -> list[str]:
    """Return the lines that the run prints before it starts."""
    config, model = prepared.config, prepared.model
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    sums = "one weighted sum for all" if config.shared_weights else "a weighted sum for each task"
    shared = sum(weight.numel() for weight in shared_weights(model))
    rows = len(prepared.tasks) if prepared.balancer.needs == "rows" or config.balance.cosines_every else 0
    extra = rows * shared * 4 if rows else 2 * shared * 4 * (prepared.balancer.needs == "norms")
    lines = [
        *(f"{mark}: not a result to quote" for mark in prepared.marks),
        f"upstream  {describe_upstream(prepared.model, 'audio')}; {sums}",
    ]
    for name, task in prepared.tasks.items():
        counts = ", ".join(f"{split} {len(found)}" for split, found in task.splits.items())
        corpus = prepared.corpora[name]
        lines.append(
            f"task      {name}: {corpus.name}, protocol {corpus.protocol}: {counts}; {task.batch_size} utterances a step"
        )
    return [
        *lines,
        f"training  {trained:,} weights, {config.training.steps} steps; sampling {config.sampling.mode}, "
        f"balance {config.balance.method}" + (f" (adds {extra / 1e9:.2f} GB for gradients)" if extra else ""),
        f"folder    {folder}",
        *(f"note      {note}" for note in prepared.notes),
    ]


def begin(folder: Path, prepared: PreparedTasks) -> None:
    """Write what makes a folder this run's, before the first step."""
    heard = {}
    for name, task in prepared.tasks.items():
        corpus = prepared.corpora[name].name
        heard[name] = {"corpus": corpus, "heard": [heard_as(corpus, row.utterance) for row in task.splits["train"]]}
    architecture = prepared.model.upstream("audio").architecture() if prepared.config.upstream.trainable else None
    RunFolder(folder).write(
        config=mtl_mapping(prepared.config),
        trained_on=heard,
        vocabulary={name: task.expert.vocabulary for name, task in prepared.tasks.items()},
        architectures={} if architecture is None else {"audio": architecture},
        identity={**prepared.identity, "marks": list(prepared.marks)},
    )


def finish_tasks(folder: Path, prepared: PreparedTasks, accelerator: Accelerator, runtime: Runtime) -> dict[str, Any]:
    """Train what is left, test the last step and the best, write the results, return them."""
    config, model = prepared.config, prepared.model
    model.to(accelerator.device)
    prepared.balancer.to(accelerator.device)
    optimizer = make_optimizer(model, config, prepared.balancer)
    progress = resume(folder, prepared, optimizer, prepared.balancer)
    if not progress.is_new:
        say(runtime, f"going on  at step {progress.step}")
    ready = accelerator.prepare(model)
    if accelerator.scaler is not None:
        optimizer = accelerator.prepare(optimizer)
    plan = Plan(
        config.training,
        config.optimizer,
        config.seed,
        prepared.balancer,
        config.sampling,
        config.balance.cosines_every,
        config.select,
        config.baselines,
    )
    tested = partial(tested_task, folder, prepared, ready, accelerator)
    with logged(folder, progress, accelerator, model) as log:
        hooks = Hooks(
            log=log if sys.stderr.isatty() else told_tasks(log, config, partial(say, runtime)),
            save_last=lambda now: save_last(folder, prepared, optimizer, now, accelerator, prepared.balancer),
            save_best=lambda now: save(RunFolder(folder).best, prepared, now, accelerator),
            task_best=lambda task: keep_own(tested, task),
        )
        progress = train(ready, [*prepared.tasks.values()], optimizer, accelerator, plan, progress, hooks)
    accelerator.wait_for_everyone()
    found = tested_kept(folder, prepared, progress, tested)
    result = result_of_tasks(prepared, found, progress, accelerator)
    if accelerator.is_main_process:
        write_tasks(folder, prepared, result)
        say(runtime, f"written to {folder}")
    accelerator.wait_for_everyone()
    return result


def tested_kept(
    folder: Path, prepared: PreparedTasks, progress: Progress, tested: Callable[[TaskData, str], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return each task's scores with the last weights, the best and its own best; those of one step are tested once."""
    found: dict[str, dict[str, Any]] = {name: {} for name in prepared.tasks}
    steps = {"last": progress.step, "best": progress.best_step}
    for kept, path in (("last", RunFolder(folder).last), ("best", RunFolder(folder).best)):
        again = kept == "best" and steps["best"] == steps["last"]
        if not again:
            tensors, _ = load_tensors(path)
            state = {key: value for key, value in tensors.items() if not key.startswith(("optimizer.", "balancer."))}
            prepared.model.load_trained_state(state, str(path))
        for name, task in prepared.tasks.items():
            found[name][kept] = found[name]["last"] if again else tested(task, kept)
    for name in prepared.tasks:
        found[name]["own"] = RunFolder(folder).task("own", name).read().result("scores")
    return found


def keep_own(tested: Callable[[TaskData, str], dict[str, Any]], task: TaskData) -> None:
    """Test a task with the weights of now, which were never as good for it on dev."""
    before = task.expert.vocabulary
    tested(task, "own")
    task.expert.vocabulary = before  # what dev decided for these weights is no part of training: a resumed run starts without


def tested_task(
    folder: Path, prepared: PreparedTasks, model: torch.nn.Module, accelerator: Accelerator, task: TaskData, kept: str
) -> dict[str, Any]:
    """Return a task's scores with the weights of now, and leave them with its predictions below the run's folder."""
    outcomes: dict[str, Outcome] = outcomes_of(model, task, prepared.config.training, accelerator)
    vocabulary = task.expert.vocabulary
    result = split_results(task.question, vocabulary, outcomes, task.splits)
    below = RunFolder(folder).task(kept, task.name)
    if accelerator.is_main_process:
        for split, outcome in outcomes.items():
            write_predictions(below.predictions(split), outcome, task.splits[split], vocabulary)
            write_outcome(below.outcome(split), outcome, prepared.marks)
        below.write(result=result)
    accelerator.wait_for_everyone()
    return result


def result_of_tasks(
    prepared: PreparedTasks, found: Mapping[str, Mapping[str, Any]], progress: Progress, accelerator: Accelerator
) -> dict[str, Any]:
    """Return what result.json says: for each task the scores of the last step, of the best one, and of its own best."""
    config, upstream = prepared.config, prepared.model.upstream("audio")
    tasks = {
        name: {
            "task": config.runs[name].task,
            "corpus": prepared.corpora[name].name,
            "protocol": prepared.corpora[name].protocol,
            "fold": prepared.corpora[name].fold,
            "select_by": task.select_by,
            "metrics": dict(task.question.metrics),
            "own_step": progress.bests[name][0],
            **found[name],
        }
        for name, task in prepared.tasks.items()
    }
    return {
        "upstream": upstream.name,
        "source": upstream.source,
        "trainable": config.upstream.trainable,
        "seed": config.seed,
        "marks": list(prepared.marks),
        "steps": progress.step,
        "select": config.select,
        "best_step": progress.best_step,
        "balance": {"method": config.balance.method, "weights": prepared.balancer.weights()},
        "tasks": tasks,
        "notes": list(prepared.notes),
        "environment": environment(accelerator.device, progress.seconds),
    }


def write_tasks(folder: Path, prepared: PreparedTasks, result: dict[str, Any]) -> None:
    """Write layer weights, pictures, and last the result that makes the run finished."""
    there = RunFolder(folder)
    there.write(vocabulary={name: task.expert.vocabulary for name, task in prepared.tasks.items()})
    layers: dict[str, Any] = {}
    for task in prepared.tasks.values():
        layers |= layer_norms(prepared.model, task, prepared.config.training)
    upstream = prepared.model.upstream("audio").name
    there.write(layer_weights={"upstream": upstream, "marks": list(prepared.marks), "layers": layers})
    with plain_disk_errors(folder):
        for name, task in result["tasks"].items():
            for split, counts in task["best"].get("confusion", {}).items():
                path = there.plots / f"confusion-{name}-{split}.png"
                confusion_plot(counts, task["best"]["classes"], path, marks=prepared.marks)
        curves_plot(there.metrics, there.plots / "curves.png", marks=prepared.marks)
        cosines_plot(there.metrics, there.plots / "cosines.png", marks=prepared.marks)
    there.write(result=result)


def told_tasks(log: Any, config: MtlConfig, tell: Any) -> Any:
    """Return a log that also tells of each evaluation."""

    def log_and_tell(line: dict[str, Any]) -> None:
        """Log one line, and tell it where it is an evaluation."""
        log(line)
        if line["split"] == "dev":
            metric = config.runs[line["task"]].select_by
            tell(f"step {line['step']} of {config.training.steps}: {line['task']} dev {metric} {line[metric]:.3f}")

    return log_and_tell
