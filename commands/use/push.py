"""Push a finished run to the hub, with a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError
from ..common.console import print_note, print_result
from ..common.sections import sections_of, text_weights_of
from ..common.shell import Parser

HELP = "push a finished run to the Hugging Face hub: weights, a model card with intervals and licences, hashes"
EXAMPLE = "headwater push result/downstream/my_run ann/emotion --dry-run"


def main(arguments: Sequence[str]) -> int:
    """Upload the run, or write what would be uploaded."""
    flags = make_parser().parse_args(arguments)
    if flags.folder and not flags.dry_run:
        raise UserError("Expected --dry-run beside --folder, found none. Add it, or leave --folder out.")
    from ...core.sharing.names import repository_name
    from ...inference.sharing.push import Choice, dry_run, push_run

    repository = repository_name(flags.repository)
    text_weights = text_weights_of(sections_of(flags.override, ["text_upstream"]))
    choice = Choice(flags.task, flags.fold, flags.upstream_ckpt, text_weights, flags.license)
    if flags.dry_run:
        folder = Path(flags.folder or repository.split("/")[1])
        terms = dry_run(flags.run, repository, folder, choice)
        yours = ["note      are all of these yours? --license ID names the card's licence"] * (terms.id == "unknown")
        print_note(
            f"licence   {terms.id}: {terms.why}", *yours, f"written to {folder}; nothing was uploaded. Read {folder}/README.md"
        )
        return 0
    pushed = push_run(flags.run, repository, choice, private=flags.private, revision=flags.revision, message=flags.message)
    print_note(f"licence   {pushed.terms.id}: {pushed.terms.why}", f"uploaded  {pushed.files} files: {pushed.url}")
    print_result(f"headwater predict hf:{repository}@{pushed.commit} my.wav")
    return 0


def make_parser() -> Parser:
    """Return the flags."""
    words = (
        "Push a finished run to the Hugging Face hub in one commit: what `headwater export` writes, a model card, and the sha256 "
        "of each file. The token is that of `hf auth login`, or HF_TOKEN. The run is then loaded as hf:OWNER/NAME."
    )
    parser = Parser("headwater push", words, EXAMPLE)
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or the folder of several folds together with --fold")
    add("repository", metavar="OWNER/NAME", help="the repository on the hub; it is made where it is not there")
    add("--dry-run", action="store_true", help="write the folder that would be uploaded, and upload nothing")
    add("--folder", metavar="DIR", help="with --dry-run: the folder to write, new or empty (default: NAME)")
    add("--private", action="store_true", help="make the repository private; one that is public is refused")
    add("--revision", metavar="BRANCH", help="commit to this branch, which is made where it is not there (default: main)")
    add("--message", metavar="TEXT", help="the title of the commit")
    words = "the card's licence, as the hub calls it (apache-2.0, cc-by-4.0 …); never a commercial one over a non-commercial part"
    add("--license", metavar="ID", help=words)
    add("--task", help="push this task of a run that has several")
    add("--fold", type=int, metavar="N", help="push this fold of a plan")
    add("-k", "--upstream_ckpt", metavar="DIR", help="folder with the weights of the upstream, if they have moved")
    words = "where the weights of the text upstream have moved to: text_upstream.path=DIR"
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=words)
    return parser
