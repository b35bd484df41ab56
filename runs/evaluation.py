"""Evaluate the tasks of a run with the weights that it keeps, and write predictions and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from ..core.run_folder import RunFolder
from ..downstream.base import Outcome
from ..training.config import TrainingConfig
from ..training.loop import evaluate
from ..training.step import Progress, TaskData
from .prepare import RunSetup
from .results import split_results, write_split
from .state import load_weights

KEPT = ("last", "best")  # the two sets of weights that a run of several tasks is tested with


@dataclass(frozen=True)
class Evaluation:
    """A task with what dev decided, a threshold say, and its predictions and scores on every split but train."""

    task: TaskData
    outcomes: Mapping[str, Outcome]
    result: Mapping[str, Any]


Evaluate = Callable[[TaskData], Evaluation]


def evaluate_task(
    model: torch.nn.Module, training: TrainingConfig, accelerator: Accelerator, by: Sequence[str], task: TaskData
) -> Evaluation:
    """Return a task's predictions and scores with the weights of now; the task itself stays as it is."""
    task, outcomes = outcomes_of(model, task, training, accelerator)
    return Evaluation(task, outcomes, split_results(task, outcomes, by))


def outcomes_of(
    model: torch.nn.Module, task: TaskData, training: TrainingConfig, accelerator: Accelerator
) -> tuple[TaskData, dict[str, Outcome]]:
    """Return the task with what dev decides, and the predictions on every split but train that follow from it."""
    if not task.splits.get("dev"):  # a final model
        return task, {}
    dev = evaluate(model, task, "dev", accelerator, training)
    before = task.expert.vocabulary
    task = task.with_vocabulary(task.question.calibrate(before, dev, task.tables.get("dev", {})))
    if task.expert.vocabulary != before:
        dev = replace(dev, predictions=task.answer.decide(dev.predictions if dev.scores is None else dev.scores))
    splits = [name for name, rows in task.splits.items() if name not in ("train", "dev") and rows]
    return task, {"dev": dev} | {split: evaluate(model, task, split, accelerator, training) for split in splits}


def write_evaluation(place: RunFolder, evaluation: Evaluation, marks: Sequence[str]) -> None:
    """Write predictions, scores of classes and embeddings of each split."""
    for split, outcome in evaluation.outcomes.items():
        write_split(place, split, outcome, evaluation.task, marks)


# of several tasks


def evaluate_kept(
    folder: Path, setup: RunSetup, progress: Progress, evaluate_now: Evaluate, accelerator: Accelerator
) -> dict[str, dict[str, Evaluation]]:
    """Evaluate each task with the last weights and the best; weights of one step are tested once. Then these are in the model."""
    found: dict[str, dict[str, Evaluation]] = {name: {} for name in setup.tasks}
    run = RunFolder(folder)
    for kept, path in zip(KEPT, (run.last, run.best), strict=True):
        again = kept == "best" and progress.best_step == progress.step
        if not again:
            load_weights(setup.model, path)
        for name, task in setup.tasks.items():
            found[name][kept] = found[name]["last"] if again else evaluate_now(task)
            if not again:
                keep(folder, kept, found[name][kept], setup.marks, accelerator)
    return found


def keep_own_best(folder: Path, marks: Sequence[str], evaluate_now: Evaluate, accelerator: Accelerator, task: TaskData) -> None:
    """Evaluate a task with the weights of now, which were never as good for it on dev."""
    keep(folder, "own", evaluate_now(task), marks, accelerator)


def keep(folder: Path, kept: str, evaluation: Evaluation, marks: Sequence[str], accelerator: Accelerator) -> None:
    """Write one task's evaluation below the folder of a joint run."""
    place = RunFolder(folder).task(kept, evaluation.task.name)
    if accelerator.is_main_process:
        write_evaluation(place, evaluation, marks)
        place.write(result=evaluation.result)
    accelerator.wait_for_everyone()


def own_result(folder: Path, name: str) -> dict[str, Any]:
    """Return the scores of a task's own best step."""
    return RunFolder(folder).task("own", name).read().result("scores")


def task_result(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a run's result; of a run of several tasks that of one, with the best weights."""
    if "tasks" not in result:
        return dict(result)
    own = result["tasks"][name]
    whole = {key: value for key, value in result.items() if key not in ("tasks", "balance", "select")}
    facts = {key: value for key, value in own.items() if key not in (*KEPT, "own", "own_step")}
    return {**whole, **facts, **own["best"]}


def task_place(folder: Path, kept: str, name: str) -> Path:
    """Return where a joint run keeps a task's predictions with one set of weights; where the last step is the best, once."""
    place = RunFolder(folder).task(kept, name).path
    return place if kept != "best" or place.is_dir() else task_place(folder, "last", name)
