"""Train and evaluate: knows no task, no upstream, no corpus."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from ..corpus.batch import Batch, Example, deal, derive_seed, draw, sampling_weights
from ..downstream.base import Expert, Outcome, Output, Question, Step
from ..errors import UserError
from .checkpoint import Progress
from .config import OptimizerConfig, TrainingConfig
from .model import Model
from .source import Source

SECONDS_BETWEEN_SAVES = 300.0  # of a slow run: at most so much is lost when it is killed


@dataclass(frozen=True)
class TaskData:
    """A task as the loop sees it: its name, its expert and the examples of its splits."""

    name: str
    expert: Expert
    question: Question
    splits: Mapping[str, Sequence[Example]]
    source: Source

    @cached_property
    def sampling_weights(self) -> Tensor | None:
        """How often each training example is drawn; None: all alike."""
        return sampling_weights(self.splits["train"])


@dataclass(frozen=True)
class Hooks:
    """What the loop's caller does with what comes up: disk and log are not the loop's business."""

    log: Callable[[dict[str, Any]], None]
    save_last: Callable[[Progress], None]
    save_best: Callable[[Progress], None]


@dataclass(frozen=True)
class Plan:
    """What the loop is told."""

    training: TrainingConfig
    optimizer: OptimizerConfig
    select_by: str
    seed: int


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
    steps = range(progress.step, config.steps)
    bar = tqdm(steps, initial=progress.step, total=config.steps, desc="training", disable=not shows_progress(accelerator))
    slow = any(task.source.slow for task in tasks)
    model.train()
    for step, batches in ahead(steps, lambda step: step_batches(tasks, plan, accelerator, step), threaded=slow):
        if lost_patience(progress, config):
            break
        rate = set_rates(optimizer, plan.optimizer, step, config.steps)
        losses = {task: backward(model, task, pieces, accelerator, plan.seed, step) for task, pieces in batches.items()}
        norm = clip(model, plan.optimizer.clip, accelerator)
        optimizer.step()
        optimizer.zero_grad()
        progress = replace(progress, step=step + 1, seconds=time.monotonic() - began)
        if progress.step % config.log_every == 0:
            for task, loss in losses.items():
                line = {"step": progress.step, "split": "train", "task": task, "loss": over_processes(loss, accelerator)}
                hooks.log({**line, "rate": rate, "gradient_norm": float(norm)})
        at_end = progress.step == config.steps
        if progress.step % config.eval_every == 0 or at_end:
            progress = select(model, tasks, accelerator, plan, progress, hooks)
            model.train()
        if progress.step % config.save_every == 0 or at_end or time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES:
            hooks.save_last(progress)
            saved_at = time.monotonic()
        bar.update()
    bar.close()
    return progress


def step_batches(
    tasks: Sequence[TaskData], plan: Plan, accelerator: Accelerator, step: int
) -> dict[str, list[tuple[Batch, float]]]:
    """Return each task's pieces on this process with their share of the step, audio read."""
    config, batches = plan.training, {}
    for task in tasks:
        seed = derive_seed(plan.seed, task.name)
        examples = task.splits["train"]
        chosen = [examples[row] for row in draw(len(examples), config.batch_size, seed, step, task.sampling_weights)]
        mine = deal(chosen, accelerator.num_processes, accelerator.process_index, sort=config.sort_pieces)
        pieces = [mine] if task.expert.loss_needs == "whole_batch" else task.source.pieces(mine, config)
        shares = [len(piece) / len(chosen) for piece in pieces]
        batches[task.name] = [(task.source.batch(piece), share) for piece, share in zip(pieces, shares, strict=True)]
    return batches


