"""One step: which utterances of which tasks, their gradients, and the rate at which they are followed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..core.errors import UserError
from ..corpus.batch import Batch, Example
from ..downstream.answer import Answer
from ..downstream.base import Expert, Outcome, Question, Tables
from .balance import Balancer, cosines
from .batches import deal, derive_seed, draw, draw_of_like_length, sampling_weights
from .config import OptimizerConfig, TrainingConfig
from .model import Model
from .parts import is_part
from .sampling import SamplingConfig
from .sharding import clip_parts, evened
from .source import Source

Pieces = list[tuple[Batch, float]]  # what goes through the model at once, with its share of the step


@dataclass(frozen=True)
class TaskData:
    """A task as the loop sees it: its name, its expert and the examples of its splits."""

    name: str
    expert: Expert
    question: Question
    splits: Mapping[str, Sequence[Example]]
    source: Source
    select_by: str  # of its metrics: the one that dev is looked at by
    batch_size: int  # utterances of a step, over all pieces and processes
    crops: Mapping[str, Sequence[Example]] = field(default_factory=dict)  # utterance id -> the stretches that are stored of it
    tables: Mapping[str, Tables] = field(default_factory=dict)  # split -> what its score takes beside the predictions

    @cached_property
    def sampling_weights(self) -> Tensor | None:
        """How often each training example is drawn; None: all alike."""
        return sampling_weights(self.splits["train"])

    @property
    def answer(self) -> Answer:
        """The kind of answer, with what dev has decided."""
        return self.question.answer(self.expert.vocabulary)

    def with_vocabulary(self, vocabulary: Mapping[str, Any]) -> TaskData:
        """Return the task with another vocabulary: what dev decided, a threshold say."""
        return replace(self, expert=self.expert.with_vocabulary(vocabulary))

    def score(self, split: str, outcome: Outcome) -> dict[str, float]:
        """Return every metric of a whole split."""
        return self.question.score(self.expert.vocabulary, outcome, self.tables.get(split, {}))


@dataclass(frozen=True)
class Plan:
    """The settings of the loop."""

    training: TrainingConfig
    optimizer: OptimizerConfig
    seed: int
    balancer: Balancer
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    cosines_every: int = 0  # steps between logged cosines of the tasks' gradients; 0: never
    criterion: str = "metric"  # which step is the best: metric (of the one task), last, or gain (over the baselines)
    baselines: Mapping[str, float] = field(default_factory=dict)  # task -> dev score of its single-task run


@dataclass(frozen=True)
class StepFacts:
    """The facts of a step, for the log."""

    losses: Mapping[str, float]  # by task, over all processes
    cosines: Tensor | None = None  # of the tasks' gradients: (task, task)


def step_batches(
    tasks: Mapping[str, TaskData], plan: Plan, accelerator: Accelerator, draws: Mapping[str, int]
) -> dict[str, Pieces]:
    """Return the pieces of a step's tasks on this process with their share of the step, audio read.

    `draws` says how often each of them was drawn before: the set of a step is a function of (seed, that).
    """
    config, batches = plan.training, {}
    # where weights lie in parts, no process may make fewer passes than the others
    processes = [*range(accelerator.num_processes)] if config.shard else [accelerator.process_index]
    for name, index in draws.items():
        task = tasks[name]
        seed, examples = derive_seed(plan.seed, name), task.splits["train"]
        rows = rows_of(task, config, seed, index)
        chosen = [training_example(task, examples[row], place, seed, index) for place, row in enumerate(rows)]
        shares = [deal(chosen, accelerator.num_processes, process, sort=config.sort_pieces) for process in processes]
        cut = [[mine] if task.expert.loss_needs == "whole_batch" else task.source.pieces(mine, config) for mine in shares]
        pieces = evened(cut[processes.index(accelerator.process_index)], max(map(len, cut)))
        batches[name] = [(task.source.batch(piece), len(piece) / len(chosen) * counts) for piece, counts in pieces]
    return batches


def rows_of(task: TaskData, config: TrainingConfig, seed: int, index: int) -> list[int]:
    """Return the training rows of a step's set."""
    examples, weights = task.splits["train"], task.sampling_weights
    if config.bucket_steps is None:
        return draw(len(examples), task.batch_size, seed, index, weights)
    if weights is not None:
        raise UserError(
            f"Expected utterances that are drawn alike beside training.bucket_steps, found that '{task.name}' draws some more "
            "often. Leave bucket_steps out."
        )
    seconds = [example.seconds for example in examples]
    return draw_of_like_length(seconds, task.batch_size, seed, index, config.bucket_steps)


def training_example(task: TaskData, example: Example, place: int, seed: int, index: int) -> Example:
    """Return what a step uses of an utterance: all of it, or a stretch drawn by (seed, step, place)."""
    example = replace(example, draw=derive_seed(seed, "example", index, place))
    if not task.expert.crops:
        return example
    generator = torch.Generator().manual_seed(derive_seed(seed, "crop", index, place))
    if task.crops:
        fixed = task.crops[example.utterance.id]
        return replace(fixed[int(torch.randint(len(fixed), (1,), generator=generator))], draw=example.draw)
    return cropped(task.expert, example, generator)


def cropped(expert: Expert, example: Example, generator: torch.Generator) -> Example:
    """Return an example cut to the stretch that its expert draws."""
    stretch = expert.crop(replace(example.utterance, duration=example.seconds), generator)
    return replace(example, utterance=stretch, seconds=stretch.duration or example.seconds)


