"""List corpora, check one, make a miniature of one, or have one transcribed."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError, nearest
from .common.shell import Parser, TypedPath, split_pairs

if TYPE_CHECKING:
    from ..corpus.base import Corpus, Utterance
    from ..corpus.transcription.recogniser import AsrModel
    from ..corpus.transcription.transcribe import Transcribed


HELP = "list corpora, check one before training, make a miniature of one, or have one transcribed"
EXAMPLE = "headwater corpus check iemocap --data IEMOCAP_full_release"


BROKEN = 3  # exit code where some files were passed over


def main(arguments: Sequence[str]) -> int:
    """Run `list`, `check`, `demo` or `transcribe`."""
    actions = {"list": list_all, "check": check, "demo": make_demo, "transcribe": transcribe}
    words = "list: tasks and corpora. check: what is in one. demo: make a miniature. transcribe: write down what is said in one."
    parser = Parser("headwater corpus", words, EXAMPLE)
    parser.add_argument("action", choices=actions)
    words = "a name from the list, a csv / tsv / jsonl of your own, or ./my_corpus.py"
    parser.add_argument("corpus", nargs="?", action=TypedPath, kind="corpus", help=words)
    parser.add_argument("--data", help="the corpus' folder, or the manifest")
    parser.add_argument("--protocol", help="how it is split (default: the corpus' usual way)")
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--columns", metavar="OURS=THEIRS,…", help="headers of a manifest")
    parser.add_argument("--audio-root", metavar="DIR", help="what relative paths of a manifest start from")
    parser.add_argument("--demo", action="store_true", help="check or transcribe the miniature")
    parser.add_argument("--demo-scale", type=float, default=1.0, help="size of the miniature (default 1)")
    own = parser.add_argument_group("transcribe")
    own.add_argument("--model", help="whisper_tiny, whisper_base (default), …, a hub id or a folder")
    own.add_argument("--language", help="what is spoken: en (default), de, …, or auto: the model guesses")
    own.add_argument("--split", metavar="NAME,…", help="these splits only")
    own.add_argument("--device", help="cpu (default), cuda, cuda:1")
    own.add_argument("--out", metavar="FILE", help="write id and text there too (csv, tsv, jsonl)")
    flags = parser.parse_args(arguments)
    if flags.action != "transcribe" and (flags.model or flags.language or flags.split or flags.device or flags.out):
        raise UserError(
            f"Expected --model, --language, --split, --device and --out after `transcribe`, not after `{flags.action}`."
        )
    return actions[flags.action](flags)


def list_all(flags: Namespace) -> int:
    """Print tasks x corpora."""
    from ..corpus.describe import table_of_corpora

    if flags.corpus:
        raise UserError(
            f"Expected nothing after `corpus list`, found '{flags.corpus}'. For one corpus: `headwater corpus check`."
        )
    print(table_of_corpora())
    for line in from_packages():
        print(line)
    return 0


def from_packages() -> list[str]:
    """Return which tasks and corpora come from packages of somebody else's, and which of them cannot be had."""
    from ..corpus.base import CORPORA
    from ..downstream.base import TASKS

    offers = [f"{name} (task of {source})" for name, source in TASKS.offered().items()]
    offers += [f"{name} (corpus of {source})" for name, source in CORPORA.offered().items()]
    lines = [f"\nfrom packages: {', '.join(offers)}"] if offers else []
    return [*lines, *(f"passed over: {problem}" for problem in TASKS.broken())]


def check(flags: Namespace) -> int:
    """Print what is in a corpus, and every file in it that cannot be heard."""
    from ..core.files import cache_folder
    from ..corpus.audio import check_files
    from ..corpus.describe import describe

    corpus = corpus_of(flags)
    utterances = [utterance for rows in corpus.splits.values() for utterance in rows]
    seconds, broken = check_files(utterances, cache_folder())
    print(describe(corpus, seconds, broken))
    return BROKEN if broken else 0


def transcribe(flags: Namespace) -> int:
    """Have a recogniser write down what is said, and print how well it did."""
    from ..corpus.transcription.recogniser import find_asr
    from ..corpus.transcription.transcribe import table_ending, write_texts
    from ..corpus.transcription.transcribe import transcribe as hear
    from ..training.model import check_device

    out, device = flags.out and Path(flags.out).expanduser(), flags.device or "cpu"
    check_device(device)
    if out:
        table_ending(out)  # a place that cannot be written to is told before anything is heard
    corpus = corpus_of(flags)
    splits = chosen_splits(corpus, flags.split)
    asr = find_asr(flags.model or "whisper_base", flags.language)
    done = hear([utterance for rows in splits.values() for utterance in rows], asr, device)
    for entry in done.broken:
        print(f"passed over: {entry}", file=sys.stderr)
    for line in (*("DEMO: not a result to quote",) * flags.demo, *spoken(done, asr, device), *compared(splits, done, asr)):
        print(line)
    if out:
        write_texts(out, done.texts)
    print(f"use it with --transcripts {asr.words}" + (f" or --transcripts {out}" if out else ""))
    return BROKEN if done.broken else 0


