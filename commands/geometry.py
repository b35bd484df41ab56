"""Draw the joint spaces of Turbo runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from .common.shell import Parser

HELP = "alignment and uniformity of Turbo runs: table, plane and densities"
EXAMPLE = "headwater geometry result/downstream/vanilla result/downstream/turbo --out geometry"


def main(arguments: Sequence[str]) -> int:
    """Print the table, and leave pictures and numbers in a folder."""
    parser = Parser("headwater geometry", "Alignment and uniformity of the joint spaces of several runs.", EXAMPLE)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or plans of runs; runs of one method share a colour")
    parser.add_argument("--split", default="test", help="the split whose embeddings are looked at (default: test)")
    parser.add_argument("--names", metavar="A,B,…", help="labels of the folders, one each, instead of their methods")
    parser.add_argument("--out", default="geometry", metavar="DIR", help="folder of the pictures (default: geometry)")
    flags = parser.parse_args(arguments)
    from ..analysis.geometry import geometry

    names = [name.strip() for name in flags.names.split(",")] if flags.names else []
    if names and len(names) != len(flags.runs):
        raise UserError(f"Expected --names with a label for each of {len(flags.runs)} folders, found {len(names)}.")
    print(geometry([Path(run) for run in flags.runs], Path(flags.out), flags.split, names))
    print(f"written to {flags.out}")
    return 0
