"""A contract test: a function whose docstring is what must hold, and which raises where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..core.errors import UserError
from ..plugins.code import one_line_error

Subject = TypeVar("Subject")


class Failed(Exception):
    """What does not hold, in a line: expected, found, next move."""


@dataclass(frozen=True)
class Finding:
    """The result of one contract test."""

    requirement: str  # what must hold
    problem: str = ""  # "": it does

    @property
    def line(self) -> str:
        """What is printed of it."""
        return f"failed  {self.requirement}: {self.problem}" if self.problem else f"ok      {self.requirement}"


def findings(checks: Sequence[Callable[[Subject], None]], subject: Subject, path: Path) -> list[Finding]:
    """Run every check on a subject, whatever becomes of the others; an error in its code is a finding too."""
    found = []
    for check in checks:
        requirement = (check.__doc__ or "").split("\n")[0].rstrip(".")
        try:
            with torch.random.fork_rng(devices=[]):
                check(subject)
            found.append(Finding(requirement))
        except (Failed, UserError) as problem:
            found.append(Finding(requirement, " ".join(str(problem).split())))
        except Exception as problem:
            found.append(Finding(requirement, f"Expected no error, found {one_line_error(problem, path)}. Mend it."))
    return found


def checked(build: Callable[[], Subject], checks: Sequence[Callable[[Subject], None]], path: Path) -> list[Finding]:
    """Build what is to be checked and run every check on it; that it cannot be built is a finding too, and the only one."""
    requirement = "It can be built"
    try:
        subject = build()
    except Failed as problem:
        return [Finding(requirement, " ".join(str(problem).split()))]
    except UserError:  # of what was typed
        raise
    except (Exception, SystemExit) as problem:
        return [Finding(requirement, f"Expected no error, found {one_line_error(problem, path)}. Mend it.")]
    return findings(checks, subject, path)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of a difference over the norm of what was expected."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))
