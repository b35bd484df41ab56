"""Fill a store with the features of a large corpus: tables, folders, tars, long recordings; in shards, by many processes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from .common.console import print_note, print_result
from .common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..runs.extraction.config import ExtractConfig
    from ..runs.extraction.extract import Outcome

HELP = "fill a store with the features of a large corpus, in shards that many processes or machines share"
EXAMPLE = "headwater extract corpus.csv -u hubert --shards 64"
OF_FLAGS = ("name", "path", "layer")  # of an upstream: said by -u, -k and -l
FAILED = 3  # exit code: it went through, and some recordings have no features
OPTIONS = """\
  headwater extract 'shard-{000..099}.tar' -u hubert --shards 100 --shard $SLURM_ARRAY_TASK_ID
  headwater extract recordings/ -u hubert --stretch 30 --plan

options after -o, as in `headwater downstream`, whose runs find the features where theirs are the same:
  upstream.attend=valid          the upstream's own options
  training.precision=bf16        compute in bf16 or fp16 (default: float32)
  store.precision=int8           keep frames in 8 bits (default: float16; means are in float32)
  corpus.options.columns.audio=HEADER      which column of a table is which"""


def make_parser() -> Parser:
    """Return the flags; those of `headwater downstream` keep their meaning."""
    words = (
        "Compute the features of a table, a folder of audio or tars into a store, where `headwater downstream` finds them. "
        "The plan comes first. Run the command several times: the processes share the shards. Run it again: it goes on."
    )
    parser = Parser("headwater extract", words, f"{EXAMPLE}\n{OPTIONS}")
    add = parser.add_argument
    help_text = "a table (csv, tsv, jsonl: audio, start, end), a folder of audio, or tars (shard-{000..099}.tar, 'shards/*.tar')"
    add("input", metavar="MANIFEST", nargs="+", help=help_text)
    help_text = "the model that reads audio: a name that `headwater list upstreams` shows, a hub id, a folder, ./my_upstream.py"
    add("-u", "--upstream", action=TypedPath, kind="upstream", required=True, help=help_text)
    add("-k", "--upstream_ckpt", metavar="PATH", help="load the weights of the upstream from this folder")
    add("-l", "--upstream_layer_selection", type=int, metavar="N", help="keep one layer (default: all)")
    add("--shards", type=int, metavar="N", help="split the work in so many shards (default: 16, or one for each file)")
    add(
        "--shard",
        type=int,
        metavar="K",
        help="compute this shard alone, from 0 (default: those that are free, until none is left)",
    )
    add("--stretch", type=float, metavar="SECONDS", help="cut recordings that name no end into stretches of this length")
    add("--frames", action="store_true", help="keep all frames (default: their mean)")
    add("--statistics", default="mean", metavar="WHICH", help="keep mean (default), mean+std or mean+max over time")
    add(
        "--most",
        metavar="SIZE",
        help="refuse more than this, as in 2TB (default: 100GB of frames; means: what the disk has free)",
    )
    add("--plan", action="store_true", help="print hours, bytes and core-hours, and stop")
    add("--retry", action="store_true", help="try recordings that failed again")
    add("--store", metavar="DIR", help="keep the features in this folder (default: the cache)")
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="set options (see below)")
    add("--device", default="auto", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print only the plan and the result")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Plan, compute, merge; exit code 3 where some recordings failed."""
    flags = make_parser().parse_intermixed_args(arguments)
    config = config_of(flags)
    from ..corpus.recordings.source import find_source
    from ..runs.extraction.config import Rows
    from ..runs.extraction.extract import Share, extract
    from ..runs.features import store_root
    from ..runs.runtime import Runtime

    rows = Rows(flags.frames, flags.statistics, flags.stretch)
    source = find_source(flags.input, config.corpus.options)
    share = Share(flags.shards, flags.shard, flags.most, flags.plan, flags.retry)
    show = (lambda _: None) if flags.quiet else print_note
    root, runtime = store_root(flags.store or "auto"), Runtime(flags.device, flags.quiet)
    outcome = extract(source, config, rows, root, share, runtime, show, print_result)
    print_outcome(outcome, flags)
    return FAILED if outcome.failures else 0


def config_of(flags: Namespace) -> ExtractConfig:
    """Return the options behind -o, and the upstream that the flags name."""
    from ..core.options import bind, merge, parse_override
    from ..runs.extraction.config import ExtractConfig
    from ..upstream.base import UpstreamConfig

    errors: list[str] = []
    options: dict[str, Any] = reduce(merge, map(parse_override, flags.override), {})
    section = bind(UpstreamConfig, options.pop("upstream", {}), "upstream", errors, without=OF_FLAGS)
    config = bind(ExtractConfig, options, "", errors)
    if errors:
        raise UserError("\n".join(errors))
    given = {"name": flags.upstream, "path": flags.upstream_ckpt, "layer": flags.upstream_layer_selection}
    return replace(config, upstream=replace(section, **given))


def print_outcome(outcome: Outcome, flags: Namespace) -> None:
    """Print what has become of it, and what to do next."""
    if outcome.job is None:
        return
    failures = outcome.job.folder / "failures.csv"
    if outcome.merged is not None:
        merged = outcome.merged
        print_result(
            f"merged    {merged.utterances:,} utterances ({merged.seconds / 3600:,.2f} h) of {outcome.job.shards} shards; "
            f"{merged.rows:,} rows were computed for them, in {outcome.job.space}"
        )
        if merged.failures:
            print_result(f"failed    {merged.failures}, listed in {failures}. Mend them, and run the command again with --retry.")
        if flags.store:
            print_result(f"use it    headwater downstream -u {flags.upstream} --store {flags.store} …")
        return
    left = outcome.job.left()
    print_result(
        f"left      {len(left)} of {outcome.job.shards} shards: {', '.join(map(str, left[:8]))}{', …' * (len(left) > 8)}"
    )
    for line in outcome.held[:4]:
        print_note(f"held      {line}")
    print_note("merge     comes with the last shard, by the process that finishes it")
