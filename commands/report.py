"""Tell of finished runs in one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from .common.console import print_result
from .common.shell import Parser

HELP = "write an html report of runs: tables, learning curves, layer weights, confusion matrices, settings"
EXAMPLE = "headwater report result/downstream/my_run --out report.html"


def main(arguments: Sequence[str]) -> int:
    """Write the report, and say where it is."""
    parser = Parser(
        "headwater report",
        "Write one html page of finished runs. It opens without a server or a network, and can be printed.",
        EXAMPLE,
    )
    parser.add_argument("results", nargs="+", metavar="RESULT", help="folders of runs, plans or recipes")
    parser.add_argument("--out", default="report.html", metavar="FILE", help="the html file to write (default: report.html)")
    flags = parser.parse_args(arguments)
    out = Path(flags.out)
    if out.suffix not in {".html", ".htm"}:
        raise UserError(f"Expected a page's name that ends in .html after --out, found '{out}'. Add .html.")
    from ..analysis.report.report import report

    print_result(report([Path(folder) for folder in flags.results], out))
    return 0
