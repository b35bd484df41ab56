"""The sections of the report about single runs: scores, curves, layers, confusions, settings and machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.run_folder import RunFolder
from ...runs import pictures as plots
from ..layers.weights import layer_weights
from ..table import result_table
from .html import element, markdown, paragraph, picture, table, text

SHARP_CLASSES = 16  # a larger matrix is smaller as points than as lines
MAX_CLASSES = 64  # labels of more cannot be read, and take a minute to draw
WEIGHTS = {"last": "last step", "best": "best step for all tasks", "own": "its own best step"}  # of a run of several tasks
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its name in the report, its result."""

    folder: Path
    name: str
    result: Content

    @property
    def marks(self) -> tuple[str, ...]:
        """DEMO, UNTRAINED, where they apply."""
        return tuple(self.result.get("marks") or ())

    @property
    def tasks(self) -> dict[tuple[str, str], Content]:
        """What the run says of each of its tasks: (task, weights it was tested with) -> scores; equal ones are shown once."""
        several = self.result.get("tasks")
        if not isinstance(several, Mapping):
            return {(str(self.result.get("task", "")), ""): self.result}
        shared = {key: value for key, value in self.result.items() if key not in {"tasks", "notes", "best_step"}}
        contents: dict[tuple[str, str], Content] = {}
        for name, content in several.items():
            steps = {"last": None, "best": self.result.get("best_step"), "own": content.get("own_step")}
            tested = {kept: content[kept] for kept in steps if isinstance(content.get(kept), Mapping)} or {"": content}
            own = {key: value for key, value in content.items() if key not in steps}
            for place, (kept, of_kept) in enumerate(tested.items()):
                if of_kept not in [*tested.values()][:place]:
                    contents[name, kept] = {**shared, **own, "best_step": steps.get(kept), **of_kept, "task": name}
        return contents

    @property
    def first(self) -> dict[str, Content]:
        """What the run says of each of its tasks with the weights that it ended with."""
        found: dict[str, Content] = {}
        for (task, _), content in self.tasks.items():
            found.setdefault(task, content)
        return found


def scores(content: Content, weights: str) -> list[str]:
    """Return the scores of a run in one of its tasks, and of which of its weights."""
    words = [element("h4", text(f"{content['task']}, {WEIGHTS[weights]}"))] if weights else []
    return [*words, markdown(result_table(content, markdown=True))]


def curves(run: Run, drawings: Path) -> list[str]:
    """Return the loss and the metrics over the steps of a run."""
    drawn = drawings / "curves.svg"
    plots.curves_plot(RunFolder(run.folder).metrics, drawn, marks=run.marks)
    return [picture(drawn, "Learning curves")]


def layers(folders: Sequence[Path], drawings: Path, whose: str) -> list[str]:
    """Return the weights of the layers over some runs."""
    layer_weights(folders, drawings)
    return [picture(drawings / "layer-weights.png", f"Layer weights {whose}".strip())]


def confusions(content: Content, task: str, marks: Sequence[str], drawings: Path) -> list[str]:
    """Return what was taken for what, for each split."""
    found, classes = content.get("confusion") or {}, content.get("classes") or []
    drawn = []
    for split, counts in found.items():
        title = f"Confusion {task} {split}"
        if len(classes) > MAX_CLASSES:
            drawn.append(paragraph(f"{title}: left out. {len(classes)} classes do not fit on a page", "absent"))
            continue
        path = drawings / f"confusion.{'svg' if len(classes) <= SHARP_CLASSES else 'png'}"
        plots.confusion_plot(counts, classes, path, title=title, marks=marks)
        drawn.append(picture(path, title, half=True))
    return drawn


def configuration(runs: Sequence[Run]) -> list[str]:
    """Return the options of all runs, and where each differs."""
    configs = {run.name: flat(RunFolder(run.folder).read().config()) for run in runs}
    first = next(iter(configs.values()))
    shared = {key: value for key, value in first.items() if all(config.get(key) == value for config in configs.values())}
    lines = "\n".join(f"{key}: {value}" for key, value in shared.items())
    body = [element("h3", "Configuration"), element("pre", text(lines), class_="config")]
    if len(shared) < max(map(len, configs.values())):
        own = {
            name: [f"{key}: {value}" for key, value in config.items() if key not in shared] for name, config in configs.items()
        }
        body += [
            element("h4", "where runs differ"),
            table([{"run": name, "": ", ".join(options)} for name, options in own.items()]),
        ]
    return body


def flat(mapping: Content, before: str = "") -> dict[str, str]:
    """Return nested options with dotted names, as -o takes them.

    >>> flat({"optimizer": {"lr": 0.001}, "folds": []})
    {'optimizer.lr': '0.001', 'folds': '[]'}
    """
    found: dict[str, str] = {}
    for key, value in mapping.items():
        name = f"{before}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: plain(value)}
    return found


def plain(value: object) -> str:
    """Return an option's value as -o takes it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)


def environment(runs: Sequence[Run]) -> list[str]:
    """Return versions and machines, each with what it was used for."""
    rows: dict[str, dict[str, object]] = {}
    for run in runs:
        facts = {key: value for key, value in (run.result.get("environment") or {}).items() if value is not None}
        spent = {key: facts.pop(key) for key in ("seconds", "peak_memory_mb", "peak_device_memory_mb") if key in facts}
        row = rows.setdefault(json.dumps(facts, sort_keys=True), {"runs": 0, "seconds": 0.0, **facts})
        row["runs"] = int(str(row["runs"])) + 1
        row["seconds"] = round(float(str(row["seconds"])) + float(spent.pop("seconds", 0)), 1)
        row |= {key: max(int(str(row.get(key, 0))), value) for key, value in spent.items()}
    names = dict.fromkeys(name for row in rows.values() for name in row)
    machines = {f"machine {place}" if len(rows) > 1 else "all runs": row for place, row in enumerate(rows.values(), 1)}
    machine_rows = [{"": name, **{machine: row.get(name, "") for machine, row in machines.items()}} for name in names]
    return [element("h3", "Versions and machine"), table(machine_rows)]
