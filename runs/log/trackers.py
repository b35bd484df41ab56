"""Trackers beside TensorBoard: W&B, MLflow and what else Accelerate knows, each by Accelerate's own class."""

from __future__ import annotations

import csv
import io
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from accelerate.utils import LoggerType

from ...core.errors import UserError, first_line, nearest
from ...core.files import read_json, write_json
from ...core.run_folder import RunFolder
from ..config.schema import RunConfig, to_mapping
from ..prepare import RunSetup
from ..runtime import Runtime, print_progress

ALWAYS = LoggerType.TENSORBOARD.value
PROJECT = "headwater"  # where the tracker's own environment variable names no other
PROJECT_OF = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME", "trackio": "TRACKIO_PROJECT"}
_MODULES = {"clearml": "clearml", "comet_ml": "comet_ml"}  # tracker -> its package, where it is not called so
_COLUMNS = ["task", "weights", "split", "metric", "value", "low", "high"]
_LONGEST = 500  # characters of an option that every tracker takes
_ADVICE = {
    "wandb": "Run `wandb login`, or set WANDB_MODE=offline and `wandb sync` later",
    "mlflow": (
        "Check MLFLOW_TRACKING_URI: a server, sqlite:///mlflow.db (needs the whole mlflow), or file:./mlruns with "
        "MLFLOW_ALLOW_FILE_STORE=true"
    ),
}


def kinds() -> list[str]:
    """Return the trackers that there are; TensorBoard needs no naming."""
    return sorted({*map(str, LOGGER_TYPE_TO_CLASS)} - {ALWAYS})


def named(config: RunConfig) -> list[str]:
    """Return the trackers that a run names."""
    return [word.strip() for word in config.track.split(",") if word.strip()]


def refuse_unknown(config: RunConfig) -> None:
    """Refuse a tracker that nobody knows, or whose package is not installed, before anything is computed."""
    for name in named(config):
        if name not in kinds():
            hint = "TensorBoard is always written" if name == ALWAYS else nearest(name, kinds()).strip()
            raise UserError(f"Expected trackers in track (there are {', '.join(kinds())}), found '{name}'. {hint}".rstrip())
        if find_spec(_MODULES.get(name, name)) is None:
            package = {"mlflow": "mlflow-skinny"}.get(name, name.replace("_", "-"))
            raise UserError(f"Expected the package of track={name}, found none. Run: pip install {package}")


@dataclass
class Trackers:
    """The trackers of one run. One that fails on the way is given up with a line: it costs nobody a run."""

    tell: Callable[[str], None]
    live: dict[str, GeneralTracker] = field(default_factory=dict)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers of one step."""
        self.each(lambda tracker: tracker.log(dict(values), step=step))

    def end(self, folder: Path, result: Mapping[str, Any]) -> None:
        """Log what the run came to: its scores as numbers (to TensorBoard, too) and as a table with intervals, its pictures."""
        from torch.utils.tensorboard import SummaryWriter

        rows = scores_of(result)
        final = {f"{kept}/{task}/{split}/{metric}": value for task, kept, split, metric, value, *_ in rows if value is not None}
        with SummaryWriter(str(RunFolder(folder).tensorboard)) as writer:
            for name, value in final.items():
                writer.add_scalar(name, value, int(result["steps"]))
        pictures = sorted(RunFolder(folder).plots.glob("*.png"))
        self.each(lambda tracker: leave(tracker, final, rows, pictures, int(result["steps"])))

    def close(self, *, is_whole: bool) -> None:
        """End every tracker's run; one that broke off is marked so where the tracker has a word for it."""
        self.each(lambda tracker: tracker.finish() if is_whole else break_off(tracker))

    def each(self, act: Callable[[GeneralTracker], Any]) -> None:
        """Let every tracker act."""
        for name, tracker in [*self.live.items()]:
            try:
                act(tracker)
            except Exception as problem:  # another's package, a server, a disk: whatever it is, the run goes on
                del self.live[name]
                self.tell(f"note      {name} is given up for this run, which goes on ({first_line(problem)})")
                with suppress(Exception):
                    break_off(tracker)


