"""Draw which task helps which, from a table of joint runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from .common.shell import Parser

HELP = "draw which task helps which, from a table of runs with all tasks and without each"
EXAMPLE = "headwater relations recipes/mtl/table1.csv --plot relations.png --json relations.json"


def main(arguments: Sequence[str]) -> int:
    """Print the changes; leave the graphs and their numbers where that is asked for."""
    parser = Parser("headwater relations", "Draw which task helps which when they are trained together.", EXAMPLE)
    parser.add_argument(
        "table", metavar="TABLE.csv", help="a row for each run: left_out (empty: all tasks), then ASR:lower, ER:higher, …"
    )
    parser.add_argument("--json", metavar="FILE", help="write both graphs as json")
    parser.add_argument("--plot", metavar="FILE", help="draw both graphs (.png and .pdf, or .svg)")
    flags = parser.parse_args(arguments)
    from ..analysis.relations.graphs import draw
    from ..analysis.relations.relations import relations_of, relations_text
    from ..analysis.relations.table import read_table
    from ..core.files import write_json

    source = Path(flags.table)
    table = read_table(source)
    for flag, name in (("--json", flags.json), ("--plot", flags.plot)):
        if name and Path(name).resolve() == source.resolve():
            raise UserError(f"Expected another file than the table after {flag}, found '{name}'. Choose another name.")
    relations = relations_of(table)
    written = draw(relations, Path(flags.plot)) if flags.plot else []
    if flags.json:
        write_json(Path(flags.json), relations.as_json())
        written.append(Path(flags.json))
    print(relations_text(relations, table.further))
    print(*(f"written to {path}" for path in written), sep="\n", end="\n" if written else "")
    return 0
