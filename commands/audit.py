"""Audit a run: what else could explain its score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .common.console import print_note, print_result
from .common.shell import Parser

HELP = "find out what a score means: random weights, shuffled labels, leaks, duplicates, wrong labels, groups"
EXAMPLE = "headwater audit result/downstream/my_run"


def make_parser() -> Parser:
    """Return the flags."""
    text = "Fit controls like a finished run (or plan of folds), and look for leaks, duplicates and wrong labels in its corpus."
    parser = Parser("headwater audit", text, EXAMPLE)
    parser.add_argument("what", nargs="+", metavar="RUN", help="the folder of a run or plan")
    parser.add_argument("--metric", help="say everything in this metric (default: the one that the task reports)")
    parser.add_argument("--split", help="audit the score of this split (default: the test split of the corpus)")
    parser.add_argument("--by", default="", metavar="LABEL,…", help="score each group of these labels too: gender,age")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--quiet", action="store_true", help="print only what was found")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print a line for each control; audit.json in the run's folder has the numbers."""
    flags = make_parser().parse_args(arguments)
    from ..analysis.audit.audit import audit
    from ..analysis.audit.finding import printed
    from ..core.run_folder import RunFolder
    from ..runs.runtime import Runtime

    runtime = Runtime(flags.device, flags.quiet)
    by = [word.strip() for word in flags.by.split(",") if word.strip()]
    folder = Path(flags.what[0]).expanduser()
    content = audit(folder, runtime, metric=flags.metric, split=flags.split, by=by)
    print_result(*printed(content))
    print_note(f"written to {RunFolder(folder).audit}")
    return 0
