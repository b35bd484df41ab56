"""Recipes of papers: named parts that share a base, and the tables and figures that their runs fill."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..core.errors import UserError, nearest
from ..core.options import merge, read_yaml
from ..downstream.load import load_task
from ..runs.config.recipes import find_recipe
from ..runs.config.schema import RunConfig


@dataclass(frozen=True)
class Column:
    """One column of a paper's table: a metric on a split, or another number of result.json."""

    header: str = ""
    of: str = ""  # which of a row's `parts`, where it has several
    split: str = "test"
    metric: str = ""
    field: str = ""  # keys of result.json joined by dots; a mapping there is summed (`weights`: those of all upstreams)
    unit: Literal["fraction", "percent", "millions"] = "fraction"


@dataclass(frozen=True)
class Row:
    """One row of a paper's table: whose runs fill it, and what the paper says."""

    label: list[str] = field(default_factory=list)
    part: str = ""
    parts: dict[str, str] = field(default_factory=dict)  # a column's `of` -> part, where one row needs several
    paper: list[float | None] = field(default_factory=list)  # by column, in the column's unit; empty: it has no such row

    @property
    def sources(self) -> dict[str, str]:
        """The row's parts by the word that columns call them."""
        return self.parts or {"": self.part}


@dataclass(frozen=True)
class Table:
    """A table as the paper has it."""

    caption: str = ""
    labels: list[str] = field(default_factory=lambda: ["Method"])  # headers of what stands on the left
    columns: list[Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """A figure as the paper has it; `analysis/paper.py` draws each kind."""

    kind: Literal["layer-weights", "gain", "geometry"] = "layer-weights"
    caption: str = ""
    parts: dict[str, str] = field(default_factory=dict)  # label -> part
    groups: dict[str, dict[str, str]] = field(default_factory=dict)  # of gain: group -> bar -> part, the first: without
    metric: str = ""  # of gain
    points: Literal["run", "seed"] = "run"  # of geometry: a point is a run, or the mean of a seed's folds
    splits: list[str] = field(default_factory=lambda: ["test"])  # split, or its label and split as `seen=test1`


@dataclass(frozen=True)
class Scope:
    """The `plan:` section of a part: what is not an option of its runs."""

    folds: Any = None  # all, or a list; None: the recipe's
    seeds: list[int] | None = None
    data: str = ""  # the word by which --data brings its corpus; "": the corpus' name
    recipe: str = ""  # a run's recipe that is below the part: superb/pr


@dataclass(frozen=True)
class Recipe:
    """A paper's experiments: what all parts share, and what is different in each."""

    paper: str = ""
    like: str = ""  # another recipe, of which this one holds the differences
    base: dict[str, Any] = field(default_factory=dict)
    folds: Any = None  # all, or a list; None: as the runs' recipe says
    seeds: list[int] | None = None
    releases: dict[str, str] = field(default_factory=dict)  # corpus -> the release that the paper's values are of
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


def is_paper(mapping: Mapping[str, Any]) -> bool:
    """Tell a paper's recipe from a run's."""
    return "parts" in mapping or "like" in mapping


def read_recipe(path: Path, above: Sequence[Path] = ()) -> dict[str, Any]:
    """Return a recipe's mapping, the one that it is `like` below it; a part that is null there is left out."""
    mapping = read_yaml(path)
    if not mapping.get("like"):
        return mapping
    if path in above:
        raise UserError(f"Expected `like` to name another recipe in '{path}', found a circle. Leave one of them out.")
    below = read_recipe(find_recipe(str(mapping["like"])), (*above, path))
    merged = merge({key: value for key, value in below.items() if key != "like"}, mapping)
    for section in ("parts", "tables", "figures"):
        if isinstance(merged.get(section), Mapping):
            merged[section] = {name: value for name, value in merged[section].items() if value is not None}
    return merged


Checked = Callable[[str, str, str], None]  # (place, part, metric)


def check_one(
    parts: Collection[str], configs: Mapping[str, RunConfig], errors: list[str], where: str, part: str, metric: str
) -> None:
    """Add an error for a part that is not there, or one whose task has no such metric."""
    if part not in parts:
        errors.append(f"Unknown part '{part}' in {where}.{nearest(part, parts)} Known: {', '.join(parts)}.")
    elif metric and part in configs:  # the config of every other part has an error of its own
        known = load_task(configs[part].only.task).question(configs[part].only.expert).metrics
        if metric not in known:
            close = nearest(metric, known)
            errors.append(f"Part '{part}' has no metric '{metric}' for {where}.{close} Known: {', '.join(known)}.")


def check_recipe(recipe: Recipe, configs: Mapping[str, RunConfig], errors: list[str]) -> None:
    """Add an error for everything in tables and figures that no run could fill or draw."""
    check: Checked = partial(check_one, recipe.parts, configs, errors)
    check_tables(recipe, check, errors)
    check_figures(recipe, check, errors)


def check_tables(recipe: Recipe, check: Checked, errors: list[str]) -> None:
    """Add an error for every cell of a table that no run could fill."""
    for name, table in recipe.tables.items():
        headers = [*table.labels, *(column.header for column in table.columns)]
        for twin in {header for header in headers if headers.count(header) > 1}:
            errors.append(f"Expected different headers in tables.{name}, found '{twin}' twice. Say what is different.")
        for column in table.columns:
            if bool(column.metric) == bool(column.field):
                errors.append(f"Expected a metric or a field in column '{column.header}' of tables.{name}, found both or none.")
        for number, row in enumerate(table.rows):
            where = f"tables.{name}.rows[{number}]"
            if len(row.label) != len(table.labels):
                errors.append(f"Expected {len(table.labels)} labels in {where}, found {len(row.label)}: {row.label}.")
            if row.paper and len(row.paper) != len(table.columns):
                found = f"{len(table.columns)} values of the paper in {where} (one for each column), found {len(row.paper)}"
                errors.append(f"Expected {found}. Write null where it has none.")
            check_row(table, row, where, check, errors)


def check_row(table: Table, row: Row, where: str, check: Checked, errors: list[str]) -> None:
    """Add an error for every column that no part of a row fills."""
    if bool(row.part) == bool(row.parts):
        errors.append(f"Expected `part` or `parts` in {where}, found both or none. Write `part: NAME`.")
        return
    for column in table.columns:
        if column.of not in row.sources:
            errors.append(f"Expected '{column.of}' in `parts` of {where} (column '{column.header}'), found {[*row.sources]}.")
        else:
            check(where, row.sources[column.of], column.metric)


def check_figures(recipe: Recipe, check: Checked, errors: list[str]) -> None:
    """Add an error for everything in a figure that no run could draw."""
    for name, figure in recipe.figures.items():
        where = f"figures.{name}"
        if figure.kind == "gain" and not (figure.metric and figure.groups and not figure.parts):
            errors.append(
                f"Expected `groups` and a `metric` in {where} (gain), found {'no metric' if figure.groups else 'none'}."
            )
        if figure.kind != "gain" and (figure.groups or not figure.parts):
            errors.append(
                f"Expected `parts: {{label: part}}` in {where} ({figure.kind}), found {'groups' if figure.groups else 'none'}."
            )
        for part in (*figure.parts.values(), *(part for group in figure.groups.values() for part in group.values())):
            check(where, part, figure.metric)
