"""Train and evaluate: knows no task, no upstream, no corpus."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from ..core.errors import UserError
from ..corpus.batch import Batch
from ..downstream.base import Outcome, Output
from ..downstream.validate import prediction_problem, score_problem
from .config import TrainingConfig
from .model import Model
from .sampling import tasks_of_steps
from .schedule import set_rates
from .sharding import share_batch_norms
from .step import Plan, Progress, StepFacts, TaskData, clip, step_batches, take_step

SECONDS_BETWEEN_SAVES = 300.0  # of a slow run: at most so much is lost when it is killed


@dataclass(frozen=True)
class Hooks:
    """What the loop's caller does with what comes up: disk and log are not the loop's business."""

    log: Callable[[dict[str, Any]], None]
    save_last: Callable[[Progress], None]
    save_best: Callable[[Progress], None]
    task_best: Callable[[TaskData], None] = lambda _: None  # of several tasks: this one was never as good on dev
    stepped: Callable[[Progress], None] = lambda _: None  # after each step


def train(
    model: torch.nn.Module,
    tasks: Sequence[TaskData],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    plan: Plan,
    progress: Progress,
    hooks: Hooks,
) -> Progress:
    """Train from where `progress` stands to the last step, or until patience is lost."""
    config, saved_at, began = plan.training, time.monotonic(), time.monotonic() - progress.seconds
    steps, by_name = range(progress.step, config.steps), {task.name: task for task in tasks}
    sizes = {task.name: len(task.splits["train"]) for task in tasks}
    schedule = tasks_of_steps(plan.sampling, sizes, plan.seed, steps, progress.drawn or dict.fromkeys(sizes, progress.step))
    slow = any(task.source.slow for task in tasks)
    model.train()
    for (step, draws), batches in ahead(
        schedule, lambda drawn: step_batches(by_name, plan, accelerator, drawn[1]), threaded=slow
    ):
        if lost_patience(progress, config):
            break
        rate = set_rates(optimizer, plan.optimizer, step, config.steps)
        facts = take_step(model, batches, accelerator, plan, step)
        norm = clip(model, plan.optimizer.clip, accelerator)
        optimizer.step()
        optimizer.zero_grad()
        drawn = {**progress.drawn, **{task: index + 1 for task, index in draws.items()}}
        progress = replace(progress, step=step + 1, seconds=time.monotonic() - began, drawn=drawn)
        if progress.step % config.log_every == 0:
            log_step(facts, plan, progress.step, rate, float(norm), hooks)
        at_end = progress.step == config.steps
        if progress.step % config.eval_every == 0 or at_end:
            progress = select(model, tasks, accelerator, plan, progress, hooks)
            model.train()
        at_end = at_end or lost_patience(progress, config)  # what is kept as the last step is the last that was made
        late = is_late(time.monotonic() - saved_at, model, accelerator)
        if progress.step % config.save_every == 0 or at_end or late:
            hooks.save_last(progress)
            saved_at = time.monotonic()
        hooks.stepped(progress)
    return progress


def log_step(facts: StepFacts, plan: Plan, step: int, rate: float, norm: float, hooks: Hooks) -> None:
    """Log a step's losses, weights where tasks are balanced, and cosines where they were formed."""
    weights = plan.balancer.weights() if len(plan.balancer.tasks) > 1 else {}
    for task, loss in facts.losses.items():
        line = {"step": step, "split": "train", "task": task, "loss": loss, "rate": rate, "gradient_norm": norm}
        hooks.log({**line, "weight": weights[task]} if weights else line)
    names = list(facts.losses)
    if facts.cosines is not None:
        for row, one in enumerate(names):
            for column, other in enumerate(names[:row]):
                value = float(facts.cosines[row, column])
                hooks.log({"step": step, "split": "cosine", "task": f"{other}+{one}", "cosine": value})


def select(
    model: torch.nn.Module,
    tasks: Sequence[TaskData],
    accelerator: Accelerator,
    plan: Plan,
    progress: Progress,
    hooks: Hooks,
) -> Progress:
    """Evaluate on dev, and remember the step where it is the best so far: of each task, and by the plan's criterion."""
    scores: dict[str, float] = {}
    for task in (task for task in tasks if task.splits.get("dev")):  # a final model has none
        outcome = evaluate(model, task, "dev", accelerator, plan.training)
        if task.name not in progress.bests:  # before all steps are trained for nothing
            refuse_unfit(task, outcome)
        found = task.score("dev", outcome)
        loss = {} if math.isnan(outcome.loss) else {"loss": outcome.loss}  # of speakers that training has none of there is none
        known = {name: value for name, value in found.items() if name not in task.question.final}
        hooks.log({"step": progress.step, "split": "dev", "task": task.name, **loss, **known})
        scores[task.name] = found[task.select_by]
        if is_better(task, scores[task.name], progress.bests.get(task.name)):
            bests = {**progress.bests, task.name: [progress.step, scores[task.name]]}
            progress = replace(progress, bests=bests)
            hooks.task_best(task)
    score = criterion(plan, tasks, scores, progress)
    # a score that is no number is no better than any
    if progress.best_score is not None and not score > progress.best_score:
        return replace(progress, worse_evaluations=progress.worse_evaluations + 1)
    progress = replace(progress, best_step=progress.step, best_score=score, worse_evaluations=0)
    hooks.save_best(progress)
    return progress


def is_better(task: TaskData, score: float, best: Sequence[float] | None) -> bool:
    """Return whether a task's dev score is above (or below, where lower is better) its best so far."""
    sign = 1.0 if task.question.metrics[task.select_by] == "higher" else -1.0
    return best is None or sign * score > sign * best[1]


