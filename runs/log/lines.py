"""The log of a run: metrics.jsonl, TensorBoard, and what is shown while it trains."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from ...core.files import plain_disk_errors, write_text
from ...core.run_folder import RunFolder
from ...core.text import duration
from ...training.loop import shows_progress
from ...training.model import Model
from ...training.step import Progress
from ..config.schema import RunConfig, roles_of
from ..prepare import RunSetup
from ..runtime import PlanPlace, Runtime, print_progress
from .trackers import Trackers

FIRST_SECONDS = 4.0  # until somebody wants to see that it works
QUIET_SECONDS = 60.0  # between lines
STEPS_TO_TIME = 3  # before a pace is believed
EVALUATIONS_TO_JUDGE = 3  # before the last one says anything about more steps
LONG_SECONDS = 3600.0  # of a run on a CPU: what would be quicker is said


@contextmanager
def logged(folder: Path, progress: Progress, accelerator: Accelerator, model: Model, trackers: Trackers) -> Iterator[Any]:
    """Give a function that logs a line to metrics.jsonl, TensorBoard (both cut at the step where the run stands), trackers."""
    if not accelerator.is_main_process:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    path = RunFolder(folder).metrics
    # a byte that is no UTF-8 costs its line, not the run
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    write_text(path, "".join(line + "\n" for line in lines if is_before(line, progress.step)))
    with plain_disk_errors(folder):
        writer = SummaryWriter(str(RunFolder(folder).tensorboard), purge_step=progress.step + 1)

    def log(line: dict[str, Any]) -> None:
        """Log one line."""
        with plain_disk_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        with uninterrupted():
            values = scalars(line, model)
            for key, value in values.items():
                writer.add_scalar(key, value, line["step"])
            trackers.log(values, line["step"])

    try:
        yield log
    finally:
        with uninterrupted():
            writer.close()


def scalars(line: Mapping[str, Any], model: Model) -> dict[str, float]:
    """Return what TensorBoard gets of a logged line; with each evaluation the layer weights too."""
    task = line["task"]
    values = {f"{task}/{line['split']}/{key}": value for key, value in line.items() if isinstance(value, float)}
    for role in model.summed(task) if line["split"] == "dev" else ():
        for layer, weight in enumerate(model.weighted_sum(task, role).weights.tolist()):
            values[f"{task}/weights/{role}/layer{layer}"] = weight
    return values


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended: inside TensorBoard's queue it would leave a writer that never closes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda *press: pressed.append(press))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if pressed and callable(before):
            before(*pressed[0])


def is_before(line: str, step: int) -> bool:
    """Return whether a line of metrics.jsonl is whole and not after a step."""
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError, RecursionError):  # cut in the middle by a kill
        return False


@contextmanager
def displayed(
    log: Callable[[dict[str, Any]], None], setup: RunSetup, progress: Progress, accelerator: Accelerator, runtime: Runtime
) -> Iterator[Display]:
    """Give what shows a run while it trains, and logs each line."""
    display = Display(log, setup, progress, accelerator, runtime)
    try:
        yield display
    finally:
        display.bar.close()


class Display:
    """What a run shows while it trains: a bar on a terminal, else lines with the time left; nothing where it is quiet."""

    def __init__(
        self,
        log: Callable[[dict[str, Any]], None],
        setup: RunSetup,
        progress: Progress,
        accelerator: Accelerator,
        runtime: Runtime,
    ) -> None:
        self.write, self.config, self.runtime, self.first = log, setup.config, runtime, progress.step
        self.steps, self.place = setup.config.training.steps, runtime.place
        self.is_stored = any(task.source.stored for task in setup.tasks.values())
        self.is_warned = accelerator.device.type != "cpu" or self.place.timed  # once for runs that are alike
        self.began = self.shown = time.monotonic()
        several, self.has_lines = self.place.count > 1, not shows_progress(accelerator)
        name = f"run {self.place.number} of {self.place.count}" if several else "training"
        self.bar = tqdm(initial=self.first, total=self.steps, desc=name, disable=self.has_lines, leave=not several)

    def pace(self, step: int) -> float:
        """Return the seconds that a step has taken so far, evaluations among them."""
        return (time.monotonic() - self.began) / max(1, step - self.first)

    def stepped(self, progress: Progress) -> None:
        """Move the bar, or print a line where none was printed for long."""
        self.bar.update()
        step, now = progress.step, time.monotonic()
        is_first, silence = self.shown == self.began, now - self.shown
        if step == self.steps or now - self.began < FIRST_SECONDS:
            return
        if not self.is_warned and step - self.first >= STEPS_TO_TIME:
            self.is_warned = True
            self.show(*slow_notes(self.config, self.is_stored, step, self.pace(step)))
        if is_first or silence >= QUIET_SECONDS:
            self.shown = now
            self.bar.set_postfix_str(whole_plan(self.place, self.steps - step, self.pace(step)))
            self.show(*[f"step {step} of {self.steps}: {self.left(step)}"] * self.has_lines)

    def log(self, line: dict[str, Any]) -> None:
        """Log one line, and print it where it is an evaluation and no bar is shown."""
        self.write(line)
        if line["split"] != "dev" or not self.has_lines:
            return
        step, metric = line["step"], self.config.tasks[line["task"]].select_by
        task = f"{line['task']} " * self.config.is_joint
        score = f"{task}dev {metric} {line[metric]:.3f}" + (f", loss {line['loss']:.3f}" if "loss" in line else "")
        self.shown = time.monotonic()
        self.show(f"step {step} of {self.steps}: {score}{f'; {self.left(step)}' * (step < self.steps)}")

    def left(self, step: int) -> str:
        """Return how long the run will take from here, and its plan."""
        steps, pace = self.steps - step, self.pace(step)
        plan = whole_plan(self.place, steps, pace)
        return f"at most {duration(steps * pace)} left{f', {plan}' * bool(plan)}"

    def show(self, *lines: str) -> None:
        """Print lines above the bar."""
        if lines:
            self.bar.clear()
            print_progress(self.runtime, *lines)
            self.bar.refresh()


@contextmanager
def filling(seconds: Sequence[float], accelerator: Accelerator, show: Callable[[str], None]) -> Iterator[Callable[[float], None]]:
    """Give what is called with the seconds of each utterance whose features are there: a bar on a terminal, else lines."""
    total, done, count = sum(seconds), 0.0, 0
    began = shown = time.monotonic()

    def advance(of_one: float) -> None:
        """Count one utterance."""
        nonlocal done, count, shown
        done, count, now = done + of_one, count + 1, time.monotonic()
        bar.update(of_one)
        if bar.disable and count < len(seconds) and now - shown >= (FIRST_SECONDS if shown == began else QUIET_SECONDS):
            shown = now
            left = duration((total - done) * (now - began) / max(done, 1e-9))
            show(f"store     {count} of {len(seconds)} computed: about {left} left")

    with tqdm(total=round(total), desc="computing features", unit="s", disable=not shows_progress(accelerator)) as bar:
        yield advance


def improving_notes(config: RunConfig, progress: Progress) -> list[str]:
    """Return a note for each task whose last evaluation was its best: patience did not stop it, the steps did."""
    training = config.training
    if progress.step < training.steps or training.steps <= (EVALUATIONS_TO_JUDGE - 1) * training.eval_every:
        return []
    return [
        f"{f'{name}: ' * config.is_joint}dev {config.tasks[name].select_by} was still improving at step {step}: more steps may "
        "score higher"
        for name, (step, _) in progress.bests.items()
        if step == progress.step
    ]


def whole_plan(place: PlanPlace, steps: int, pace: float) -> str:
    """Return how long all that is left of a plan will take; of a run alone nothing."""
    if not place.left:
        return ""
    seconds = (steps + place.steps) * pace + place.seconds
    unknown = f" (and {place.unknown} that nobody has timed yet)" if place.unknown else ""
    return f"about {duration(seconds)} for the {place.left + 1 - place.unknown} runs left{unknown}"


def slow_notes(config: RunConfig, is_stored: bool, step: int, pace: float) -> list[str]:
    """Return one line about a run that takes a CPU longer than somebody who tries it will wait: what would be quicker."""
    seconds = (config.training.steps - step) * pace
    if seconds < LONG_SECONDS:
        return []
    steps = max(1, int(LONG_SECONDS / pace))
    steps -= steps % 10 ** max(0, len(str(steps)) - 2)
    trains = any(section.trainable for section in roles_of(config).values())
    store = "a frozen upstream, whose features are cached; " if trains else "" if is_stored else "cached features (--store on); "
    return [
        f"note      this run takes up to {duration(seconds)} on this CPU. Quicker: fewer steps (-o training.steps={steps}); "
        f"{store}a smaller upstream or task; a GPU"
    ]
