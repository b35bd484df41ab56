"""The house stays as it was drawn: floors, no circles, catalogue apart from mechanism. Reads text; imports nothing heavy."""

from __future__ import annotations

import ast
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("HEADWATER_ROOT") or __import__("headwater").__path__[0])
# from the ground up; a package imports from the packages below its floor only
FLOORS = (
    "core",
    "plugins",
    "corpus",
    "upstream",
    "downstream",
    "training",
    "runs",
    "plans inference",
    "search",
    "analysis checks",
    "api",
    "commands",
)
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names.split()}
AT_THE_ROOT = {"__init__.py", "__main__.py", "setup.py", "run_downstream.py", "run_mtl.py"}
NO_ROOMS = {"tests", "benchmarks", "docs", "examples", "build", "dist"}
CATALOGUES = ["corpus/readers", "upstream/families", "downstream/*"]  # what lies here knows its mechanism, not its neighbours
NEIGHBOURS = {  # those that may: one is made of the other
    ("corpus/readers/directed.py", "corpus/readers/manifest.py"),
    ("corpus/readers/iemocap.py", "corpus/readers/superb_order.py"),
}
MOST_FILES = 18  # of a folder
LAZY = {"commands", "analysis"}  # whose functions import ours when they run: `--help` answers in under a second


def modules() -> list[Path]:
    """Return the library's files, relative to the repository."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return sorted(path for path in found if path.parts[0] not in NO_ROOMS and not any(part[0] == "." for part in path.parts))


FILES = modules()
KNOWN = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path.as_posix() for path in FILES}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each of our files that a file imports, at its top or inside a function, and whether it is inside."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if not node.level and module.partition(".")[0] != "headwater":
            continue
        base = list(path.parts[: -node.level]) if node.level else []
        name = module if node.level else module.removeprefix("headwater").removeprefix(".")
        whole = ".".join([*base, *filter(None, name.split("."))])
        for alias in node.names:
            target = KNOWN.get(f"{whole}.{alias.name}".strip(".")) or KNOWN.get(whole)
            if target and target != path.as_posix():
                yield target, id(node) in inside


ARROWS = {(path.as_posix(), target): inside for path in FILES for target, inside in imports(path)}


def package(file: str) -> str:
    """Return the package of a file; of one at the root, nothing."""
    return file.split("/")[0] if "/" in file else ""


def within(file: str, folder: str) -> bool:
    """Tell whether a file lies in a folder."""
    return file.startswith(f"{folder}/")


def test_nothing_but_the_doors_stands_at_the_root() -> None:
    assert {path.name for path in FILES if len(path.parts) == 1} <= AT_THE_ROOT


def test_every_package_has_a_floor_and_imports_only_from_below() -> None:
    pairs = [(one, other, package(one), package(other)) for one, other in ARROWS]
    between = [(one, other, a, b) for one, other, a, b in pairs if a and b and a != b]
    assert len(between) > 300, "the imports were not found"
    upward = [f"{one} -> {other}" for one, other, a, b in between if not FLOOR.get(b, 99) < FLOOR.get(a, -1)]
    assert not upward, "\n".join(upward)


def test_no_files_import_each_other_in_a_circle_not_even_inside_functions() -> None:
    below: dict[str, set[str]] = defaultdict(set)
    for one, other in ARROWS:
        below[one].add(other)
    left = {path.as_posix() for path in FILES}
    while free := {name for name in left if not below[name] & left}:
        left -= free
    while idle := {name for name in left if not any(name in below[other] for other in left - {name})}:
        left -= idle  # above a circle, in none
    assert not left, f"in circles: {sorted(left)}"


@pytest.mark.parametrize("pattern", CATALOGUES)
def test_what_is_catalogued_knows_no_neighbour(pattern: str) -> None:
    places = [place for place in ROOT.glob(pattern) if place.is_dir() and any(place.glob("*.py"))]
    assert places, f"no {pattern}"
    if pattern.endswith("/*"):
        homes = [place.relative_to(ROOT).as_posix() for place in places]
        pairs = [(home, neighbour) for home in homes for neighbour in homes if home != neighbour]
        strange = [arrow for arrow in ARROWS for home, other in pairs if within(arrow[0], home) and within(arrow[1], other)]
    else:
        arrows = [arrow for arrow in ARROWS if within(arrow[0], pattern) and within(arrow[1], pattern)]
        strange = [arrow for arrow in arrows if not {arrow, (arrow[0], "*")} & NEIGHBOURS]
    assert not strange, strange


def test_ours_are_imported_at_the_top_of_a_file() -> None:
    hidden = [(one, other) for (one, other), inside in ARROWS.items() if inside and one != "__main__.py"]
    lazy = [f"{one} -> {other}" for one, other in hidden if package(one) not in LAZY]
    assert not lazy, "\n".join(lazy)


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in FILES:
        counts[path.parent.as_posix()] += path.name != "__init__.py"
    assert not {folder: count for folder, count in counts.items() if count > MOST_FILES}
