"""Read the predictions of finished runs on a split: of a run, of a plan's folds and seeds, or of one task of a joint run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import refuse_without
from ...core.run_folder import RunFolder
from ...downstream.answer import Answer
from ...downstream.base import Outcome, Question
from ...downstream.load import load_task
from ...runs.config.resolve import config_of
from ...runs.evaluation import task_place
from ...runs.results import read_predictions

KEPT = ("best", "last", "own")  # which weights of a joint run were tested; the first is the step that its recipe chose


@dataclass(frozen=True)
class Part:
    """The place of a run, and its result."""

    place: Path  # of its predictions
    home: Path  # of its config
    seed: int
    content: Mapping[str, Any]

    @property
    def splits(self) -> list[str]:
        """The splits that it was tested on; none for a final model."""
        return list(self.content.get("scores") or ())


@dataclass(frozen=True)
class Side:
    """What is compared: a run, or the runs of a plan that count as one system."""

    folder: Path
    task: str  # as its vocabulary calls it
    corpus: str
    protocol: str
    upstream: str
    marks: tuple[str, ...]
    splits: tuple[str, ...]  # that every part was tested on
    seeds: Mapping[int, tuple[Path, ...]]  # seed -> a place for each of its folds
    question: Question
    vocabulary: Mapping[str, Any]
    given: Outcome | None = None  # predictions that no run made: of another toolkit

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.question.answer(self.vocabulary)


def read_side(folder: Path, task: str | None = None, weights: str | None = None) -> Side:
    """Return what stands in the folder of a run or plan; `task` and `weights` choose of a joint run."""
    parts = [part_of(place, seed, task, weights) for place, seed in places_of(folder)]
    first = parts[0]
    refuse_without(RunFolder(first.place).result, first.content, ("corpus", "protocol"))
    config, name, _ = config_of(first.home, task, only_task=True)
    seeds: dict[int, tuple[Path, ...]] = {}
    for part in parts:
        seeds[part.seed] = (*seeds.get(part.seed, ()), part.place)
    question, vocabulary = (
        load_task(config.only.task).question(config.only.expert),
        RunFolder(first.home).read().vocabulary(name)[name],
    )
    with RunFolder(first.home).usable_vocabulary():
        question.answer(vocabulary)
    return Side(
        folder,
        name,
        str(first.content["corpus"]),
        str(first.content["protocol"]),
        str(first.content.get("upstream", "")),
        tuple(dict.fromkeys(mark for part in parts for mark in part.content["marks"])),
        tuple(split for split in first.splits if all(split in part.splits for part in parts)),
        seeds,
        question,
        vocabulary,
    )


def places_of(folder: Path) -> list[tuple[Path, int | None]]:
    """Return the finished runs that count as one system, with their seeds where the plan names them."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise UserError(f"Expected the folder of a run or a plan at '{folder}', found {found}. Check the path.")
    there = RunFolder(folder)
    runs = there.runs()
    if runs is not None:
        settings = dict.fromkeys(run["setting"] or "none" for run in runs)
        if len(settings) != 1:
            raise UserError(
                f"Expected one setting of the sweep in '{folder}', found {len(settings)}, none chosen ({', '.join(settings)}). "
                "Name the folder of one."
            )
        return [(folder / run["name"], run["seed"]) for run in runs]
    if there.result.is_file():
        return [(folder, None)]
    seeds = sorted((place for place in folder.glob("seed*") if RunFolder(place).config.is_file()), key=seed_in)
    if seeds and not there.config.is_file():  # a row of a table of joint runs
        return [(place, seed_in(place)) for place in seeds]
    below = sorted(str(place.relative_to(folder)) for place in there.below())
    if below == ["."]:
        raise unfinished(folder)
    found = f"the runs {', '.join(below[:4])}{' …' * (len(below) > 4)}" if below else "no run"
    raise UserError(
        f"Expected a finished run or plan in '{folder}', found no {there.result.name} and {found}. "
        f"{'Finish the plan by its command, or name one of them' if below else 'Check the path'}."
    )


def seed_in(folder: Path) -> int:
    """Return the number behind `seed` in a folder's name."""
    return int(re.sub(r"\D", "", folder.name) or 0)


def unfinished(folder: Path) -> UserError:
    """Return the error about a run that has no result yet."""
    return UserError(f"Expected a finished run in '{folder}', found one that is not. Repeat the command that trains it.")


def part_of(folder: Path, seed: int | None, task: str | None, weights: str | None) -> Part:
    """Return a run, one task of a joint run, or a run's evaluation on another corpus."""
    there = RunFolder(folder)
    if not there.result.is_file():
        raise unfinished(folder)
    result, home = there.read().result("marks"), there.home.path
    if "trained_on_all" in result:
        raise UserError(
            f"Expected runs with a score, found the final model '{folder}': it was trained on all splits, nothing was held out. "
            "Compare the run or plan that chose its steps."
        )
    seed = int(result.get("seed") or 0) if seed is None else seed
    if "tasks" not in result:
        if weights is not None:
            raise UserError(f"Expected runs of several tasks for --weights, found '{folder}' with one. Leave it out.")
        return Part(folder, home, seed, result)
    _, name, _ = config_of(folder, task, only_task=True)
    task_result = result["tasks"][name]
    step_kind = weights or next(step_kind for step_kind in KEPT if step_kind in task_result)
    if step_kind not in task_result:
        known = " and ".join(step_kind for step_kind in KEPT if step_kind in task_result)
        raise UserError(f"Expected --weights {step_kind} to be kept in '{folder}', found {known}. Choose of these.")
    shared = {key: value for key, value in result.items() if key != "tasks"}
    return Part(task_place(folder, step_kind, name), home, seed, {**shared, **task_result, **task_result[step_kind]})


def pooled_outcome(side: Side, seed: int, split: str) -> tuple[Outcome, list[str]]:
    """Return the predictions of a seed's folds on a split, pooled, and the speakers."""
    outcomes, speakers = [], []
    for place in side.seeds[seed]:
        path = RunFolder(place).predictions(split)
        if not path.is_file():
            raise UserError(
                f"Expected '{path.name}' in '{place}', found none. Test the run there: -m evaluate -t {split} -e RUN."
            )
        outcome, who = read_predictions(path, side.answer)
        outcomes.append(outcome)
        speakers += who
    return Outcome.join(outcomes), speakers
