"""Look into a corpus, transcribe it, trim its silence, or make a miniature of one."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError, nearest
from .common.console import print_note, print_result
from .common.hints import CORPUS
from .common.sections import read_corpus_of, sections_of
from .common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..corpus.base import Corpus, Utterance
    from ..corpus.transcription.recogniser import AsrModel
    from ..corpus.transcription.transcribe import Transcribed


HELP = "count what is in a corpus and find broken files, transcribe it, trim it, or make a miniature of it"
EXAMPLE = "headwater corpus check iemocap --data IEMOCAP_full_release"


BROKEN = 3  # exit code where some files were passed over


def main(arguments: Sequence[str]) -> int:
    """Run `check`, `demo`, `transcribe` or `trim`."""
    if arguments[:1] == ["list"]:
        raise UserError(f"There is no `corpus list` any more. Type: headwater {shlex.join(['list', 'corpora', *arguments[1:]])}")
    actions = {"check": check, "demo": make_demo, "transcribe": transcribe, "mix": make_mixtures, "trim": trim}
    words = (
        "check: count utterances by split, class and speaker, and find broken files. transcribe: transcribe the audio with "
        "Whisper. demo: make a miniature of the corpus. mix: make conversations of its speakers, for diarization. trim: copy "
        "the folder --data to --out, silence cut out."
    )
    parser = Parser("headwater corpus", words, EXAMPLE, CORPUS)
    parser.add_argument("action", choices=actions)
    words = "a name that `headwater list corpora` shows, a csv / tsv / jsonl of your own, or ./my_corpus.py"
    parser.add_argument("corpus", nargs="?", action=TypedPath, kind="corpus", help=words)
    parser.add_argument("--data", help="folder of the corpus, or its table")
    parser.add_argument("--fold", type=int, default=1, help="the fold whose splits are used (default: 1)")
    parser.add_argument("--demo", action="store_true", help="check or transcribe the miniature")
    words = "options of the corpus: corpus.protocol=…, corpus.demo_scale=0.2, corpus.options.columns.label=emotion"
    parser.add_argument("-o", "--override", nargs="+", action="extend", default=[], metavar="corpus.KEY=VALUE", help=words)
    own = parser.add_argument_group("transcribe")
    own.add_argument("--model", help="the recogniser: whisper_tiny, whisper_base (default), …, a hub id or a folder")
    own.add_argument("--language", help="the language spoken: en (default), de, …, or auto (the model detects it)")
    own.add_argument("--split", metavar="NAME,…", help="transcribe only these splits")
    own.add_argument("--device", help="cpu (default), cuda, cuda:1, mps")
    words = "also write id and text to a table (csv, tsv, jsonl); of mix and trim, the new folder"
    own.add_argument("--out", metavar="FILE", help=words)
    mixing = parser.add_argument_group("mix (with --out FOLDER)")
    mixing.add_argument("--hours", type=float, help="of training conversations (default: 1); a fifth of it for dev and test each")
    mixing.add_argument("--seconds", type=float, help="of a conversation (default: 20)")
    mixing.add_argument("--speakers", type=int, help="of a conversation (default: 2)")
    mixing.add_argument("--pause", type=float, help="mean seconds between what one speaker says (default: 1)")
    mixing.add_argument("--seed", type=int, help="of what is drawn (default: 0)")
    flags = parser.parse_args(arguments)
    refuse_flags(flags)
    return actions[flags.action](flags)


def refuse_flags(flags: Namespace) -> None:
    """Refuse flags of another action."""
    own = {"transcribe": ("model", "language", "split", "device", "out"), "mix": ("out", *MIXING), "trim": ("out",)}
    for action, names in own.items():
        for name in names:
            if getattr(flags, name) is not None and name not in own.get(flags.action, ()):
                raise UserError(f"Expected --{name} after `{action}`, not after `{flags.action}`. Leave it out.")


MIXING = ("hours", "seconds", "speakers", "pause", "seed")


def make_mixtures(flags: Namespace) -> int:
    """Write conversations of a corpus' speakers into a folder."""
    from ..corpus.mixtures import Mixing, mix

    if flags.out is None:
        raise UserError("Expected --out FOLDER for the conversations, found none. For instance: --out mixtures")
    given = {name: getattr(flags, name) for name in MIXING if getattr(flags, name) is not None}
    out = Path(flags.out).expanduser()
    counts = mix(corpus_of(flags), out, Mixing(**given))
    listed = ", ".join(f"{split} {count}" for split, count in counts.items())
    print_result(f"{listed} conversations; use them with: -d sd --corpus rttm --data {shlex.quote(str(out))}")
    return 0


