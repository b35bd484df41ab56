"""Search recordings for a spoken query, without training: SUPERB's query by example."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from .common.console import print_note, print_result
from .common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..corpus.base import Corpus, Utterance
    from ..search.config import SearchConfig
    from ..search.run import Place
    from ..upstream.base import UpstreamConfig

TASK = "qbe"
HELP = "search recordings for a spoken query, and score the search (SUPERB's QbE): nothing is trained"
EXAMPLE = "headwater qbe -u hubert --data quesst14Database"
OF_FLAGS = ("name", "path", "layer", "trainable")  # of an upstream: said by -u, -k and -l, or nothing to a search
LEFT_OUT = ("-d", "--downstream", "-m", "--mode", "-t", "--evaluate_split")  # of `headwater downstream`
OPTIONS = """\
  headwater qbe -u hubert -l 9 --queries word.wav --documents recordings/ --out found.csv

options after -o, with s3prl's settings as defaults:
  distance=cosine_exp            cosine_exp, cosine, cosine_neg_log, euclidean or cityblock
  minmax=true                    bring the distances of each frame of a query to the range from 0 to 1
  normalize_frames=true          mean 0, deviation 1 of each dimension over all frames
  normalize_scores=true          mean 0, deviation 1 of each query's scores
  min_frames=5                   shorter queries find nothing
  threshold=2                    scores above it are detections (default: where the score on dev is best; s3prl: 2)
  prior=0.0008 miss=100 false_alarm=1      what the term weighted value and Cnxe assume
  upstream.attend=valid          the upstream's own options, as in `headwater downstream`
  corpus.protocol=all            the queries and documents of all languages (default: superb, the English ones)
  corpus.demo_scale=0.2          size of the miniature of --demo"""


def make_parser() -> Parser:
    """Return the flags; those of `headwater downstream` keep their meaning."""
    words = (
        "Search documents for spoken queries by dynamic time warping over the frames of a frozen upstream. dev chooses the "
        "layer, test reports it. Without terms in the tables, print the best stretches for each query."
    )
    parser = Parser("headwater qbe", words, f"{EXAMPLE}\n{OPTIONS}")
    add = parser.add_argument
    help_text = "the model that reads audio: a name that `headwater list upstreams` shows, a hub id, a folder, ./my_upstream.py"
    add("-u", "--upstream", action=TypedPath, kind="upstream", required=True, help=help_text)
    add("-k", "--upstream_ckpt", metavar="PATH", help="load the weights of the upstream from this folder")
    help_text = "the layers to search with: all (default), 9, or 0,4,8; dev chooses one of them"
    add("-l", "--upstream_layer_selection", default="all", metavar="N", help=help_text)
    add("--corpus", action=TypedPath, kind="corpus", help="a corpus to search (default: quesst14)")
    add("--data", metavar="FOLDER", help="the folder of the corpus")
    add("--demo", action="store_true", help="use the miniature of the corpus, which is made on the spot")
    help_text = "your queries: audio files in a folder, one file, or a table (audio, start, end, term, speaker, split)"
    add("--queries", metavar="WHAT", help=help_text)
    help_text = "your documents: audio files in a folder, one file, or a table (audio, start, end, terms or text, speaker)"
    add("--documents", metavar="WHAT", help=help_text)
    add("--top", type=int, default=10, metavar="N", help="without terms: print so many stretches for each query (default: 10)")
    add("--out", metavar="FILE", help="without terms: write the stretches to a csv in place of printing them")
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="set options (see below)")
    add("-n", "--expname", metavar="NAME", help="write to result/downstream/NAME")
    add("-p", "--expdir", metavar="DIR", help="write to this folder")
    add("--store", metavar="DIR", help="keep the computed features in this folder (default: the cache)")
    add("--store-limit", metavar="SIZE", help="how much may be stored, as in 80GB (default: a quarter of the free disk)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print only the table of results")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Search, and print the scores or what was found."""
    flags = make_parser().parse_args(arguments)
    if bool(flags.queries) != bool(flags.documents):
        there, lacking = ("--queries", "--documents") if flags.queries else ("--documents", "--queries")
        raise UserError(f"Expected --queries and --documents together, found {there} alone. Add {lacking}.")
    if flags.queries and (flags.data or flags.demo or flags.corpus):
        raise UserError("Expected a corpus, or --queries and --documents, found both. Leave one out.")
    if flags.top < 1:
        raise UserError(f"Expected --top of 1 or more, found {flags.top}.")
    from ..runs.runtime import Runtime
    from ..search.run import Place, evaluate
    from ..search.tables import corpus_of, has_terms, read_recordings

    config, section = config_of(flags)
    place = Place(Runtime(flags.device, flags.quiet), flags.store, flags.store_limit)
    if flags.queries:
        queries, documents = (read_recordings(name) for name in (flags.queries, flags.documents))
        known, known_of_documents = has_terms(queries), has_terms(documents)
        if not (known and known_of_documents):
            if known or known_of_documents:
                pair = ("queries", "documents") if known else ("documents", "queries")
                print_note("note      not scored: the {} have terms, the {} have none".format(*pair))
            return find_and_print(flags, queries, documents, section, config, place)
        corpus = corpus_of(queries, documents)
    else:
        corpus = read_corpus(flags, config)
    if flags.out:
        raise UserError("Expected --out beside recordings without terms, found terms, which are scored. Use -p DIR.")
    folder = folder_of(flags, corpus)
    result = evaluate(corpus, section, flags.upstream_layer_selection, config, place, folder)
    print_result(result_text(result), f"results: {folder}")
    return 0


