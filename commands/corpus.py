"""List corpora, check one, or make a miniature of one."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .shell import Parser, split_pairs

HELP = "list corpora, check one before training, or make a miniature of one"
EXAMPLE = "headwater corpus check iemocap --data IEMOCAP_full_release"


def main(arguments: Sequence[str]) -> int:
    """Run `list`, `check` or `demo`."""
    parser = Parser("headwater corpus", "list: tasks and corpora. check: what is in one. demo: make a miniature.", EXAMPLE)
    parser.add_argument("action", choices=("list", "check", "demo"))
    parser.add_argument("corpus", nargs="?", help="a name from the list, or a csv / tsv / jsonl of your own")
    parser.add_argument("--data", help="the corpus' folder, or the manifest")
    parser.add_argument("--protocol", help="how it is split (default: the corpus' usual way)")
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--columns", metavar="OURS=THEIRS,…", help="headers of a manifest")
    parser.add_argument("--audio-root", metavar="DIR", help="what relative paths of a manifest start from")
    parser.add_argument("--demo", action="store_true", help="check the miniature")
    parser.add_argument("--demo-scale", type=float, default=1.0, help="size of the miniature (default 1)")
    flags = parser.parse_args(arguments)
    actions = {"list": list_all, "check": check, "demo": make_demo}
    return actions[flags.action](flags)


def list_all(flags: Namespace) -> int:
    """Print tasks x corpora."""
    from ..corpus.check import table_of_corpora

    if flags.corpus:
        raise UserError(
            f"Expected nothing after `corpus list`, found '{flags.corpus}'. For one corpus: `headwater corpus check`."
        )
    print(table_of_corpora())
    return 0


def check(flags: Namespace) -> int:
    """Print what is in a corpus, and every file in it that cannot be heard."""
    from ..corpus.audio import cache_folder, check_files
    from ..corpus.base import get_reader
    from ..corpus.check import describe
    from ..training.config import CorpusConfig, complete_corpus
    from ..training.prepare import read_corpus

    name, data = named(flags)
    options = {"columns": flags.columns and split_pairs(flags.columns, "--columns"), "audio_root": flags.audio_root}
    given = {key: value for key, value in options.items() if value is not None}
    asked = CorpusConfig(name, data, flags.protocol or "", flags.fold, given, flags.demo, flags.demo_scale)
    errors: list[str] = []
    config = complete_corpus(asked, get_reader(name), errors)
    if errors:
        raise UserError("\n".join(errors))
    corpus = read_corpus(config)
    utterances = [utterance for rows in corpus.splits.values() for utterance in rows]
    seconds, broken = check_files(utterances, cache_folder())
    print(describe(corpus, seconds, broken))
    return 3 if broken else 0


def make_demo(flags: Namespace) -> int:
    """Make a miniature in the corpus' official layout, and print where it lies."""
    from ..corpus.base import get_reader
    from ..corpus.demo import demo_root

    reader = get_reader(named(flags)[0])
    if reader.make_demo is None:
        raise UserError(f"Corpus '{reader.name}' has no demo. `headwater corpus list` says which have one.")
    print(demo_root(reader, scale=flags.demo_scale))
    return 0


def named(flags: Namespace) -> tuple[str, str | None]:
    """Return the corpus' name and where it lies; a table alone is a manifest."""
    from ..training.inputs import TABLES

    asked = flags.corpus or ("manifest" if flags.data else None)
    if asked is None:
        raise UserError(f"Expected a corpus after `corpus {flags.action}`, found none. `headwater corpus list` names them.")
    if Path(asked).suffix.lower() in TABLES:
        return "manifest", asked
    return asked, flags.data
