"""Show which layers a run listens to, and which of them serve the task alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from .common.shell import Parser

HELP = "draw which layers a run (or several folds and seeds) listens to, and how each does alone"
EXAMPLE = "headwater layer-weights result/downstream/my_run"


def main(arguments: Sequence[str]) -> int:
    """Print the weights by layer, and write csv, PNG and PDF."""
    parser = Parser("headwater layer-weights", "Draw the weight of each layer, alone and times its feature norm.", EXAMPLE)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or a plan's folder")
    parser.add_argument(
        "--probe", action="store_true", help="RUN is a probe (`-l all`): the score of each layer beside its weight"
    )
    parser.add_argument("--metric", default="", help="what --probe draws (default: the metric that chose the steps)")
    parser.add_argument("--out", metavar="DIR", help="where the pictures go (default: plots/ of the first run)")
    flags = parser.parse_args(arguments)
    if flags.metric and not flags.probe:
        raise UserError(f"Expected --probe beside --metric {flags.metric}, found none: weights have no metric. Add --probe.")
    if flags.probe and len(flags.runs) > 1:
        raise UserError(f"Expected one folder after --probe, found {len(flags.runs)}. Draw each with a command of its own.")
    from ..analysis.layers.probe import probe
    from ..analysis.layers.weights import layer_weights
    from ..core.run_folder import RunFolder

    runs = [Path(run) for run in flags.runs]
    out = Path(flags.out) if flags.out else RunFolder(runs[0]).plots
    print(probe(runs[0], out, flags.metric) if flags.probe else layer_weights(runs, out))
    return 0
