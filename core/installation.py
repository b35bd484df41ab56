"""How Headwater is installed here, and how to install the packages that are optional."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

NAME = __name__.split(".")[0]
CLONE = Path(__file__).parents[1]


def is_clone() -> bool:
    """Return whether this code runs from a clone: an installed wheel has no pyproject.toml."""
    return (CLONE / "pyproject.toml").is_file()


def install_command(extra: str) -> str:
    """Return the command that installs an extra from where the user is: a clone by its folder.

    No index has a package of our name, so that a wheel's user installs the extra's parts.
    """
    if is_clone():
        is_here = os.path.realpath(os.getcwd()) == os.path.realpath(CLONE)
        return f"pip install -e '.[{extra}]'" if is_here else f"pip install -e {shlex.quote(str(CLONE))}'[{extra}]'"
    always = {*map(str, required(NAME))}
    own = [str(wanted).partition(";")[0].strip() for wanted in required(NAME, [extra]) if str(wanted) not in always]
    return f"pip install {' '.join(map(repr, own))}"


def required(distribution: str, chosen: Sequence[str] = ("",)) -> list[Requirement]:
    """Return what an installed distribution needs directly on this machine, with some of its extras."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requires(distribution) or ()]
    return [
        each for each in wanted if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *chosen))
    ]
