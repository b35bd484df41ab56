"""Several tasks together, from Python: what `headwater mtl` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.relations.joint_tables import report_table
from ..core.errors import UserError
from ..core.files import read_json
from ..core.frames import data_frame, html_text
from ..plans.execute import run_parts
from ..plans.joint_values import joint_values, without_idle_cosines
from ..plans.naming import place_of_scenario
from ..plans.scenario import plan_scenario
from ..runs.evaluation import KEPT
from ..runs.runtime import Runtime
from .progress import shown
from .run import Run
from .train import named, numbers, typed_options

if TYPE_CHECKING:
    from pandas import DataFrame


class JointPlan:
    """The runs of several tasks together: each task alone, all of them, all but one; which task helps which.

    It stands for its folder wherever one is expected: `headwater.plot_relations(plan)`.
    """

    def __init__(self, folder: Path, runs: Mapping[str, Run], table: str) -> None:
        self.folder, self.runs, self.table = folder, runs, table

    @property
    def scores(self) -> DataFrame:
        """A row for each task of each run, as the last step and the chosen one score."""
        rows = []
        for name, run in self.runs.items():
            kept = {(task, which): run["tasks"][task][which] for task in run.get("tasks", ()) for which in KEPT}
            for (task, which), facts in (kept or {(run.get("task"), "best"): run}).items():
                base = {"run": name, "task": task, "weights": which}
                rows += [{**base, "split": split, **found} for split, found in facts["scores"].items()]
        return data_frame(rows)

    @property
    def relations(self) -> DataFrame:
        """A row for each pair of tasks that is drawn: the share by which `target` changes without `source` (below 0: worse)."""
        path = self.folder / "relations.json"
        content = read_json(path) if path.is_file() else {"improvement": [], "hurt": []}
        rows = []
        for edge in (*content["improvement"], *content["hurt"]):
            low, high = edge.get("interval") or (None, None)
            rows.append({"source": edge["from"], "target": edge["to"], "change": edge["change"], "low": low, "high": high})
        return data_frame(rows, ("source", "target", "change", "low", "high"))

    def __fspath__(self) -> str:
        """Return the folder: a plan is a path."""
        return str(self.folder)

    def __repr__(self) -> str:
        """Return the table of all runs, and which task helps which."""
        return self.table

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_text(self.table)


def mtl(
    tasks: Sequence[str],
    upstream: str | None = None,
    *,
    scenario: str = "all",
    seeds: Sequence[int] = (1,),
    folder: str | Path | None = None,
    name: str = "",
    text_upstream: str | None = None,
    data: Mapping[str, str | Path] | None = None,
    demo: bool = False,
    recipe: str = "",
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    quiet: bool | None = None,
) -> JointPlan:
    """Train several tasks together on one upstream, and return the plan: its table, and which task helps which.

    `scenario` is `single` (each task alone), `all` (together), `leave-one-out`, `relations` (both of these), `transfer`, or
    `paper` (everything). `data` says where a corpus or the corpus of a task lies: `{"ks": "speech_commands"}`. No tasks: those of
    the recipe. The same call goes on where it was stopped.

    >>> plan = mtl(["emotion", "ks"], "hubert_mini", demo=True, scenario="relations")  # doctest: +SKIP
    >>> plan.relations  # doctest: +SKIP
    """
    if folder is not None and name:
        raise UserError("Expected one folder for the plan, found both folder and name. Leave one out.")
    if isinstance(tasks, str):
        raise UserError(f"Expected a list of tasks, found '{tasks}'. Write headwater.mtl([{tasks!r}, …], …).")
    typed = typed_options(options or {})
    upstreams = {"upstream": upstream, "text_upstream": text_upstream}
    sections = {key: {"name": named(word, "upstream") if word else None} for key, word in upstreams.items()}
    places = {key: str(value) for key, value in (data or {}).items()}
    values = joint_values(recipe or None, [named(task, "task") for task in tasks], sections, [typed], data=places, demo=demo)
    plan = plan_scenario(values if recipe else without_idle_cosines(values, [typed], scenario), scenario, numbers(seeds, "seeds"))
    place = place_of_scenario(plan, name) if folder is None else Path(folder).expanduser()
    with shown(quiet) as is_quiet:
        results, _ = run_parts(plan.parts, place, Runtime(device, is_quiet))
    runs = {part.name: Run(place / part.name, results[part.name]) for part in plan.parts}
    return JointPlan(place, runs, report_table(plan, place).strip())