def criterion(plan: Plan, tasks: Sequence[TaskData], scores: Mapping[str, float], progress: Progress) -> float:
    """Return what the best step has most of: the metric, the mean relative gain over the baselines, or simply steps."""
    if plan.criterion == "last":
        return float(progress.step)
    signs = {task.name: 1.0 if task.question.metrics[task.select_by] == "higher" else -1.0 for task in tasks}
    if plan.criterion == "gain":
        return sum(relative_gain(signs[name], score, plan.baselines[name]) for name, score in scores.items()) / len(scores)
    return signs[tasks[0].name] * scores[tasks[0].name]


def relative_gain(sign: float, score: float, baseline: float) -> float:
    """Return how much better a score is than its baseline, as a share of that."""
    return sign * (score - baseline) / max(abs(baseline), 1e-12)


def is_late(seconds: float, model: torch.nn.Module, accelerator: Accelerator) -> bool:
    """Return whether the last save is long ago; where all processes must take part in one, by the clock of the first."""
    late = seconds > SECONDS_BETWEEN_SAVES
    if not accelerator.unwrap_model(model).sharded:
        return late
    vote = torch.tensor(float(late and accelerator.is_main_process), device=accelerator.device)
    return bool(accelerator.reduce(vote, "sum"))


def lost_patience(progress: Progress, config: TrainingConfig) -> bool:
    """Return whether dev has not improved for too long."""
    return config.patience is not None and progress.worse_evaluations >= config.patience


def evaluate(model: torch.nn.Module, task: TaskData, split: str, accelerator: Accelerator, config: TrainingConfig) -> Outcome:
    """Return the expert's predictions over a whole split, in the split's order, gathered from all processes."""
    plain: Model = accelerator.unwrap_model(model)
    plain.eval()
    task.expert.eval()  # where it is a view with another vocabulary, its mode is its own
    examples = task.splits[split]
    pieces = task.source.pieces(examples, config.without_training())
    mine = pieces[accelerator.process_index :: accelerator.num_processes]
    count = len(mine)
    if plain.sharded:  # every process makes as many passes as the others, the last one if need be for nothing
        share_batch_norms(plain)
        mine = (mine or pieces)[: -(-len(pieces) // accelerator.num_processes)]
        mine += mine[-1:] * (-(-len(pieces) // accelerator.num_processes) - len(mine))
    bar = tqdm(total=len(mine), desc=split, leave=False, disable=not shows_progress(accelerator))
    done = []
    with torch.no_grad():
        for _, batch in ahead(range(len(mine)), lambda index: task.source.batch(mine[index]), threaded=task.source.slow):
            with accelerator.autocast():
                output = plain.output_of(task.name, batch.to(accelerator.device))
                # a loss that compares utterances is one of the whole split, or of nothing
                loss = task.expert.loss(output, batch) if task.expert.loss_needs == "piece" else torch.tensor(0.0)
            done.append(outcome_of(task, batch, output, loss))
            bar.update()
    bar.close()
    outcome = Outcome.join(gather_object(done[:count]) if accelerator.num_processes > 1 else done)
    places = {name: row for row, name in enumerate(outcome.ids)}
    outcome = outcome.take([places[example.utterance.id] for example in examples])
    refuse_no_numbers(split, outcome)
    return replace(outcome, loss=task.expert.split_loss(outcome))


def refuse_no_numbers(split: str, outcome: Outcome) -> None:
    """Refuse scores that are no numbers: the first class would be taken for the prediction, and counted."""
    if outcome.scores is None or bool(outcome.scores.isfinite().all()):
        return
    rows = (~outcome.scores.isfinite().reshape(len(outcome.ids), -1).all(dim=1)).nonzero().flatten().tolist()
    raise UserError(
        f"Expected finite scores of every utterance of {split}, found NaN or infinity for {outcome.ids[rows[0]]}"
        f"{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}. Look for damaged samples there, or leave it out."
    )


def outcome_of(task: TaskData, batch: Batch, output: Output, loss: Tensor) -> Outcome:
    """Return what a piece yields, detached and on the host."""
    try:
        predictions, scores = task.answer.decided(task.expert.decode(output))
    except UserError as problem:
        raise UserError(f"Task '{task.name}': {problem}") from None
    references = tuple(task.question.reference(task.expert.vocabulary, target) for target in batch.targets)
    embeddings = None if output.embeddings is None else output.embeddings.detach().float().cpu()
    return Outcome(batch.ids, predictions, references, scores, embeddings, float(loss))


def shows_progress(accelerator: Accelerator) -> bool:
    """Return whether somebody looks: one process, on a terminal."""
    return accelerator.is_main_process and sys.stderr.isatty()


Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(steps: Iterable[Item], prepare: Callable[[Item], Made], threaded: bool = True) -> Iterator[tuple[Item, Made]]:
    """Yield each step with what `prepare` made of it; where that is slow, one step ahead in a thread."""
    if not threaded:
        yield from ((step, prepare(step)) for step in steps)
        return
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for step in steps:
            future = pool.submit(prepare, step)
            if pending is not None:
                yield pending[0], pending[1].result()
            pending = step, future
        if pending is not None:
            yield pending[0], pending[1].result()


def refuse_unfit(task: TaskData, outcome: Outcome) -> None:
    """Refuse predictions on dev that could not be written at the end, and scores that lack a metric."""
    problem = prediction_problem(task.answer, outcome) or score_problem(task.question.metrics, task.score("dev", outcome))
    if problem:
        raise UserError(f"Task '{task.name}': {problem}")
