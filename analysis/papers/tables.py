"""A paper's tables from finished runs: ours beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core.figures import marked_title, save_csv
from ...core.files import write_text
from ...downstream.metrics import mean_and_spread
from ...plans.execute import in_one_line
from ...plans.inventory import Inventory
from ...plans.paper import PaperPlan
from ...plans.recipe import Column, Row, Table
from ..table import number, render

Missing = Mapping[str, str]  # part -> why it has no runs
SHOWN: dict[str, Callable[[float | None], str]] = {
    "fraction": number,
    "percent": lambda value: "-" if value is None else f"{value:.1f} %",
    "millions": lambda value: "-" if value is None else f"{value:.3g}",
}
SCALE = {"fraction": 1.0, "percent": 100.0, "millions": 1e-6}  # from result.json to what the paper prints


@dataclass(frozen=True)
class Finished:
    """The results of a part's finished runs."""

    folders: tuple[Path, ...]
    results: tuple[Mapping[str, Any], ...]
    planned: int  # runs of the plan
    marks: tuple[str, ...]

    @property
    def runs(self) -> str:
        """How many runs stand behind a number, and of how many where some are missing."""
        return str(self.planned) if len(self.results) == self.planned else f"{len(self.results)} of {self.planned}"


def finished_runs(plan: PaperPlan, name: str, found: Inventory) -> Finished:
    """Return the runs of a part that are done, with the options and from the starts that the recipe has now."""
    runs, config = plan.reported(name), plan.configs[name]
    done = {found.folder / run.name: found.results[run.name] for run in runs if run.name in found.results}
    marks = [*["DEMO"] * config.only.corpus.demo, *(mark for result in done.values() for mark in result["marks"])]
    return Finished(tuple(done), tuple(done.values()), len(runs), tuple(dict.fromkeys(marks)))


def why_missing(plan: PaperPlan, name: str, found: Inventory, missing: Missing) -> str:
    """Return in one line why a part, or one of its runs, is not there."""
    foreign = next((found.foreign[run.name] for run in plan.runs[name] if run.name in found.foreign), "not run yet")
    return in_one_line(missing.get(name, foreign).splitlines())


def value_of(result: Mapping[str, Any], column: Column) -> float | None:
    """Return the number of a run that stands in a column, as the paper prints it; None: it has none."""
    found: Any = result["scores"].get(column.split, {}).get(column.metric) if column.metric else result
    for key in column.field.split(".") if column.field else ():
        found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, Mapping):  # of each upstream
        found = sum(found.values())
    return None if found is None else float(found) * SCALE[column.unit]


def write_table(plan: PaperPlan, name: str, found: Inventory, missing: Missing) -> str:
    """Write a table as markdown and csv, and return it for a terminal, with the reasons of its dashes below."""
    table = plan.recipe.tables[name]
    done = {part: finished_runs(plan, part, found) for row in table.rows for part in row.sources.values()}
    heading_line = f"{name}: {plan.filled(table.caption)}{spread_of(plan, table)}"
    caption = marked_title(heading_line, list(dict.fromkeys(mark for part in done.values() for mark in part.marks)))
    table = replace(table, rows=[replace(row, label=[plan.filled(word) for word in row.label]) for row in table.rows])
    rows = [table_row(table, row, done) for row in table.rows]
    gaps = [part for part, of_part in done.items() if len(of_part.results) < of_part.planned]
    notes = [f"- {part}: {why_missing(plan, part, found, missing)}" for part in gaps]
    notes += [*other_releases(plan, done), *published(plan, done)]
    lines = [caption, "", render(rows, markdown=True), *[""] * bool(notes), *notes]
    write_text(found.folder / f"{name}.md", "\n".join(lines) + "\n")
    save_numbers(table, done, found.folder / f"{name}.csv")
    return "\n".join([caption, render(rows), *notes])


def other_releases(plan: PaperPlan, done: Mapping[str, Finished]) -> list[str]:
    """Return a note for each release of a corpus that is not the one which the paper's values are of."""
    parts: dict[tuple[str, str], list[str]] = {}
    for part, of_part in done.items():
        for result in (result for result in of_part.results if "DEMO" not in result["marks"]):
            corpus = result["corpus"]
            release = result.get("release", "unknown")
            if corpus in plan.recipe.releases and release != plan.recipe.releases[corpus]:
                parts.setdefault((corpus, release), []).append(part)
    found = {key: "an unknown release" if key[1] == "unknown" else f"release {key[1]}" for key in parts}
    return [
        f"- {', '.join(dict.fromkeys(names))}: {found[corpus, release]} of {corpus}; "
        f"the paper's values are of release {plan.recipe.releases[corpus]}, on other utterances"
        for (corpus, release), names in parts.items()
    ]