def check(flags: Namespace) -> int:
    """Print what is in a corpus, and every file in it that cannot be read."""
    from ..core.files import cache_folder
    from ..corpus.audio import check_files
    from ..corpus.describe import describe
    from ..corpus.overlap import identical_files

    corpus = corpus_of(flags)
    utterances = [utterance for rows in corpus.splits.values() for utterance in rows]
    seconds, broken = check_files(utterances, cache_folder())
    identical = identical_files(utterance.audio for utterance in utterances if utterance.id in seconds)
    print_result(describe(corpus, seconds, broken, identical))
    return BROKEN if broken else 0


def transcribe(flags: Namespace) -> int:
    """Transcribe a corpus with a recogniser, and print its word error rate."""
    from ..corpus.transcription.recogniser import find_asr
    from ..corpus.transcription.transcribe import table_ending, write_texts
    from ..corpus.transcription.transcribe import transcribe as hear
    from ..training.model import check_device

    out, device = flags.out and Path(flags.out).expanduser(), flags.device or "cpu"
    check_device(device)
    if out:
        table_ending(out)  # a place that cannot be written to is reported before anything is transcribed
    corpus = corpus_of(flags)
    splits = chosen_splits(corpus, flags.split)
    asr = find_asr(flags.model or "whisper_base", flags.language)
    done = hear([utterance for rows in splits.values() for utterance in rows], asr, device)
    print_note(*(f"passed over: {entry}" for entry in done.broken))
    print_result(
        *("DEMO: not a result to quote",) * flags.demo, *transcription_summary(done, asr, device), *compared(splits, done, asr)
    )
    if out:
        write_texts(out, done.texts)
    print_result(f"use it with --transcripts {asr.spelling}" + (f" or --transcripts {out}" if out else ""))
    return BROKEN if done.broken else 0


def trim(flags: Namespace) -> int:
    """Copy a corpus' folder without its silence, as SUPERB's speaker verification has it."""
    from tqdm import tqdm

    from ..corpus.trim import trim_corpus

    if not (flags.data and flags.out) or flags.corpus or flags.demo:
        raise UserError("Expected --data FOLDER and --out FOLDER after `trim`, and no more. See `headwater corpus --help`.")
    done = [*tqdm(trim_corpus(Path(flags.data), Path(flags.out)), desc="trimming", unit="file", disable=None)]
    broken = [one for one in done if one.error]
    print_note(*(f"passed over: {one.error}" for one in broken))
    before, after = sum(one.seconds for one in done), sum(one.left for one in done)
    print_result(f"{len(done) - len(broken)} files, {before / 3600:.2f} h, trimmed to {after / 3600:.2f} h in {flags.out}")
    return BROKEN if broken else 0


def transcription_summary(done: Transcribed, asr: AsrModel, device: str) -> list[str]:
    """Return how much was transcribed, and what it took."""
    total, empty = len(done.texts), sum(1 for text in done.texts.values() if not text)
    lines = [f"{total} utterances ({done.hours:.2f} h) transcribed by {asr.name}, language {asr.language}, {empty} of them empty"]
    if done.fresh:
        pace = done.seconds / done.fresh_hours
        lines.append(f"{done.fresh} transcribed now, the others cached; {pace:.0f} s for an hour of audio on {device}")
    else:
        lines.append("all of them remembered")
    return lines