def spoken(done: Transcribed, asr: AsrModel, device: str) -> list[str]:
    """Return how much was transcribed, and what it took."""
    total, empty = len(done.texts), sum(1 for text in done.texts.values() if not text)
    lines = [f"{total} utterances ({done.hours:.2f} h) transcribed by {asr.name}, language {asr.language}, {empty} of them empty"]
    if done.fresh:
        pace = done.seconds / done.fresh_hours
        lines.append(f"{done.fresh} heard now, the others remembered; {pace:.0f} s for an hour of audio on {device}")
    else:
        lines.append("all of them remembered")
    return lines


def compared(splits: Mapping[str, Sequence[Utterance]], done: Transcribed, asr: AsrModel) -> list[str]:
    """Return the word error rate of each split and of all against the corpus' own text."""
    from ..corpus.transcription.transcribe import normalizer_of, word_errors

    told = {
        name: [(row.text, done.texts[row.id]) for row in rows if row.text is not None and row.id in done.texts]
        for name, rows in splits.items()
    }
    if not any(told.values()):
        return ["the corpus has no text of its own to compare with"]
    if len(told) > 1:
        told["all"] = [pair for pairs in told.values() for pair in pairs]
    normalize, called = normalizer_of(asr)
    lines = []
    for name, pairs in told.items():
        found = word_errors(pairs, normalize)
        if found is not None:
            lines.append(
                f"WER {100 * found.rate:.1f} % in {name} ({found.errors} of {found.words} words; {found.left_out} left out)"
            )
    return [f"against the corpus' text, {called} on both sides, utterances without a word in it left out:", *lines]


def chosen_splits(corpus: Corpus, asked: str | None) -> Mapping[str, Sequence[Utterance]]:
    """Return the splits that `--split` names, or all."""
    if asked is None:
        return corpus.splits
    names = asked.split(",")
    unknown = next((name for name in names if name not in corpus.splits), None)
    if unknown is not None:
        close = nearest(unknown, corpus.splits)
        raise UserError(f"Expected splits of {corpus.name} ({', '.join(corpus.splits)}), found '{unknown}'.{close} Name these.")
    return {name: corpus.splits[name] for name in names}


def corpus_of(flags: Namespace) -> Corpus:
    """Return the corpus that the flags name."""
    from ..corpus.load import get_reader
    from ..runs.config.resolve import complete_corpus
    from ..runs.config.schema import CorpusConfig
    from ..runs.prepare import read_corpus

    name, data = named(flags)
    options: dict[str, Any] = {
        "columns": flags.columns and split_pairs(flags.columns, "--columns"),
        "audio_root": flags.audio_root,
    }
    if flags.action == "transcribe" and name == "manifest":
        options["label_required"] = False  # what is said needs no label
    given = {key: value for key, value in options.items() if value is not None}
    asked = CorpusConfig(name, data, flags.protocol or "", flags.fold, given, flags.demo, flags.demo_scale)
    errors: list[str] = []
    config = complete_corpus(asked, get_reader(name), errors)
    if errors:
        raise UserError("\n".join(errors))
    return read_corpus(config)


def make_demo(flags: Namespace) -> int:
    """Make a miniature in the corpus' official layout, and print where it lies."""
    from ..corpus.demo.make import demo_root
    from ..corpus.load import get_reader

    reader = get_reader(named(flags)[0])
    if reader.make_demo is None:
        raise UserError(f"Corpus '{reader.name}' has no demo. `headwater corpus list` says which have one.")
    print(demo_root(reader, scale=flags.demo_scale))
    return 0


def named(flags: Namespace) -> tuple[str, str | None]:
    """Return the corpus' name and where it lies; a table alone is a manifest."""
    from ..corpus.tables import TABLES

    asked = flags.corpus or ("manifest" if flags.data else None)
    if asked is None:
        raise UserError(f"Expected a corpus after `corpus {flags.action}`, found none. `headwater corpus list` names them.")
    if Path(asked).suffix.lower() in TABLES:
        return "manifest", asked
    return asked, flags.data
