"""The log of a run: metrics.jsonl, TensorBoard, and a line for each evaluation."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..core.files import plain_disk_errors, write_text
from ..core.run_folder import RunFolder
from ..training.model import Model
from ..training.step import Progress
from .config.schema import RunConfig


@contextmanager
def logged(folder: Path, progress: Progress, accelerator: Accelerator, model: Model) -> Iterator[Any]:
    """Give a function that logs a line to metrics.jsonl and TensorBoard, both cut at the step where the run stands."""
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
            for key, value in scalars(line, model).items():
                writer.add_scalar(key, value, line["step"])

    try:
        yield log
    finally:
        with uninterrupted():
            writer.close()


def scalars(line: Mapping[str, Any], model: Model) -> dict[str, float]:
    """Return what TensorBoard gets of a logged line; with each evaluation the layer weights too."""
    task = line["task"]
    values = {f"{task}/{line['split']}/{key}": value for key, value in line.items() if isinstance(value, float)}
    for role in model.expert(task).roles if line["split"] == "dev" else ():
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


def printing(
    log: Callable[[dict[str, Any]], None], config: RunConfig, first: int, show: Callable[..., None]
) -> Callable[..., None]:
    """Return a log that also prints each evaluation with the time left, for a job's output, where no bar is shown."""
    began = time.monotonic()

    def log_and_show(line: dict[str, Any]) -> None:
        """Log one line, and print it where it is an evaluation."""
        log(line)
        if line["split"] == "dev":
            step, steps, metric = line["step"], config.training.steps, config.tasks[line["task"]].select_by
            left = (steps - step) * (time.monotonic() - began) / max(1, step - first) / 60
            task = f"{line['task']} " * config.is_joint
            score = f"{task}dev {metric} {line[metric]:.3f}, loss {line['loss']:.3f}"
            show(f"step {step} of {steps}: {score}; at most {left:.0f} min left")

    return log_and_show
