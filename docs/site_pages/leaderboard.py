"""The leaderboard: each set and task, each upstream, with intervals; what cannot be told from the best is drawn as a tie."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from headwater.downstream.load import load_task

RESULTS = Path(__file__).parents[2] / "results"
UNKNOWN = {"licence": "not known", "use": "unknown"}
USES = {"": "all", "open": "any use", "research": "research alone", "unknown": "not known"}
INTRODUCTION = """\
# Leaderboard

What at least two upstreams share in `results/*.json`: the same set, task, head and protocol. Each has its 95 %
interval over speakers, and the seconds of its head. How they came about, and every command: [results](../results.md).

- **Best**, and every upstream whose interval overlaps the best one's: they are drawn alike, as a tie. Do not rank them.
- A number without an interval comes from a set without speakers, or with fewer than eight: it is not ranked.
- Overlapping intervals are a cautious rule. [`headwater compare`](../comparing.md) tests two systems on the same utterances,
  and can tell more of them apart.
- The sets are small, and parts of what is published: the numbers compare upstreams, and stand beside no published value.
- The seconds were measured beside other jobs: they give an order of magnitude.
"""


@dataclass(frozen=True)
class Cell:
    """One upstream's number on one set."""

    upstream: str
    value: float
    interval: tuple[float, float] | None
    seconds: float


@dataclass(frozen=True)
class Row:
    """One set and task under one head."""

    set: str
    about: str
    task: str
    head: str
    metric: str
    cells: tuple[Cell, ...]


def page() -> str:
    """Return the page of the leaderboard."""
    licences = yaml.safe_load((RESULTS / "licences.yaml").read_text(encoding="utf-8"))
    kept = {name for name, licence in licences["upstreams"].items() if licence["use"] == "none"}
    rows = rows_of([json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"), reverse=True)], kept)
    return "\n".join([INTRODUCTION, "```{raw} html", *html_of(rows, licences), "```", ""])


def rows_of(files: Iterable[Any], without: Collection[str] = ()) -> list[Row]:
    """Return what at least two upstreams share, in the order of the files; the first number of an upstream counts."""
    groups: dict[tuple[str, str, str, str, str], dict[str, Cell]] = {}
    for result in (result for file in files for result in numbers_of(file)):
        key = result["set"], result["about"], result["task"], result["head"], result["metric"]
        upstream = re.sub(r" [0-9a-f]{8}$", "", result["upstream"])  # the hash of weights that have a name too
        interval = result["interval"] and (float(result["interval"][0]), float(result["interval"][1]))
        if upstream not in without:
            groups.setdefault(key, {}).setdefault(upstream, Cell(upstream, result["value"], interval, result["seconds"]))
    return [Row(*key, tuple(cells.values())) for key, cells in groups.items() if len(cells) > 1]


def numbers_of(file: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the numbers of upstreams that a file holds, each by itself or several by name; a file of another form has none."""
    for entry in file if isinstance(file, list) else ():
        yield from (number for number in entry.get("by", {"": entry}).values() if "upstream" in number)


def higher_is_better(row: Row) -> bool:
    """Tell which way a row's metric goes; a search is no task."""
    if row.task == "qbe":
        return row.metric in {"mtwv", "atwv"}
    task = load_task(row.task)
    return task.question(task.options()).metrics[row.metric] == "higher"


def leaders(row: Row, higher: bool) -> set[str]:
    """Return the best upstream and those whose intervals overlap its own; none where numbers have no intervals."""
    ranked = [cell for cell in row.cells if cell.interval]
    if len(ranked) < len(row.cells):
        return set()
    best = max(ranked, key=lambda cell: cell.value if higher else -cell.value)
    assert best.interval, "expected the best of those with an interval to have one"
    low, high = best.interval
    return {cell.upstream for cell in ranked if cell.interval and cell.interval[0] <= high and low <= cell.interval[1]}


def html_of(rows: Sequence[Row], licences: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[str]:
    """Return the filters and the table; without JavaScript the table shows everything."""
    upstreams = list(dict.fromkeys(cell.upstream for row in rows for cell in row.cells))
    models = {name: licences["upstreams"].get(name, UNKNOWN) for name in upstreams}
    sets = {row.set: licences["sets"].get(row.set, UNKNOWN) for row in rows}
    lines = ['<form class="board-filters" hidden>']
    lines.append(select("model", "Weights may be used for", models.values()))
    lines.append(select("set", "Recordings may be used for", sets.values()))
    lines += [select_of("task", "Task", {"": "all"} | {row.task: row.task for row in rows}), "</form>"]
    lines += ['<div class="board-scroll"><table class="board"><thead><tr><th>set, task</th>']
    for name, model in models.items():
        lines.append(f'<th data-model="{model["use"]}">{escape(name)}<small>{escape(model["licence"])}</small></th>')
    lines += ["</tr></thead><tbody>"]
    for row in rows:
        lines += row_of(row, upstreams, models, sets[row.set])
    return [*lines, "</tbody></table></div>", '<p class="board-none" hidden>Nothing is left: choose another licence or task.</p>']


def row_of(row: Row, upstreams: Sequence[str], models: Mapping[str, Mapping[str, str]], licence: Mapping[str, str]) -> list[str]:
    """Return the lines of one row."""
    higher, cells = higher_is_better(row), {cell.upstream: cell for cell in row.cells}
    first, arrow = leaders(row, higher), "↑" if higher else "↓"
    about = f"{row.task}: {row.metric} {arrow}; {row.about}; {licence['licence']}"
    lines = [f'<tr data-set="{licence["use"]}" data-task="{row.task}"><th>{escape(row.set)}<small>{escape(about)}</small></th>']
    for name in upstreams:
        kind = "" if name not in first else "tie" if len(first) > 1 else "best"
        lines.append(f'<td data-model="{models[name]["use"]}" class="{kind}">{cell_of(cells.get(name), kind)}</td>')
    return [*lines, "</tr>"]


def cell_of(cell: Cell | None, kind: str) -> str:
    """Return what a cell shows: the number, its interval in figures and as a bar, the seconds."""
    if cell is None:
        return "–"
    number = f"<b>{cell.value:.3f}</b>{f'<em>{kind}</em>' if kind else ''}"
    seconds = f"<small>{cell.seconds:,.0f} s</small>"
    if not cell.interval:
        return f"{number}<small>no interval</small>{seconds}"
    low, high = cell.interval
    left, right, here = (100 * min(max(number, 0), 1) for number in (low, high, cell.value))
    parts = f'<i style="left:{left:.1f}%;width:{right - left:.1f}%"></i><i class="dot" style="left:{here:.1f}%"></i>'
    return f'{number}<small>[{low:.3f}, {high:.3f}]</small><i class="bar">{parts}</i>{seconds}'


def select(name: str, label: str, licences: Iterable[Mapping[str, str]]) -> str:
    """Return a filter by what a licence allows."""
    present = {licence["use"] for licence in licences}
    return select_of(name, label, {use: words for use, words in USES.items() if not use or use in present})


def select_of(name: str, label: str, values: Mapping[str, str]) -> str:
    """Return a menu."""
    options = "".join(f'<option value="{escape(value)}">{escape(words)}</option>' for value, words in values.items())
    return f'<label>{label} <select name="{name}">{options}</select></label>'
