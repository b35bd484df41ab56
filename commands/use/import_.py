"""Convert a checkpoint of s3prl: a trained head to a run, a model to a folder of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ..common.console import print_result
from ..common.shell import Parser

HELP = "convert a checkpoint of s3prl: an emotion head to a run, a HuBERT, wav2vec 2.0, data2vec or WavLM to a model folder"
EXAMPLE = "headwater import result/downstream/er/dev-best.ckpt runs/er"


def make_parser() -> Parser:
    """Return the flags."""
    parser = Parser("headwater import", f"{HELP[0].upper()}{HELP[1:]}. No code in the file is executed.", EXAMPLE)
    add = parser.add_argument
    add("file", metavar="FILE", help="a checkpoint of s3prl: dev-best.ckpt, states-30000.ckpt, or a converted hubert.pt")
    add("folder", metavar="DIR", help="the run folder or model folder to write; it must not exist")
    add("-u", "--upstream", metavar="NAME", help="the upstream of the run (default: the one that the checkpoint names)")
    add("-k", "--upstream_ckpt", metavar="PATH", help="weights of the upstream: a folder, or a file of s3prl")
    add("--classes", metavar="A,B,…", help="names of the classes, in the order of the head (default: neu,hap,ang,sad)")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Import a file, and print what to do with the folder."""
    flags = make_parser().parse_args(arguments)
    path, folder = Path(flags.file).expanduser(), Path(flags.folder).expanduser()
    if folder.exists():
        raise UserError(f"Expected a folder that is not there yet, found '{folder}'. Choose another name, or remove it.")
    from ...core.torch_files import read_torch_file
    from ...inference.import_s3prl import PARTS, import_head, recognise_head

    content = read_torch_file(path)
    if isinstance(content, Mapping) and {*content} >= PARTS:
        classes = [word.strip() for word in flags.classes.split(",")] if flags.classes else None
        config = import_head(recognise_head(path, content), folder, flags.upstream, flags.upstream_ckpt, classes)
        print_result(f"emotion on {config.upstream.name}, fold {config.only.corpus.fold} of IEMOCAP: written to {folder}")
        print_result(f"headwater predict {folder} my.wav")
        return 0
    given = {"-u": flags.upstream, "-k": flags.upstream_ckpt, "--classes": flags.classes}
    for flag in (flag for flag, value in given.items() if value):
        raise UserError(f"Expected {flag} beside a downstream checkpoint, found '{path}', which is none. Leave {flag} out.")
    import_model(path, content, folder)
    return 0


def import_model(path: Path, content: Any, folder: Path) -> None:
    """Write a model as a folder of transformers, and say what is in it."""
    from ...upstream.s3prl.conversion import recognise, stem_of, write_folder

    model = recognise(path, content)
    left_out = sorted({name.split(".")[0] for name in write_folder(model, folder)})
    print_result(f"{model.family.title}: written to {folder}")
    if left_out:
        print_result(f"left out, since no layer needs it: {', '.join(left_out)}")
    print_result(f"headwater downstream -u {stem_of(model.family.model_type)} -k {folder} -d emotion --demo")
