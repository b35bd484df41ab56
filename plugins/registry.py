"""What installed packages offer: tasks, upstreams and corpora by their entry points, loaded when they are asked for."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from ..core.errors import UserError

Kind = Literal["task", "upstream", "corpus"]
ENTRIES = {
    "task": "`TASK = Task(…)` at the end of expert.py",
    "upstream": "one function with @register_upstream",
    "corpus": "one `register_corpus(Reader(…))`",
}
FLAGS = {"task": "-d", "audio": "-u", "text": "--text-upstream", "upstream": "-u", "corpus": "--corpus"}
SECTIONS = {"audio": "upstream", "text": "text_upstream"}  # of a recipe, by role


GROUPS: Mapping[Kind, str] = {"task": "headwater.tasks", "upstream": "headwater.upstreams", "corpus": "headwater.corpora"}
_LOADED: dict[tuple[Kind, str], str] = {}  # what was loaded, and the distribution that it belongs to


def offered(kind: Kind) -> dict[str, list[EntryPoint]]:
    """Return what is offered under each name; nothing of it is loaded."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUPS[kind]):
        found.setdefault(point.name, []).append(point)
    return dict(sorted(found.items()))


def source_of(point: EntryPoint) -> str:
    """Return which distribution an entry point belongs to."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value


def sources(kind: Kind) -> dict[str, str]:
    """Return which distributions each offered name comes from."""
    return {name: " and ".join(dict.fromkeys(map(source_of, points))) for name, points in offered(kind).items()}


def loaded_from(kind: Kind, name: str) -> str:
    """Return the distribution and version that a name was loaded from; nothing of what is ours, or was typed."""
    return _LOADED.get((kind, name), "")


def folder_of(kind: Kind, name: str, table: dict[str, Any]) -> Path | None:
    """Return the folder of the module that an offered name lies in, which is loaded first: what is broken is told so."""
    load_offered(kind, name, table)
    points = offered(kind).get(name)
    file = importlib.import_module(points[0].module).__file__ if points else None
    return Path(file).parent if file else None


def load_offered(kind: Kind, name: str, table: dict[str, Any]) -> Any:
    """Return what a package offers under a name, loaded into the table of its kind; None where no package does."""
    points = offered(kind).get(name)
    if not points:
        return None
    source = sources(kind)[name]
    if name in table and _LOADED.get((kind, name)) == source:
        return table[name]
    if len({*map(source_of, points)}) > 1:
        raise UserError(f"Expected one {kind} called '{name}', found it in {source}. Uninstall one of them.")
    if name in table:
        raise UserError(
            f"Expected another name than '{name}' for the {kind} of the package {source}: there is one of that name "
            "already. Uninstall the package, or have it renamed."
        )
    before = dict(table)
    try:
        _load(kind, points[0], table)
    except (Exception, SystemExit) as problem:
        table.clear()
        table.update(before)
        words = " ".join(str(problem).split())
        words = words if isinstance(problem, UserError) else f"{type(problem).__name__}: {words}"
        raise UserError(
            f"Expected the {kind} '{name}' of the package {source}, found that it cannot be loaded ({words.rstrip('.')}). "
            "Mend the package, or uninstall it."
        ) from problem
    for new in table.keys() - before.keys():
        _LOADED[kind, new] = source
        if kind == "upstream":
            table[new] = replace(table[new], source=source, code=source)
    return table[name]


def _load(kind: Kind, point: EntryPoint, table: Mapping[str, Any]) -> None:
    """Execute what an entry point names: a task itself or its module, or what registers an upstream or a corpus."""
    from ..downstream.load import add_task

    thing = point.load()
    if kind == "task":
        add_task(getattr(thing, "TASK", thing), f"{point.value}", point.name)
    if point.name not in table:
        raise UserError(f"{point.value} has no {ENTRIES[kind]} of that name")


def load_all(kind: Kind, table: dict[str, Any], pattern: str = "*") -> list[str]:
    """Load all that packages offer under names that match; return a line for each that cannot be had."""
    broken = []
    for name in (name for name in offered(kind) if fnmatch.fnmatch(name, pattern)):
        try:
            load_offered(kind, name, table)
        except UserError as problem:
            broken.append(str(problem))
    return broken
