"""What a plan prints while its runs are at work: the score of each that ends, and how long the others will take."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..core.run_folder import RunFolder
from ..core.text import duration
from ..runs.config.schema import RunConfig, roles_of
from ..runs.evaluation import task_result
from ..runs.runtime import PlanPlace, Runtime, print_progress
from .standing import step_of

Kind = tuple[str, bool]  # runs that take about as long: of one task or several, on a frozen upstream or a trained one
FIRST_SECONDS, QUIET_SECONDS = 15.0, 60.0  # between lines about runs in processes of their own


class PlanProgress:
    """The runs of a plan that are left, and how long those that have ended took."""

    def __init__(self, configs: Mapping[str, RunConfig], folder: Path, runtime: Runtime, jobs: int = 1) -> None:
        self.configs, self.folder, self.runtime, self.jobs = configs, folder, runtime, jobs
        self.done = {name for name in configs if RunFolder(folder / name).is_finished}  # before this command
        self.left = [*configs]
        self.began: dict[str, float] = {}
        self.took: dict[Kind, list[float]] = {}
        self.shown, self.wait = time.monotonic(), FIRST_SECONDS
        steps = sum(config.training.steps for name, config in configs.items() if name not in self.done)
        self.bar = tqdm(total=steps, desc="plan", unit="step", disable=jobs == 1 or runtime.quiet or not sys.stderr.isatty())

    def begin(self, name: str) -> Runtime:
        """Note that a run begins, and return its runtime, which says where it stands."""
        self.began[name] = time.monotonic()
        return replace(self.runtime, place=self.place(name))

    def place(self, name: str) -> PlanPlace:
        """Return where a run stands, and what is left beside it."""
        kind, others = kind_of(self.configs[name]), [other for other in self.left if other != name]
        steps, seconds, unknown = 0, 0.0, 0
        for other in others:
            own = kind_of(self.configs[other])
            if own in self.took:
                seconds += mean(self.took[own])
            elif own == kind:
                steps += self.configs[other].training.steps
            else:
                unknown += 1
        number = [*self.configs].index(name) + 1
        return PlanPlace(number, len(self.configs), len(others), seconds, steps, unknown, kind in self.took)

    def end(self, name: str, result: Mapping[str, Any]) -> None:
        """Note that a run has ended, and print its score and the time that the others will take."""
        self.left = [other for other in self.left if other != name]
        seconds = time.monotonic() - self.began.pop(name, time.monotonic())
        if name in self.done:  # its own clock says how long it took; the run itself says that nothing is trained
            self.took.setdefault(kind_of(self.configs[name]), []).append(float(result["environment"]["seconds"]))
            return
        self.took.setdefault(kind_of(self.configs[name]), []).append(seconds)
        number = [*self.configs].index(name) + 1
        rest = f"; {self.time_left()}" if self.left else ""
        self.show(
            f"{name}, {number} of {len(self.configs)}: {scores_text(self.configs[name], result)} ({duration(seconds)}{rest})"
        )

    def lose(self, name: str) -> None:
        """Note that a run will not come to an end."""
        self.left = [other for other in self.left if other != name]
        self.began.pop(name, None)

    def time_left(self) -> str:
        """Return how long the runs that are left will take, as far as others like them have shown."""
        known = [name for name in self.left if kind_of(self.configs[name]) in self.took]
        unknown = f" (and {len(self.left) - len(known)} that nobody has timed yet)" * (len(known) < len(self.left))
        if not known:
            return f"{counted(len(self.left))} left"
        now = time.monotonic()
        gone = [now - self.began.get(name, now) for name in known]
        left = [max(0.0, mean(self.took[kind_of(self.configs[name])]) - past) for name, past in zip(known, gone, strict=True)]
        seconds = max(sum(left) / self.jobs, *left)  # the last one has no other to share the time with
        return f"about {duration(seconds)} left for {counted(len(known))}{unknown}"

    def look(self) -> None:
        """Show how far the runs in processes of their own are: on a terminal as a bar, else now and then as a line."""
        steps = {name: step_of(RunFolder(self.folder / name).metrics) for name in [*self.began]}  # threads add to it
        ended = {*self.configs} - {*self.left} - self.done
        self.bar.n = sum(self.configs[name].training.steps for name in ended) + sum(steps.values())
        self.bar.refresh()
        if not self.bar.disable or time.monotonic() - self.shown < self.wait:
            return
        at_work = (f"{name} at step {step} of {self.configs[name].training.steps}" for name, step in steps.items())
        self.show(f"plan      {', '.join([*at_work, *[self.time_left()] * bool(self.took)])}")

    def show(self, line: str) -> None:
        """Print a line above the bar."""
        self.shown, self.wait = time.monotonic(), QUIET_SECONDS
        self.bar.clear()
        print_progress(self.runtime, line)
        self.bar.refresh()


def kind_of(config: RunConfig) -> Kind:
    """Return what decides roughly how long a run takes."""
    task = "several" if config.is_joint else config.only.task
    return task, any(section.trainable for section in roles_of(config).values())


def scores_text(config: RunConfig, result: Mapping[str, Any]) -> str:
    """Return each task's score on test (else dev) by the metric that chose its step, with the interval of one alone."""
    found = []
    for name, task in config.tasks.items():
        own = task_result(result, name)
        scores, metric = own.get("scores", {}), task.select_by
        split = next((split for split in scores if split != "dev"), "dev")
        value = scores.get(split, {}).get(metric)
        ends = None if config.is_joint else own.get("intervals", {}).get(split, {}).get(metric)
        interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
        found.append(f"{f'{name} ' * config.is_joint}{split} {metric} {'-' if value is None else f'{value:.3f}'}{interval}")
    return ", ".join(found)


def mean(values: Sequence[float]) -> float:
    """Return the mean of some seconds."""
    return sum(values) / len(values)


def counted(runs: int) -> str:
    """Return `1 run` or `4 runs`."""
    return f"{runs} run{'s' * (runs != 1)}"