def backward(
    model: torch.nn.Module, task: str, pieces: Sequence[tuple[Batch, float]], accelerator: Accelerator, seed: int, step: int
) -> float:
    """Add the gradient of a task's step, piece by piece, and return the step's loss on this process."""
    total = 0.0
    for index, (batch, share) in enumerate(pieces):
        # dropout draws from the global generator: seeded here, a step never depends on the ones before
        seed_everything(derive_seed(seed, "piece", step, task, accelerator.process_index, index))
        is_last = index == len(pieces) - 1
        with accelerator.autocast():
            if is_last:
                loss, _ = model(task, batch.to(accelerator.device))
            else:
                with accelerator.no_sync(model):
                    loss, _ = model(task, batch.to(accelerator.device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(not_finite(value, step, task, batch))
        weighted = loss * share * accelerator.num_processes  # DDP averages over processes
        if is_last:
            backpropagate(weighted, accelerator)
        else:
            with accelerator.no_sync(model):
                backpropagate(weighted, accelerator)
        total += value * share * accelerator.num_processes
    return total


def over_processes(loss: float, accelerator: Accelerator) -> float:
    """Return the mean over processes: the loss of the whole step."""
    if accelerator.num_processes == 1:
        return loss
    return float(accelerator.reduce(torch.tensor(loss, device=accelerator.device), "mean"))


def seed_everything(seed: int) -> None:
    """Seed the generators that dropout draws from (torch.manual_seed costs a millisecond: it keeps stack traces)."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def backpropagate(loss: Tensor, accelerator: Accelerator) -> None:
    """Go backwards, scaled where float16 needs it (elsewhere Accelerate's own way costs more than a small head)."""
    if accelerator.scaler is None:
        loss.backward()
    else:
        accelerator.backward(loss)


def clip(model: torch.nn.Module, largest: float, accelerator: Accelerator) -> Tensor:
    """Scale the gradient to at most `largest`, and return its norm before."""
    if accelerator.scaler is None:
        return torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    return accelerator.clip_grad_norm_(model.parameters(), largest)


def not_finite(value: float, step: int, task: str, batch: Batch) -> str:
    """Say which utterances a loss that is no number came from."""
    names = ", ".join(batch.ids[:8]) + (f" and {len(batch) - 8} more" if len(batch) > 8 else "")
    return (
        f"Expected a finite loss, found {value} at step {step} of {task}, with the utterances {names}. "
        "Lower optimizer.lr, or look at these files with `headwater corpus check`."
    )


def select(
    model: torch.nn.Module,
    tasks: Sequence[TaskData],
    accelerator: Accelerator,
    plan: Plan,
    progress: Progress,
    hooks: Hooks,
) -> Progress:
    """Evaluate on dev, and remember the step where it is the best so far."""
    task = tasks[0]
    outcome = evaluate(model, task, "dev", accelerator, plan.training)
    scores = task.expert.score(outcome)
    hooks.log({"step": progress.step, "split": "dev", "task": task.name, "loss": outcome.loss, **scores})
    sign = 1.0 if task.question.metrics[plan.select_by] == "higher" else -1.0
    score = scores[plan.select_by]
    if progress.best_score is not None and sign * score <= sign * progress.best_score:
        return replace(progress, worse_evaluations=progress.worse_evaluations + 1)
    progress = replace(progress, best_step=progress.step, best_score=score, worse_evaluations=0)
    hooks.save_best(progress)
    return progress


def lost_patience(progress: Progress, config: TrainingConfig) -> bool:
    """Return whether dev has not improved for too long."""
    return config.patience is not None and progress.worse_evaluations >= config.patience


def evaluate(model: torch.nn.Module, task: TaskData, split: str, accelerator: Accelerator, config: TrainingConfig) -> Outcome:
    """Return the expert's answers over a whole split, in the split's order, gathered from all processes."""
    plain: Model = accelerator.unwrap_model(model)
    plain.eval()
    examples = task.splits[split]
    pieces = task.source.pieces(examples, config)
    mine = pieces[accelerator.process_index :: accelerator.num_processes]
    bar = tqdm(total=len(mine), desc=split, leave=False, disable=not shows_progress(accelerator))
    steps = []
    with torch.no_grad():
        for _, batch in ahead(range(len(mine)), lambda index: task.source.batch(mine[index]), threaded=task.source.slow):
            with accelerator.autocast():
                output = plain.answer(task.name, batch.to(accelerator.device))
                # a loss that compares utterances is one of the whole split, or of nothing
                loss = task.expert.loss(output, batch) if task.expert.loss_needs == "piece" else torch.tensor(0.0)
            steps.append(make_step(task.expert, batch, output, loss))
            bar.update()
    bar.close()
    outcome = Outcome.join(gather_object(steps) if accelerator.num_processes > 1 else steps)
    places = {name: row for row, name in enumerate(outcome.ids)}
    outcome = outcome.take([places[example.utterance.id] for example in examples])
    return replace(outcome, loss=task.expert.split_loss(outcome))


def make_step(expert: Expert, batch: Batch, output: Output, loss: Tensor) -> Step:
    """Return a piece's answers, detached and on the host."""
    predictions, scores = expert.decode(output)
    references = tuple(expert.reference(target) for target in batch.targets)
    embeddings = None if output.embeddings is None else output.embeddings.detach().float().cpu()
    return Step(batch.ids, predictions, references, scores, embeddings, float(loss))


def set_rates(optimizer: torch.optim.Optimizer, config: OptimizerConfig, step: int, steps: int) -> float:
    """Set each group's learning rate, a function of the step, and return the factor."""
    factor = rate_factor(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return factor


def rate_factor(config: OptimizerConfig, step: int, steps: int) -> float:
    """Return warm-up and decay at a step: linear up over `warmup_steps`, then as the schedule says."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    way = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return {"constant": 1.0, "linear": 1.0 - way, "cosine": 0.5 * (1.0 + math.cos(math.pi * way))}[config.schedule]


def shows_progress(accelerator: Accelerator) -> bool:
    """Return whether somebody looks: one process, on a terminal."""
    return accelerator.is_main_process and sys.stderr.isatty()


Prepared = TypeVar("Prepared")


def ahead(steps: Iterable[int], prepare: Callable[[int], Prepared], threaded: bool = True) -> Iterator[tuple[int, Prepared]]:
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