def take_step(model: nn.Module, batches: Mapping[str, Pieces], accelerator: Accelerator, plan: Plan, step: int) -> StepFacts:
    """Leave the gradient of a step in the weights: the tasks' own, weighted or combined as the balancer says."""
    balancer, names = plan.balancer, list(batches)
    wanted = bool(plan.cosines_every) and (step + 1) % plan.cosines_every == 0 and len(names) > 1
    norms: dict[str, float] = {}
    rows: Tensor | None = None
    if balancer.needs == "losses" and not wanted:
        local = {name: backward(model, name, batches[name], accelerator, plan, step, sync=name == names[-1]) for name in names}
    else:
        local, norms, rows = apart(model, batches, accelerator, plan, step, keep=wanted or balancer.needs == "rows")
    average([weight for weight in balancer.parameters() if weight.grad is not None], accelerator)
    plain: Model = accelerator.unwrap_model(model)
    if plain.sharded:  # which has averaged the gradients of what lies in parts
        average([weight for weight in plain.parameters() if weight.grad is not None and not is_part(weight)], accelerator)
    losses = {name: over_processes(loss, accelerator) for name, loss in local.items()}
    balancer.observe(losses, norms)
    return StepFacts(losses, cosines(rows) if wanted and rows is not None else None)


def apart(
    model: nn.Module, batches: Mapping[str, Pieces], accelerator: Accelerator, plan: Plan, step: int, *, keep: bool
) -> tuple[dict[str, float], dict[str, float], Tensor | None]:
    """Form the tasks' gradients one by one, and leave in the shared weights what the balancer makes of them.

    Returns losses, norms of the tasks' shared gradients, and these gradients (task, weight) where they are kept.
    """
    shared = shared_weights(accelerator.unwrap_model(model))
    losses: dict[str, float] = {}
    norms: dict[str, float] = {}
    rows: list[Tensor] = []
    total = torch.zeros(sum(weight.numel() for weight in shared), device=accelerator.device)
    for name, pieces in batches.items():
        losses[name] = backward(model, name, pieces, accelerator, plan, step, sync=False)
        average(shared, accelerator)
        row = torch.cat([(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in shared])
        for weight in shared:
            weight.grad = None
        norms[name] = float(row.norm())
        if keep:
            rows.append(row)
        if plan.balancer.needs != "rows":
            total += row
    stacked = torch.stack(rows) if keep else None
    if plan.balancer.needs == "rows" and stacked is not None:
        seed_everything(derive_seed(plan.seed, "combine", step))  # some draw an order of the tasks: the same on every process
        total = plan.balancer.combine(stacked)
    for weight, part in zip(shared, total.split([weight.numel() for weight in shared]), strict=True):
        weight.grad = part.view_as(weight)
    kept = {id(weight) for weight in shared}
    average([weight for weight in model.parameters() if weight.grad is not None and id(weight) not in kept], accelerator)
    return losses, norms, stacked


def shared_weights(model: Model) -> list[nn.Parameter]:
    """Return the weights that all tasks train: those of finetuned upstreams, and of a weighted sum that they share."""
    parts = [*model.upstreams.values(), *([model.sums] if model.shares_sums else [])]
    return [weight for part in parts for weight in part.parameters() if weight.requires_grad]


def average(weights: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Replace gradients by their means over processes, where DDP did not."""
    if accelerator.num_processes == 1:
        return
    for weight in weights:
        grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        weight.grad = accelerator.reduce(grad, "mean")


def backward(
    model: nn.Module, task: str, pieces: Pieces, accelerator: Accelerator, plan: Plan, step: int, *, sync: bool = True
) -> float:
    """Add the gradient of a task's step, piece by piece, and return the step's loss on this process.

    `sync`: the last piece is the last of the step, after which DDP averages over processes.
    """
    total = 0.0
    for index, (batch, share) in enumerate(pieces):
        # dropout draws from the global generator: seeded here, a step never depends on the ones before
        seed_everything(derive_seed(plan.seed, "piece", step, task, accelerator.process_index, index))
        with nullcontext() if sync and index == len(pieces) - 1 else accelerator.no_sync(model):
            with accelerator.autocast():
                loss, _ = model(task, batch.to(accelerator.device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise UserError(not_finite(value, step, task, batch))
            # DDP averages over processes
            backpropagate(plan.balancer.weigh(task, loss) * share * accelerator.num_processes, accelerator)
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


def clip(model: torch.nn.Module, largest: float | None, accelerator: Accelerator) -> Tensor:
    """Scale the gradient to at most `largest`, if there is such a bound, and return its norm before.

    Of tasks that have nothing in common, each has a gradient of its own.
    """
    largest = math.inf if largest is None else largest
    plain: Model = accelerator.unwrap_model(model)
    if plain.sharded:
        return clip_parts([*model.parameters()], largest)
    if plain.own and not shared_weights(plain):  # one task's gradient is no reason to make another's smaller
        accelerator.unscale_gradients()
        norms = [torch.nn.utils.clip_grad_norm_(plain.weights_of_task(task), largest) for task in plain.experts]
        return torch.stack(norms).norm()
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


@dataclass(frozen=True)
class Progress:
    """What a run remembers rather than draws: where it is, and the best so far."""

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    worse_evaluations: int = 0  # since the best one
    seconds: float = 0.0  # spent so far, over all starts
    drawn: Mapping[str, int] = field(default_factory=dict)  # task -> how many steps trained it
    bests: Mapping[str, Sequence[float]] = field(default_factory=dict)  # task -> the step of its best dev score, and that score

    @property
    def is_new(self) -> bool:
        """True before the first step."""
        return self.step == 0