@contextmanager
def followed(folder: Path, setup: RunSetup, accelerator: Accelerator, runtime: Runtime) -> Iterator[Trackers]:
    """Give the trackers that follow a run; one that was followed before is gone on with."""
    trackers = Trackers(lambda line: print_progress(runtime, line))
    if not accelerator.is_main_process or not named(setup.config):
        yield trackers
        return
    place = RunFolder(folder).trackers
    ids = read_json(place) if place.is_file() else {}
    for name in named(setup.config):
        try:
            trackers.live[name], ids[name] = start(name, folder, ids.get(name), setup, runtime)
        except Exception as problem:
            trackers.close(is_whole=False)
            advice = _ADVICE.get(name, f"See the documentation of {name}")
            raise UserError(
                f"Expected to start track={name}, found: {first_line(problem).rstrip('.')}. {advice}, or leave track out."
            ) from None
    write_json(place, ids)
    is_whole = False
    try:
        yield trackers
        is_whole = True
    finally:
        trackers.close(is_whole=is_whole)


def start(name: str, folder: Path, known: str | None, setup: RunSetup, runtime: Runtime) -> tuple[GeneralTracker, str]:
    """Start one tracker, and return it with the id by which a resumed run finds its own again."""
    project = os.environ.get(PROJECT_OF.get(name, ""), PROJECT)
    place = folder.resolve()
    plan = Path(runtime.plan).resolve() if runtime.plan else None
    title = place.relative_to(plan).as_posix() if plan and place.is_relative_to(plan) else place.name
    marks, group = [*setup.marks], plan.name if plan else None
    kind: Any = LOGGER_TYPE_TO_CLASS[name]
    own = known or uuid.uuid4().hex[:12]
    if name == "wandb":
        from wandb import Settings

        quiet = Settings(console="off", silent=runtime.quiet)
        settings = {"id": own, "resume": "allow", "dir": str(place), "settings": quiet}
        tracker = kind(project, name=title, group=group, tags=marks, **settings)
    elif name == "mlflow":
        tracker = kind(experiment_name=project, run_id=known, run_name=title)
    elif name == "trackio":
        tracker = kind(project, name=title, group=group, resume="allow")
    else:
        tracker = kind(project, str(place)) if kind.requires_logging_directory else kind(project)
    tracker.start()
    if name == "mlflow":
        import mlflow

        own = tracker.tracker.info.run_id
        mlflow.set_tags({"marks": ", ".join(marks), "plan": group or ""})  # tags given at its start would be the experiment's
    if not known:
        about = {"folder": title, "plan": group or "", "marks": ", ".join(marks)}
        tracker.store_init_configuration({**about, **flat(to_mapping(setup.config))})
    return tracker, own


def flat(mapping: Mapping[str, Any], before: str = "") -> dict[str, str | int | float | bool]:
    """Return a config with one value for each dotted name; a list is written as text."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in mapping.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, (bool, int, float)) else str(value)[:_LONGEST]
    return found


def scores_of(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return a result's scores, a row for each: task, weights, split, metric, value, and the ends of its interval."""
    found = {result["task"]: {"best": result}} if "scores" in result else result["tasks"]
    rows = []
    for task, kept in found.items():
        for weights in (name for name in ("best", "last", "own") if name in kept):
            for split, scores in kept[weights].get("scores", {}).items():
                intervals = kept[weights].get("intervals", {}).get(split, {})
                for metric, value in scores.items():
                    rows.append([task, weights, split, metric, value, *(intervals.get(metric) or (None, None))])
    return rows


def leave(tracker: GeneralTracker, final: Mapping[str, float], rows: list[list[Any]], pictures: list[Path], step: int) -> None:
    """Leave scores, table and pictures with one tracker, by what it has for each."""
    tracker.log(dict(final), step=step)
    if hasattr(tracker, "log_table"):
        tracker.log_table("scores", columns=_COLUMNS, data=rows, step=step)
    if hasattr(tracker, "log_images"):
        tracker.log_images({picture.stem: [pixels(picture)] for picture in pictures}, step=step)
    if tracker.name == "mlflow":
        import mlflow

        mlflow.log_text(as_csv(rows), "scores.csv")
        for picture in pictures:
            tracker.log_artifact(str(picture), picture.parent.name)


def as_csv(rows: list[list[Any]]) -> str:
    """Return the table of scores as text."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_COLUMNS, *rows])
    return buffer.getvalue()


def pixels(picture: Path) -> Any:
    """Return a picture as an array."""
    import numpy as np
    from PIL import Image

    with Image.open(picture) as opened:
        return np.asarray(opened.convert("RGB"))


def break_off(tracker: GeneralTracker) -> None:
    """End the run of one tracker as one that did not come to its end."""
    if tracker.name == "wandb":
        tracker.tracker.finish(exit_code=1)
    elif tracker.name == "mlflow":
        import mlflow

        mlflow.end_run("FAILED")
    else:
        tracker.finish()
