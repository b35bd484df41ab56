"""Draw layer weights, the geometry of embeddings, or the relations between tasks, from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from .common.console import print_result
from .common.shell import Action, Parser, run_action

HELP = "draw the scores or weights of layers, the geometry of Turbo's embeddings, or which task helps which"
EXAMPLE = "headwater plot layers result/downstream/my_run"


def main(arguments: Sequence[str]) -> int:
    """Draw the picture that the first word names."""
    return run_action("headwater plot", HELP, PICTURES, arguments)


def plot_layers(arguments: Sequence[str]) -> int:
    """Print what each layer is worth, and write csv, PNG and PDF."""
    words = (
        "Draw the score of each layer alone with its 95 % interval, and the mixture of all, of runs with solver=exact. "
        "Of runs with solver=adam, or beside the others: the weight of each layer in the weighted sum, as it is and multiplied "
        "by the norm of the layer's features."
    )
    parser = Parser("headwater plot layers", words, PICTURES["layers"].example)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, or one folder that holds several folds or seeds")
    add("--probe", action="store_true", help="RUN was trained with `-l all`: draw the score of each layer beside its weight")
    add("--metric", default="", help="the metric of the scores (default: the one that chose the training step)")
    add("--out", metavar="DIR", help="folder for the pictures (default: plots/ of the first run)")
    flags = parser.parse_args(arguments)
    if flags.probe and len(flags.runs) > 1:
        raise UserError(f"Expected one folder after --probe, found {len(flags.runs)}. Draw each with a command of its own.")
    from ..analysis.layers.picture import layers
    from ..analysis.layers.probe import probe

    runs = [Path(run) for run in flags.runs]
    out = Path(flags.out) if flags.out else None
    print_result(probe(runs[0], out, flags.metric) if flags.probe else layers(runs, out, flags.metric))
    return 0


def plot_geometry(arguments: Sequence[str]) -> int:
    """Print the table of Turbo runs, and write pictures and numbers to a folder."""
    words = "Compute alignment and uniformity of the embeddings of Turbo runs, and draw them in one plane."
    parser = Parser("headwater plot geometry", words, PICTURES["geometry"].example)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, or folders of several runs; runs of one method share a colour")
    add("--split", default="test", help="the split whose embeddings are drawn (default: test)")
    add("--names", metavar="A,B,…", help="one label for each RUN (default: the method of its runs)")
    add("--out", default="geometry", metavar="DIR", help="folder for the pictures (default: geometry)")
    help_text = "what a point of the plane is: a run (default), or the mean of a seed's folds"
    add("--points", choices=("run", "seed"), default="run", help=help_text)
    flags = parser.parse_args(arguments)
    from ..analysis.geometry import geometry

    names = [name.strip() for name in flags.names.split(",")] if flags.names else []
    if names and len(names) != len(flags.runs):
        raise UserError(f"Expected --names with a label for each of {len(flags.runs)} folders, found {len(names)}.")
    print_result(geometry([Path(run) for run in flags.runs], Path(flags.out), flags.split, names, flags.points))
    print_result(f"written to {flags.out}")
    return 0


def plot_relations(arguments: Sequence[str]) -> int:
    """Print how each task changes without another one, and write the graphs where flags name files."""
    words = "Draw which task helps which when several tasks are trained together."
    parser = Parser("headwater plot relations", words, PICTURES["relations"].example)
    columns = "one row for each joint run: left_out (empty: all tasks were trained), then the scores ASR:lower, ER:higher, …"
    parser.add_argument("table", metavar="TABLE.csv", help=columns)
    parser.add_argument("--json", metavar="FILE", help="write the numbers of both graphs as json")
    parser.add_argument("--plot", metavar="FILE", help="write both graphs as a picture (.png and .pdf, or .svg)")
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
    print_result(relations_text(relations, table.further), *(f"written to {path}" for path in written))
    return 0


PICTURES = {
    "layers": Action(plot_layers, "draw the score of each layer, or its weight", EXAMPLE),
    "geometry": Action(
        plot_geometry,
        "draw alignment and uniformity of the embeddings of Turbo runs",
        "headwater plot geometry result/downstream/vanilla result/downstream/turbo --out geometry",
    ),
    "relations": Action(
        plot_relations,
        "draw which task helps which, from a table of joint runs",
        "headwater plot relations recipes/mtl/table1.csv --plot relations.png --json relations.json",
    ),
}
