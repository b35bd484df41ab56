"""Write a finished run as a folder that needs nothing else."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError
from ..common.console import print_note
from ..common.hints import TEXT_WEIGHTS
from ..common.sections import sections_of, text_weights_of
from ..common.shell import Parser

HELP = "export a finished run to a folder that works without network and cache, and to ONNX"
EXAMPLE = "headwater export result/downstream/my_run my_model --onnx --page"
WITHOUT_GRAPH = 3  # exit code where the folder is whole, and the requested graph or page is not in it


def main(arguments: Sequence[str]) -> int:
    """Write the folder, and say what to do with it, and what it lacks."""
    flags = make_parser().parse_args(arguments)
    if flags.hub:
        return write_upstream(flags)
    if flags.half:
        raise UserError(
            "Expected --hub beside --half, found a run to export whole, in the numbers it was trained in. Leave it out."
        )
    if flags.ort and not flags.page:
        raise UserError(
            "Expected --page beside --ort, which is where the page's runtime lies, found none. Add it, or leave it out."
        )
    from ...inference.export.export import export_run
    from ...inference.export.onnx import FILE

    exported = export_run(
        flags.run,
        flags.folder,
        weights=flags.upstream_ckpt,
        text_weights=text_weights_of(sections_of(flags.override, ["text_upstream"])),
        task=flags.task,
        fold=flags.fold,
        onnx=flags.onnx,
        extra=flags.extra,
        keep_adapter=flags.keep_adapter,
        page=flags.page,
        ort=flags.ort,
    )
    folder = Path(flags.folder)
    if exported.graph:
        worst, sounds = exported.graph["compared"]["worst_difference"], len(exported.graph["compared"]["seconds"])
        print_note(f"onnx      {FILE} computes what the run does, to {worst:.1e} ({sounds} sounds, 0.5 to 20 s)")
        print_page(folder, flags.page and not exported.no_page)
    if exported.needed:
        print_note(f"needs     {' and '.join(exported.needed)}: the folder does not hold that")
    use = "".join(f" --use {folder / file}" for file in exported.code)
    print_note(f"written to {folder}: headwater predict {folder}{use} my.wav")
    if exported.no_graph:
        print_note(f"no {FILE}{' and no page' if flags.page else ''}: {exported.no_graph}")
    if exported.no_page:
        print_note(f"no page: {exported.no_page}")
    return WITHOUT_GRAPH if exported.no_graph or exported.no_page else 0


def print_page(folder: Path, has_page: bool) -> None:
    """Print where the page is, and how large its folder."""
    if not has_page:
        return
    from ...inference.export.page.page import FOLDER

    size = sum(file.stat().st_size for file in (folder / FOLDER).iterdir())
    place = folder / FOLDER / "index.html"
    print_note(f"page      {place} predicts in the browser ({size / 1e6:.0f} MB): open it, or put its folder on a host")


def write_upstream(flags: Namespace) -> int:
    """Write the upstream alone, and say how it is used."""
    from ...inference.export.hub_format import export_adapter, export_upstream

    rest = {"--onnx": flags.onnx, "--page": flags.page, "--with": flags.extra, "--task": flags.task, "--fold": flags.fold}
    for flag in (flag for flag, value in rest.items() if value):
        raise UserError(f"Expected no {flag} beside --hub, which writes the upstream alone, found it. Leave one of them out.")
    if flags.keep_adapter:
        if flags.half:
            raise UserError("Expected no --half beside --keep-adapter, whose weights are few, found it. Leave one of them out.")
        base = export_adapter(flags.run, flags.folder).config["base_model_name_or_path"]
        print_note(f"written to {flags.folder}: peft's PeftModel.from_pretrained(model, '{flags.folder}') puts it over {base}")
        return 0
    upstream = export_upstream(flags.run, flags.folder, half=flags.half)
    size = sum(weight.numel() for weight in upstream.parameters())
    print_note(f"written to {flags.folder}: {size:,} weights; use it with -u {flags.folder}, or transformers' from_pretrained")
    return 0


def make_parser() -> Parser:
    """Return the flags."""
    words = "Write a finished run to a folder that holds its weights, tokenizer and labels, and works without network and cache."
    parser = Parser("headwater export", words, EXAMPLE, TEXT_WEIGHTS)
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or the folder of several folds together with --fold")
    add("folder", metavar="DIR", help="the folder to write; it must be new or empty")
    add("--onnx", action="store_true", help="also write an ONNX graph, if its outputs equal those of the run")
    words = "with --onnx: also write DIR/page, a folder whose index.html predicts in the browser, without a server"
    add("--page", action="store_true", help=words)
    words = (
        "with --page: take onnxruntime-web from this tarball of `npm pack`, or folder (default: fetched once from npm's registry)"
    )
    add("--ort", metavar="PATH", help=words)
    add("--hub", action="store_true", help="write the upstream alone, as transformers loads it: config.json, model.safetensors")
    add("--half", action="store_true", help="with --hub: in float16, half the size")
    words = "also write the run's adapter as peft loads it, into DIR/adapter; with --hub: nothing else, into DIR"
    add("--keep-adapter", action="store_true", help=words)
    words = "copy a file or folder that your own code reads, beside the code; may be repeated"
    add("--with", dest="extra", action="append", default=[], metavar="FILE", help=words)
    add("--task", help="export this task of a run that has several")
    add("--fold", type=int, metavar="N", help="export this fold of a plan")
    add("-k", "--upstream_ckpt", metavar="DIR", help="folder with the weights of the upstream, if they have moved")
    words = "where the weights of the text upstream have moved to: text_upstream.path=DIR"
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=words)
    return parser
