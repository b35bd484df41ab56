"""Audit a run: what else could explain its score."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from .common.console import print_note, print_result
from .common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..runs.runtime import Runtime

HELP = "find out what a score means: random weights, shuffled labels, leaks, duplicates, wrong labels, groups"
EXAMPLE = "headwater audit result/downstream/my_run"


def make_parser() -> Parser:
    """Return the flags."""
    text = (
        "Fit controls like a finished run (or plan of folds), and look for leaks, duplicates and wrong labels in its corpus. "
        "Of a table, or of a corpus' folder, the bare command is trained first."
    )
    parser = Parser("headwater audit", text, EXAMPLE)
    add = parser.add_argument
    add("what", nargs="+", metavar="RUN|TABLE", help="the folder of a run or plan; or a table, with -u and -d")
    add("-u", "--upstream", action=TypedPath, kind="upstream", help="of a table: the model that is probed")
    add("-d", "--downstream", metavar="TASK", action=TypedPath, kind="task", help="of a table: the task")
    add("--corpus", action=TypedPath, kind="corpus", help="of a folder that is no run: the corpus in it")
    add("--folds", metavar="A,B", help="of a table: audit these folds (`all`, or 1,2,3)")
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="of a table: options of the run")
    add("--matrix", action="store_true", help="train on each table (or take each run), and test on all the others")
    help_text = "score another toolkit's predictions beside the run (columns: id or file, prediction)"
    add("--predictions", metavar="CSV", help=help_text)
    add("--metric", help="say everything in this metric (default: the one that the task reports)")
    add("--split", help="audit the score of this split (default: the test split of the corpus)")
    add("--by", default="", metavar="LABEL,…", help="score each group of these labels too: gender,age")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print only what was found")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print a line for each control; audit.json in the run's folder has the numbers."""
    flags = make_parser().parse_args(arguments)
    from ..analysis.audit.audit import audit
    from ..analysis.audit.finding import printed
    from ..analysis.audit.matrix import cross_matrix, matrix_text
    from ..core.run_folder import RunFolder
    from ..runs.runtime import Runtime

    runtime = Runtime(flags.device, flags.quiet)
    if flags.matrix != (len(flags.what) > 1):
        found = "one alone" if flags.matrix else f"{len(flags.what)} without --matrix"
        raise UserError(f"Expected one run or table, or several with --matrix, found {found}. Name one, or add --matrix.")
    folders = [run_of(Path(what).expanduser(), flags, runtime) for what in flags.what]
    if flags.matrix:
        print_result(matrix_text(cross_matrix(folders, runtime, flags.metric)))
        return 0
    by = [word.strip() for word in flags.by.split(",") if word.strip()]
    theirs = Path(flags.predictions).expanduser() if flags.predictions else None
    content = audit(folders[0], runtime, metric=flags.metric, split=flags.split, by=by, theirs=theirs)
    print_result(*printed(content))
    print_note(f"written to {RunFolder(folders[0]).audit}")
    return 0


def run_of(what: Path, flags: Namespace, runtime: Runtime) -> Path:
    """Return the folder of a finished run: the one that is named, or that of the bare command over a table."""
    if not flags.upstream and not flags.downstream:
        if what.is_file():
            raise UserError(f"Expected -u and -d beside the table '{what}', found neither. Add them: -u fbank -d emotion")
        for name, value in (("--corpus", flags.corpus), ("--folds", flags.folds), ("-o", flags.override)):
            if value:
                raise UserError(f"Expected {name} beside a table with -u and -d, found '{what}' alone. Leave {name} out.")
        return what
    from ..analysis.audit.fold import refuse_steps
    from ..plans.grid import run_plan
    from .downstream import make_parser as parser_of_runs
    from .downstream import plan_of

    if not flags.upstream or not flags.downstream:
        alone = "-u" if flags.upstream else "-d"
        raise UserError(f"Expected both -u and -d to probe '{what}', found {alone} alone. Add the other.")
    if not what.exists():
        raise UserError(f"Expected a table or a corpus' folder at '{what}', found nothing. Check the path.")
    words = ["-u", flags.upstream, "-d", flags.downstream, "--data", str(what)]
    words += ["--corpus", flags.corpus] if flags.corpus else []
    words += ["--folds", flags.folds] if flags.folds else []
    words += ["-o", *flags.override] if flags.override else []
    if flags.matrix:
        words += ["-n", f"audit-{what.resolve().parent.name}-{what.stem}"]
    _, parts, folder = plan_of(parser_of_runs("headwater audit").parse_args(words))
    refuse_steps(parts[0].config, str(what))
    run_plan(parts, folder, runtime)
    return folder
