"""What the core installs, and under which licences: nothing of the GPL, and weak copyleft only where it is named here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import metadata
from pathlib import Path

import pytest

from headwater.checks.machine import installed, required

STRONG = re.compile(r"(?<![\w])A?GPL|GNU (Affero )?General Public", re.IGNORECASE)
WEAK = re.compile(
    r"LGPL|Lesser General Public|Library or Lesser|\b(MPL|EPL|CDDL|EUPL)\b|Mozilla Public|Eclipse Public", re.IGNORECASE
)
COMPILER = re.compile(r"GPL-[\w.+-]+ WITH GCC-exception-[\w.]+")  # the compiler's own runtime: what it compiles stays free
# each may be replaced by a changed build of its own, and asks nothing of the code that calls it
KNOWN_WEAK = {
    "soxr": "LGPL-2.1: resampling, a library of its own that a user may replace",
    "certifi": "MPL-2.0: a file of certificates, of the hub's client in some of its versions",
    "tqdm": "MPL-2.0 in part: progress bars",
}


def closure(name: str) -> dict[str, list[str]]:
    """Return all that installing a distribution brings on this machine, without its extras: name -> by whom."""
    found: dict[str, list[str]] = {}

    def walk(parent: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
        for wanted in required(parent, [*extras]):
            key = plain(wanted.name), frozenset(wanted.extras)
            found.setdefault(key[0], []).append(parent)
            if key not in seen and installed(wanted.name):
                seen.add(key)
                walk(wanted.name, key[1], seen)

    walk(name, frozenset(), set())
    return found


def plain(name: str) -> str:
    """Return a distribution's name in the one form that pip knows it by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licences_of(name: str) -> Iterator[str]:
    """Return what a distribution says of its licence; of a choice, the parts that are no copyleft if there are any."""
    report = metadata(name)
    expression = report.get("License-Expression")
    if expression:
        choices = COMPILER.sub("", expression).strip("() ").split(" OR ")
        free = [choice for choice in choices if not STRONG.search(choice) and not WEAK.search(choice)]
        yield free[0] if free else expression
        return
    # a whole text in that field speaks of other licences too: its title is what it is
    yield next((line for line in (report.get("License") or "").splitlines() if line.strip()), "")
    yield from (line for line in report.get_all("Classifier", []) if line.startswith("License"))


def copyleft(name: str) -> str:
    """Return "strong", "weak", or nothing where a distribution's licence asks nothing of those that use it."""
    message = [*licences_of(name)]
    weak = any(WEAK.search(line) for line in message)
    strong = any(STRONG.search(WEAK.sub("", line)) for line in message)
    return "strong" if strong else "weak" if weak else ""


def test_everything_that_the_core_needs_is_installed_here() -> None:
    found = closure("headwater")
    assert {"torch", "transformers", "numpy", "soxr"} <= {*found}
    assert not [name for name in found if not installed(name)]


def test_the_core_brings_no_gpl_and_no_weak_copyleft_but_what_is_named() -> None:
    brought = closure("headwater")
    kinds = {name: copyleft(name) for name in brought}
    strong = {name: f"{[*licences_of(name)]}, through {brought[name]}" for name, kind in kinds.items() if kind == "strong"}
    assert not strong
    assert {name for name, kind in kinds.items() if kind == "weak"} <= {*KNOWN_WEAK}


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install distributions that hold nothing but what they say."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, **fields: str | list[str]) -> None:
        """Write a distribution's metadata."""
        lines: Mapping[str, list[str]] = {
            key.replace("_", "-"): [value] if isinstance(value, str) else value for key, value in fields.items()
        }
        report = [f"{key}: {value}" for key, values in lines.items() for value in values]
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *report]) + "\n")

    return install


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"License_Expression": "GPL-3.0-or-later"}, "strong"),
        ({"License_Expression": "MIT AND AGPL-3.0-only"}, "strong"),
        ({"License": "GPLv2"}, "strong"),
        ({"License": "\nGNU GENERAL PUBLIC LICENSE\nVersion 3\n"}, "strong"),
        ({"Classifier": ["License :: OSI Approved :: GNU General Public License v3 (GPLv3)"]}, "strong"),
        ({"Classifier": ["License :: OSI Approved :: GNU Affero General Public License v3"]}, "strong"),
        ({"Classifier": ["License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)"]}, "weak"),
        ({"License_Expression": "LGPL-2.1-or-later"}, "weak"),
        ({"License": "MPL-2.0 AND MIT"}, "weak"),
        ({"License_Expression": "GPL-2.0-only OR MIT"}, ""),
        ({"License_Expression": "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1"}, ""),
        ({"License": "BSD", "Classifier": ["License :: OSI Approved :: BSD License"]}, ""),
    ],
)
def test_a_licence_is_read_from_its_package(
    made_up: Callable[..., None], fields: Mapping[str, str | list[str]], kind: str
) -> None:
    made_up("made-up", **{key: value.strip() if isinstance(value, str) else value for key, value in fields.items()})
    assert copyleft("made-up") == kind


def test_a_gpl_package_behind_another_one_is_found_and_extras_and_other_systems_are_not(made_up: Callable[..., None]) -> None:
    made_up("made-up-gpl", License_Expression="GPL-3.0-only")
    made_up("made-up-extra", License_Expression="GPL-3.0-only")
    made_up("made-up-middle", License_Expression="MIT", Requires_Dist=["Made_Up.GPL>=1"])
    made_up(
        "made-up-core",
        License_Expression="MIT",
        Provides_Extra="more",
        Requires_Dist=[
            'made-up-extra; extra == "more"',
            'made-up-other; sys_platform == "none"',
            'made-up-middle; python_version > "3"',
        ],
    )
    found = closure("made-up-core")
    assert found == {"made-up-middle": ["made-up-core"], "made-up-gpl": ["made-up-middle"]}
    assert [name for name in found if copyleft(name) == "strong"] == ["made-up-gpl"]
