"""Merge upstreams of one architecture, and find the best mixture on a task's dev split."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ..common.console import print_note, print_result
from ..common.shell import Parser, TypedPath

HELP = "average upstreams of one architecture, or add and take away what was learnt in finetuning"
EXAMPLE = "headwater merge RUN_A RUN_B --weights 0.5,0.5 --to merged"
SWEEP = """\
  headwater merge RUN --base hubert --weights -0.3 --to without_it
  headwater merge RUN_A RUN_B --sweep 0,0.25,0.5,0.75,1 -d emotion --data IEMOCAP --to merged"""


def make_parser() -> Parser:
    """Return the flags."""
    words = (
        "Write the weighted mean of upstreams as a model folder: `-u DIR` uses it. An upstream is a name, a model folder, a run, "
        "or one checkpoint of a run (RUN/checkpoints/last.safetensors)."
    )
    parser = Parser("headwater merge", words, f"{EXAMPLE}\n{SWEEP}")
    add = parser.add_argument
    add("upstreams", nargs="+", metavar="UPSTREAM", help="what is merged")
    add("--to", required=True, metavar="DIR", help="the folder to write; it must be new or empty")
    add("--weights", metavar="A,B,…", help="of each upstream; they sum to 1 where there is no --base (default: all alike)")
    help_text = "add to this upstream the weighted differences between it and the others (below 0: take them away)"
    add("--base", metavar="UPSTREAM", help=help_text)
    help_text = (
        "try these coefficients (of two upstreams: 0 is the first, 1 the second; with --base: of each difference), train the "
        "head of -d on each, and say which is best on dev"
    )
    add("--sweep", metavar="A,B,…", help=help_text)
    add("-d", "--downstream", metavar="TASK", action=TypedPath, kind="task", help="with --sweep: the task that is tried")
    add("--corpus", action=TypedPath, kind="corpus", metavar="NAME", help="with --sweep: its corpus")
    add("--data", metavar="PATH", help="with --sweep: where its corpus lies")
    add("--demo", action="store_true", help="with --sweep: use the corpus' miniature")
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="with --sweep: options of the task")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Merge, or sweep and merge."""
    flags = make_parser().parse_args(arguments)
    from ...inference.merge import write_merged

    if flags.sweep is None:
        of_sweep = {"-d": flags.downstream, "--data": flags.data, "--demo": flags.demo, "-o": flags.override}
        for flag in (flag for flag, value in of_sweep.items() if value):
            raise UserError(f"Expected --sweep beside {flag}, found none: a merge alone trains nothing. Add --sweep 0,0.5,1")
        shares = numbers(flags.weights, "--weights") if flags.weights else [1 / len(flags.upstreams)] * len(flags.upstreams)
        write_merged(flags.upstreams, shares, flags.to, flags.base)
        print_note(f"written to {flags.to}: use it with -u {flags.to}")
    else:
        share, place = sweep(flags)
        print_note(f"dev prefers {share:g}: use it with -u {place}")
    return 0


def sweep(flags: Namespace) -> tuple[float, Path]:
    """Train the task on each mixture, print what dev and test say, and return the one that dev prefers."""
    from ...api.train import train
    from ...core.options import merge, parse_override
    from ...inference.merge import write_merged

    if not flags.downstream:
        raise UserError("Expected a task to choose by beside --sweep, found none. Add -d emotion, and --data.")
    if flags.weights or (flags.base is None and len(flags.upstreams) != 2):
        raise UserError(
            "Expected two upstreams (or --base) and no --weights beside --sweep, found others. Leave one of them out."
        )
    options: dict[str, Any] = {}
    for override in flags.override:
        options = merge(options, parse_override(override))
    target, rows, best = Path(flags.to), list[str](), None
    for share in numbers(flags.sweep, "--sweep"):
        shares = [1 - share, share] if flags.base is None else [share] * len(flags.upstreams)
        place = target / f"{share:g}"
        if not (place / "config.json").is_file():  # made before this was stopped
            write_merged(flags.upstreams, shares, place, flags.base)
        run = target / f"{share:g}-{flags.downstream}"
        source = {"corpus": flags.corpus or "", "data": flags.data, "demo": flags.demo}
        result = train(flags.downstream, str(place), folder=run, options=options, **source)
        metric, scores = result["select_by"], result["scores"]
        score = scores["dev"][metric]
        better = score if result["metrics"][metric] == "higher" else -score
        if best is None or better > best[0]:
            best = better, share, place
        rows.append(f"{share:<12g} {metric} dev {score:.3f}  test {scores['test'][metric]:.3f}")
    assert best is not None, "a sweep tries at least one coefficient"
    print_result("\n".join(["coefficient", *rows]))
    return best[1:]


def numbers(text: str, flag: str) -> list[float]:
    """Return the numbers of a list, or say which word is none."""
    found = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise UserError(f"Expected numbers after {flag}, found '{word}'. Write {flag} 0.5,0.5") from None
    return found