def config_of(flags: Namespace) -> tuple[SearchConfig, UpstreamConfig]:
    """Return the options behind -o, and the upstream with its own (upstream.attend=valid)."""
    from ..core.options import bind, merge, parse_override
    from ..search.config import SearchConfig
    from ..upstream.base import UpstreamConfig

    errors: list[str] = []
    options: dict[str, Any] = reduce(merge, map(parse_override, flags.override), {})
    given = {"name": flags.upstream, "path": flags.upstream_ckpt}
    section = bind(UpstreamConfig, options.pop("upstream", {}), "upstream", errors, without=OF_FLAGS)
    config = bind(SearchConfig, options, "", errors)
    if errors:
        raise UserError("\n".join(errors))
    return config, replace(section, **given)


def read_corpus(flags: Namespace, config: SearchConfig) -> Corpus:
    """Return the corpus that the flags name."""
    from ..corpus.load import default_corpus, get_reader
    from ..corpus.read import load_corpus

    name = flags.corpus or default_corpus(TASK)
    if TASK not in get_reader(name).tasks:
        raise UserError(
            f"Expected a corpus with queries and documents, found '{name}'. Use {default_corpus(TASK)}, or --queries and "
            "--documents."
        )
    data = flags.data or config.corpus.data
    if data and Path(data).is_file():
        raise UserError(
            f"Expected the folder of {name} after --data, found the file {data}. Tables of your own go behind --queries and "
            "--documents."
        )
    return load_corpus(name, data, protocol=config.corpus.protocol, demo=flags.demo, demo_scale=config.corpus.demo_scale)


def folder_of(flags: Namespace, corpus: Corpus) -> Path:
    """Return where the result goes."""
    from ..plans.naming import is_untrained

    if flags.expname and flags.expdir:
        raise UserError("Expected one folder for the result, found both -n and -p. Leave one out.")
    if flags.expdir:
        return Path(flags.expdir)
    marks = "-DEMO" * corpus.demo + "-UNTRAINED" * is_untrained(flags.upstream)
    upstream = re.sub(r"[^\w.-]+", "_", flags.upstream.strip("./"))
    return Path("result") / "downstream" / ((flags.expname or f"{TASK}-{upstream}-{corpus.name}") + marks)


def find_and_print(
    flags: Namespace,
    queries: Sequence[Utterance],
    documents: Sequence[Utterance],
    section: UpstreamConfig,
    config: SearchConfig,
    place: Place,
) -> int:
    """Print the best stretches for each query, or write them to a csv."""
    from ..analysis.table import number, render
    from ..search.output import write_detections
    from ..search.run import find

    if flags.expname or flags.expdir:
        raise UserError("Expected --out FILE for recordings without terms, found -n or -p: there is no score to keep.")
    found, windows, marks = find(queries, documents, section, flags.upstream_layer_selection, config, place, flags.top)
    if flags.out:
        write_detections(Path(flags.out), found, queries, windows, marks)
        print_note(f"written to {flags.out}")
        return 0
    rows = [
        {
            "query": queries[one.query].id,
            "document": windows[one.document].id,
            "score": number(one.score),
            "start": f"{one.start:.2f}",
            "end": f"{one.end:.2f}",
        }
        for one in found
    ]
    print_result(*marks, render(rows))
    return 0


def result_text(result: Mapping[str, Any]) -> str:
    """Return the scores as a table, with what a user should know of them."""
    from ..analysis.table import interval, number, render

    splits = [*result["scores"]]
    chosen = " (best dev MTWV)" * ("dev" in splits and len(result["layers"]) > 1)
    where = [
        TASK,
        result["upstream"],
        result["corpus"],
        result["protocol"],
        f"layer {result['layer']}{chosen}",
    ]
    rows = []
    for metric in result["scores"][splits[0]]:
        row = {"metric": metric} | {split: number(result["scores"][split][metric]) for split in splits}
        for split, ends in result["intervals"].items():
            if metric in ends:
                few = f"{result['num_queries'][split]} {split} queries: no interval"
                row[f"95 % interval ({split})"] = few if ends[metric] is None else interval(ends, metric, None, split)
        rows.append(row)
    lines = [" ".join(result["marks"])] * bool(result["marks"])
    lines += [" · ".join(filter(None, where)), render(rows)]
    counts = ", ".join(f"{count} {split} queries" for split, count in result["num_queries"].items())
    lines.append(f"{counts}, {result['num_documents']} documents; detections are above {number(result['threshold'])}")
    for split, whole in result["whole_ground_truth"].items():
        lines.append(
            f"{split}, all {whole['queries']:.0f} queries and {whole['documents']:.0f} documents of the ground truth, as the "
            f"official scorer counts: MTWV {number(whole['mtwv'])}, min Cnxe {number(whole['min_cnxe'])}"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])


def words_of(words: Sequence[str]) -> list[str] | None:
    """Return the words of `headwater downstream -d qbe …` as they are typed here; None where -d names another task.

    Every search is tested on both splits, so that -m evaluate and -t have nothing to add.
    """
    kept, named = list[str](), False
    left = [*words]
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name not in LEFT_OUT:
            kept.append(word)
            continue
        value = value if equals else left.pop(0) if left else ""
        named = named or (name in {"-d", "--downstream"} and value == TASK)
    return kept if named else None


def run_as(words: Sequence[str]) -> int:
    """Search as `headwater downstream -d qbe` says, and show the command."""
    print_note(f"run as    headwater {TASK} {shlex.join(words)}")
    return main(words)
