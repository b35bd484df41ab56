"""The sections of the report about single runs: scores, curves, layers, confusions, settings and machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.files import read_json
from ...core.run_folder import RunFolder
from ...core.text import without_folders
from ...runs import pictures as plots
from ..audit.finding import SECTIONS
from ..layers.curve import read_curves
from ..layers.explain import verdict
from ..layers.picture import NAME, draw, is_exact
from ..layers.weights import layer_weights
from ..table import result_table, run_tables
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
    def chosen(self) -> dict[str, Content]:
        """What the run says of each of its tasks with the weights that its recipe chose."""
        found = self.first
        return found | {task: content for (task, weights), content in self.tasks.items() if weights == "best"}

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
    return [*words, markdown(unmarked(result_table(content, markdown=True), content))]


def summary(content: Content) -> list[str]:
    """Return the tables of a plan, of several tasks one for each."""
    return [markdown(unmarked(run_tables(content, markdown=True), content))]


def unmarked(table_text: str, content: Content) -> str:
    """Return tables without the lines of marks: those stand at the top of the page."""
    marks = " ".join(content.get("marks") or ())
    return "\n".join(line for line in table_text.splitlines() if not marks or line != marks)


def audited(folder: Path) -> list[str]:
    """Return what an audit of a result found, a line for each control; nothing where it was not audited."""
    path = RunFolder(folder).audit
    if not path.is_file():
        return []
    content = read_json(path, ("findings", "about"))
    body = [element("h3", "Audit"), paragraph(without_folders(str(content["about"])), "soft")]
    for section, title in SECTIONS.items():
        lines = [one for one in content["findings"] if one["section"] == section]
        items = [element("li", element("strong", text(one["line"])) if one["warns"] else text(one["line"])) for one in lines]
        body += [element("h4", text(title)), element("ul", *items)] if lines else []
    return body


def curves(run: Run, drawings: Path) -> list[str]:
    """Return the loss and the metrics over the steps of a run; one that was solved has none."""
    if "exact" in run.result:
        return []
    drawn, contents = drawings / "curves.svg", run.chosen
    corpora = ", ".join(dict.fromkeys(str(content.get("corpus", "")) for content in contents.values()))
    title = plots.run_title("Learning curves", " + ".join(contents), str(run.result.get("upstream", "")), corpora)
    step, chance = run.result.get("best_step"), plots.chance_levels(contents)
    plots.curves_plot(RunFolder(run.folder).metrics, drawn, title=title, chosen=step, chance=chance, marks=run.marks)
    return [picture(drawn, title)]


def layers(folders: Sequence[Path], drawings: Path, whose: str) -> list[str]:
    """Return the weights of the layers over some runs, where no curve says more."""
    if not any(map(is_exact, folders)):
        layer_weights(folders, drawings)
        return [picture(drawings / "layer-weights.png", f"Layer weights {whose}".strip())]
    return []


def layer_curve(folder: Path, drawings: Path) -> list[str]:
    """Return what each layer of a run or plan knows alone, and the verdict in words; nothing where there is no curve."""
    if not is_exact(folder):
        return []
    found = read_curves([folder])
    draw(found, None, drawings)
    words = [paragraph(line, "soft") for curve in found for line in verdict(curve)]
    return [picture(drawings / f"{NAME}.png", "The score of each layer alone"), *words]


def confusions(content: Content, task: str, marks: Sequence[str], drawings: Path, *, dev: bool) -> list[str]:
    """Return what was taken for what: on dev, or on each other split."""
    found, about = content.get("confusion") or {}, (task, str(content.get("upstream", "")), str(content.get("corpus", "")))
    drawn = []
    for split in [split for split in found if (split == "dev") == dev]:
        scored, metric = (content.get("scores") or {}).get(split) or {}, str(content.get("select_by") or "")
        title = plots.run_title(f"Confusion, {split}", *about, metric, scored.get(metric))
        drawn.append(confusion(found[split], content.get("classes") or [], title, marks, drawings))
    return drawn


def pooled_confusions(runs: Sequence[Run], drawings: Path) -> list[str]:
    """Return what was taken for what over all runs of a plan, on each split but dev: the sum of the runs' counts."""
    matrices: dict[tuple[str, str, tuple[str, ...]], list[list[list[int]]]] = {}
    for run in runs:
        for task, content in run.chosen.items():
            for split, counts in (content.get("confusion") or {}).items():
                if split != "dev":
                    matrices.setdefault((task, split, tuple(content["classes"])), []).append(counts)
    drawn = []
    for (task, split, classes), several in matrices.items():
        counts = np.sum(several, axis=0).tolist()
        first = runs[0].chosen[task]
        about = f"Confusion of {len(runs)} runs, {split}", task, str(first.get("upstream", "")), str(first.get("corpus", ""))
        marks = tuple(dict.fromkeys(mark for run in runs for mark in run.marks))
        drawn.append(confusion(counts, classes, plots.run_title(*about), marks, drawings))
    return drawn


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str], title: str, marks: Sequence[str], drawings: Path) -> str:
    """Return one matrix, or a line where it is too large for a page."""
    if len(classes) > MAX_CLASSES:
        return paragraph(f"{title}: left out. {len(classes)} classes do not fit on a page", "absent")
    path = drawings / f"confusion.{'svg' if len(classes) <= SHARP_CLASSES else 'png'}"
    plots.confusion_plot(counts, classes, path, title=title, marks=marks)
    return picture(path, title, half=True)


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
    """Return an option's value as -o takes it, of a path its end."""
    if isinstance(value, str) and value:
        return without_folders(value)
    return json.dumps(value, ensure_ascii=False, default=str)


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