def published(plan: PaperPlan, done: Mapping[str, Finished]) -> list[str]:
    """Return the published values of the parts' own recipes, where upstream, corpus and protocol are those of the run."""
    found = []
    for part in (part for part, of_part in done.items() if of_part.results and not of_part.marks):
        config = plan.configs[part]
        here = (config.upstream.name, config.only.corpus.name, config.only.corpus.protocol)
        found += [
            f"- {part}: published {one.metric} {one.value:g} ({one.source})"
            for one in config.reference
            if (one.upstream, one.corpus, one.protocol) == here
        ]
    return found


def spread_of(plan: PaperPlan, table: Table) -> str:
    """Return over what the table's spreads are, in words for its caption."""
    over: dict[str, list[str]] = {}  # words -> the columns' `of`
    for of, part in ((of, part) for row in table.rows for of, part in row.sources.items()):
        runs = plan.reported(part)
        counts = {"fold": len({run.fold for run in runs}), "seed": len({run.seed for run in runs})}
        label = " × ".join(f"{count} {noun}s" for noun, count in counts.items() if count > 1)
        over.setdefault(label, []).append(of)
    spreads = {label: dict.fromkeys(filter(None, of)) for label, of in over.items() if label}
    if not spreads:
        return ""
    parts = [label + (f" ({', '.join(of)})" if len(over) > 1 and of else "") for label, of in spreads.items()]
    return f"; ± standard deviation over {', '.join(parts)}"


def marks_of(row: Row, done: Mapping[str, Finished]) -> tuple[str, ...]:
    """Return the marks of the runs behind a row: no value of a paper stands beside them."""
    return tuple(dict.fromkeys(mark for part in row.sources.values() for mark in done[part].marks))


def table_row(table: Table, row: Row, done: Mapping[str, Finished]) -> dict[str, str]:
    """Return a row's cells: ours as mean ± spread over its runs, and the paper's where they may stand beside them."""
    cells = dict(zip(table.labels, row.label, strict=True))
    marks, with_paper = marks_of(row, done), any(each.paper and not marks_of(each, done) for each in table.rows)
    for column, printed in zip(table.columns, row.paper or [None] * len(table.columns), strict=True):
        shown = SHOWN[column.unit]
        mean, deviation = ours(done[row.sources[column.of]], column)
        is_count = bool(column.field) and not deviation  # alike in all runs
        own = shown(mean) if deviation is None or is_count else f"{shown(mean)} ± {shown(deviation)}"
        cells[column.header] = own
        if with_paper:
            cells[f"{column.header} (paper)"] = "" if marks or printed is None else shown(printed)
    cells["runs"] = ", ".join(dict.fromkeys(done[part].runs for part in row.sources.values()))
    return cells | ({"marks": " ".join(marks)} if any(marks_of(each, done) for each in table.rows) else {})


def ours(finished: Finished, column: Column) -> tuple[float | None, float | None]:
    """Return mean and spread of a column over the runs that have it."""
    values = [value for value in (value_of(result, column) for result in finished.results) if value is not None]
    if len({*values}) == 1:  # a rounded mean would leave a spread of 1e-17
        return values[0], None if len(values) == 1 else 0.0
    return mean_and_spread(values) if values else (None, None)


def save_numbers(table: Table, done: Mapping[str, Finished], path: Path) -> None:
    """Write a table's numbers with all their digits: of each column mean, spread, runs and the paper's."""
    kinds = ("", " spread", " runs", " paper")
    header = [*table.labels, *(column.header + kind for column in table.columns for kind in kinds), "marks"]
    rows = []
    for row in table.rows:
        cells: list[Any] = list(row.label)
        marks = marks_of(row, done)
        for column, printed in zip(table.columns, row.paper or [None] * len(table.columns), strict=True):
            finished = done[row.sources[column.of]]
            beside = None if marks else printed
            cells += ["" if cell is None else cell for cell in (*ours(finished, column), len(finished.results), beside)]
        rows.append([*cells, " ".join(marks)])
    save_csv(path, header, rows, ())
