"""Write a finished run as a folder that needs nothing else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .common.shell import Parser

HELP = "a finished run as a folder that needs neither network nor cache, or as an ONNX graph"
EXAMPLE = "headwater export result/downstream/my_run my_model --onnx"
WITHOUT_GRAPH = 3  # exit code where the folder is whole, and the graph that was asked for is not in it


def main(arguments: Sequence[str]) -> int:
    """Write the folder, and say what to do with it, and what it lacks."""
    flags = make_parser().parse_args(arguments)
    from ..inference.export.export import export_run
    from ..inference.export.onnx import FILE

    exported = export_run(
        flags.run,
        flags.folder,
        weights=flags.upstream_ckpt,
        text_weights=flags.text_upstream_ckpt,
        task=flags.task,
        fold=flags.fold,
        onnx=flags.onnx,
        extra=flags.extra,
    )
    folder = Path(flags.folder)
    if exported.graph:
        worst, sounds = exported.graph["compared"]["worst_difference"], len(exported.graph["compared"]["seconds"])
        tell(f"onnx      {FILE} answers as the run does, to {worst:.1e} ({sounds} sounds, 0.5 to 20 s)")
    if exported.needed:
        tell(f"needs     {' and '.join(exported.needed)}: the folder does not hold that")
    use = "".join(f" --use {folder / file}" for file in exported.code)
    tell(f"written to {folder}: headwater predict {folder}{use} my.wav")
    if exported.no_graph:
        tell(f"no {FILE}: {exported.no_graph}")
    return WITHOUT_GRAPH if exported.no_graph else 0


def tell(line: str) -> None:
    """Print what is no answer."""
    print(line, file=sys.stderr)


def make_parser() -> Parser:
    """Return the flags."""
    parser = Parser(
        "headwater export", "Write a finished run as a folder of its own: weights, tokenizer, labels and all.", EXAMPLE
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or a plan's with --fold")
    add("folder", metavar="DIR", help="the folder to write; it may not be there yet, or is empty")
    add("--onnx", action="store_true", help="also as a graph for onnxruntime, kept where it answers as the run does")
    own = "a file or folder that your own code reads: it goes along beside the code (repeatable)"
    add("--with", dest="extra", action="append", default=[], metavar="FILE", help=own)
    add("--task", help="which task, of a run of several")
    add("--fold", type=int, help="which fold, of a plan of several")
    add("-k", "--upstream_ckpt", metavar="DIR", help="where the upstream's weights lie now")
    add("--text-upstream-ckpt", metavar="DIR", help="where the text upstream's weights lie now")
    return parser
