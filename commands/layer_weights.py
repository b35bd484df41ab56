"""Show which layers a run listens to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .shell import Parser

HELP = "draw which layers a run (or several folds and seeds) listens to"
EXAMPLE = "headwater layer-weights result/downstream/my_run"


def main(arguments: Sequence[str]) -> int:
    """Print the weights by layer, and write csv, PNG and PDF."""
    parser = Parser("headwater layer-weights", "Draw the weight of each layer, alone and times its feature norm.", EXAMPLE)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or a plan's folder")
    parser.add_argument("--out", metavar="DIR", help="where the pictures go (default: plots/ of the first run)")
    flags = parser.parse_args(arguments)
    from ..analysis.layer_weights import layer_weights

    runs = [Path(run) for run in flags.runs]
    out = Path(flags.out) if flags.out else runs[0] / "plots"
    print(layer_weights(runs, out))
    return 0