def compared(splits: Mapping[str, Sequence[Utterance]], done: Transcribed, asr: AsrModel) -> list[str]:
    """Return the word error rate of each split and of all against the corpus' own text."""
    from ..corpus.transcription.transcribe import normalizer_of, word_errors

    texts = {
        name: [(row.text, done.texts[row.id]) for row in rows if row.text is not None and row.id in done.texts]
        for name, rows in splits.items()
    }
    if not any(texts.values()):
        return ["the corpus has no text of its own to compare with"]
    if len(texts) > 1:
        texts["all"] = [pair for pairs in texts.values() for pair in pairs]
    normalize, called = normalizer_of(asr)
    lines = []
    for name, pairs in texts.items():
        found = word_errors(pairs, normalize)
        if found is not None:
            lines.append(
                f"WER {100 * found.rate:.1f} % in {name} ({found.errors} of {found.spelling} words; {found.left_out} left out)"
            )
    return [f"against the corpus' text, {called} on both sides, utterances without a word in it left out:", *lines]


def chosen_splits(corpus: Corpus, requested: str | None) -> Mapping[str, Sequence[Utterance]]:
    """Return the splits that `--split` names, or all."""
    if requested is None:
        return corpus.splits
    names = requested.split(",")
    unknown = next((name for name in names if name not in corpus.splits), None)
    if unknown is not None:
        close = nearest(unknown, corpus.splits)
        raise UserError(f"Expected splits of {corpus.name} ({', '.join(corpus.splits)}), found '{unknown}'.{close} Name these.")
    return {name: corpus.splits[name] for name in names}


def corpus_of(flags: Namespace) -> Corpus:
    """Return the corpus that the flags name."""
    name, data = named(flags)
    options: dict[str, Any] = {}
    if name == "manifest":  # neither verb needs folds, and a transcript no label
        options = {"splits_required": False, "label_required": flags.action != "transcribe"}
    values = {"name": name, "data": data, "fold": flags.fold, "demo": flags.demo, "options": options}
    return read_corpus_of(values, section_of(flags))


def section_of(flags: Namespace) -> dict[str, Any]:
    """Return the options behind -o corpus.KEY=VALUE."""
    return sections_of(flags.override, ["corpus"]).get("corpus") or {}


def make_demo(flags: Namespace) -> int:
    """Make a miniature in the corpus' official layout, and print where it lies."""
    from ..core.options import bind
    from ..corpus.demo.make import demo_root
    from ..corpus.load import get_reader
    from ..runs.config.schema import CorpusConfig

    reader = get_reader(named(flags)[0])
    if reader.make_demo is None:
        raise UserError(f"Corpus '{reader.name}' has no demo. `headwater list corpora` shows which have one.")
    section = section_of(flags)
    other = next((key for key in section if key != "demo_scale"), None)
    if other is not None:
        raise UserError(f"Expected -o corpus.demo_scale=0.2 after `corpus demo`, found corpus.{other}. Leave it out.")
    errors: list[str] = []
    config = bind(CorpusConfig, section, "corpus", errors)
    if errors:
        raise UserError("\n".join(errors))
    print_result(str(demo_root(reader, scale=config.demo_scale)))
    return 0


def named(flags: Namespace) -> tuple[str, str | None]:
    """Return the corpus' name and where it lies; a table alone is a manifest."""
    from ..corpus.locate import recognise
    from ..corpus.tables import TABLES

    folder = Path(flags.data or "").expanduser()
    if flags.data and not flags.corpus and folder.is_dir():
        found = recognise(folder)
        name = found[0] if len(found) == 1 else "NAME"
        layout = f"the layout of {' and '.join(found)}" if found else "no layout that is known"
        raise UserError(
            f"Expected a corpus after `corpus {flags.action}`, found {layout} in '{flags.data}'. "
            f"Name it: {shlex.join(['headwater', 'corpus', flags.action, name, '--data', flags.data])}"
        )
    requested = flags.corpus or ("manifest" if flags.data else None)
    if requested is None:
        raise UserError(f"Expected a corpus after `corpus {flags.action}`, found none. `headwater list corpora` lists them.")
    if Path(requested).suffix.lower() in TABLES:
        return "manifest", requested
    return requested, flags.data
