"""Compare runs: which one is better, and whether their test set can show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UserError
from .common.console import print_note, print_result
from .common.shell import Parser

HELP = "compare runs on the same utterances: difference, confidence interval, p-value, verdict"
RUNS = (
    "folders of runs, of plans, or of evaluations (RUN/evaluations/…); behind the first, a csv of another toolkit's predictions"
)
EXAMPLE = "headwater compare result/downstream/hubert result/downstream/wavlm --json compared.json"


def main(arguments: Sequence[str]) -> int:
    """Print the table and the verdict; write the numbers where --json names a file."""
    parser = Parser(
        "headwater compare",
        "Compare runs with the first one on the same utterances. Folds of a plan are pooled, seeds are paired.",
        EXAMPLE,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help=RUNS)
    parser.add_argument("--metric", help="decide by this metric (default: the one that the task reports)")
    parser.add_argument("--split", help="compare on this split (default: the test split of the corpus)")
    parser.add_argument("--task", help="compare this task of runs that have several")
    parser.add_argument("--weights", choices=("best", "last", "own"), help="which step of joint runs to compare (default: best)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers as json (-: to stdout, in place of the table)")
    parser.add_argument("--markdown", action="store_true", help="print the table in markdown")
    flags = parser.parse_args(arguments)
    if len(flags.runs) < 2:
        raise UserError(f"Expected at least two runs to compare, found '{flags.runs[0]}' alone. Name another.")
    from ..analysis.comparison.compare import compare
    from ..analysis.comparison.text import as_json, compared_text
    from ..core.files import write_json

    runs = [Path(run).expanduser() for run in flags.runs]
    out = Path(flags.json or "-").expanduser()
    if out.is_file() and any(out.resolve().is_relative_to(run.resolve()) for run in runs):
        raise UserError(f"Expected a file of its own after --json, found '{out}', which is a run's. Choose another name.")
    compared = compare(runs, metric=flags.metric, split=flags.split, task=flags.task, weights=flags.weights)
    if flags.json == "-":
        print_result(json.dumps(as_json(compared), indent=2, ensure_ascii=False))
        return 0
    if flags.json:
        write_json(out, as_json(compared))
    print_result(compared_text(compared, markdown=flags.markdown))
    if flags.json:
        print_note(f"written to {out}")
    return 0
