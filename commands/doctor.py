"""Tell what this machine has of all that Headwater uses; it is what a bug report asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from .common.shell import Parser

if TYPE_CHECKING:
    from ..upstream.base import Registered

HELP = "versions, device, caches, weights and corpora of this machine, and what to do about what is missing"
EXAMPLE = "headwater doctor --json doctor.json"


def list_upstreams() -> list[Registered]:
    """Return the upstreams; on a broken installation torch, and with it this import, fails."""
    from ..upstream import load

    return load.list_upstreams()


def main(arguments: Sequence[str]) -> int:
    """Print what was found; what is missing is no mistake."""
    parser = Parser("headwater doctor", "Tell what this machine has. Paste it into a bug report: it names no user.", EXAMPLE)
    parser.add_argument("--json", metavar="FILE", help="write it as json (-: to stdout, in place of the text)")
    flags = parser.parse_args(arguments)
    from ..checks.machine import examine

    found = examine(list_upstreams)
    content = {section: [asdict(finding) for finding in findings] for section, findings in found.items()}
    if flags.json == "-":
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return 0
    if flags.json:
        # not by what writes results: on a broken installation it could not be imported
        try:
            Path(flags.json).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as problem:
            place = f"Expected to write '{flags.json}', found: {problem.strerror}."
            raise UserError(f"{place} Choose another place, or - for the terminal.") from None
    width = max(len(finding.name) for findings in found.values() for finding in findings) + 2
    for section, findings in found.items():
        print(section)
        for finding in findings:
            print(f"  {finding.name:<{width}}{finding.found}")
            if finding.advice:
                print(f"  {'':<{width}}-> {finding.advice}")
    return 0
