"""Ask a finished run about audio files."""

from __future__ import annotations

import csv
import io
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .shell import Parser

if TYPE_CHECKING:
    from ..corpus.base import Utterance
    from ..training.predict import Prediction, TrainedRun, Words

HELP = "label and scores for audio files"
EXAMPLE = "headwater predict result/downstream/my_run my.wav recordings/ list.csv --out labels.csv"
BROKEN = 3  # exit code where some files were passed over


def main(arguments: Sequence[str]) -> int:
    """Print one csv line for each file, in the order given; broken files carry their error."""
    flags = make_parser().parse_intermixed_args(arguments)  # options may stand between RUN and the files
    from ..training.predict import load_run

    refuse_mixtures(flags)
    files = files_asked(flags)
    broken = 0
    with lines_to(flags.out) as write:
        run = load_run(flags.run, flags.upstream_ckpt, flags.text_upstream_ckpt, flags.task)
        run = run.without_text() if flags.no_text else run
        run.move_to(flags.device)
        for mark in run.marks:
            print(f"{mark}: not a result to quote", file=sys.stderr)
        lines = FORMATS[flags.format](run.expert.vocabulary)
        write(csv_line(lines.header))
        for prediction in run.predict_all(files, words_of(flags, run)):
            if prediction.error:
                broken += 1
                print(f"passed over: {prediction.error}", file=sys.stderr)
            row = lines.row(prediction)
            if row:
                write(csv_line(row))
    if flags.out:
        print(f"written to {flags.out}: {len(files)} files, {broken} of them broken", file=sys.stderr)
    return BROKEN if broken else 0


def make_parser() -> Parser:
    """Return the flags."""
    parser = Parser("headwater predict", "Label (or ratings) and scores for every file, in the order given.", EXAMPLE)
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder")
    add("inputs", nargs="*", metavar="INPUT", help="audio files, folders, or lists (csv, tsv, jsonl, txt)")
    add("--task", help="which task, of a run of several")
    add("--corpus", help="the utterances of a corpus instead of files: a name of `headwater corpus list`")
    add("--data", help="where that corpus lies")
    add("--demo", action="store_true", help="the corpus' miniature")
    add("--demo-scale", type=float, default=1.0, help="its size")
    add("--fold", type=int, default=1, help="the fold of its usual protocol")
    add("--transcripts", metavar="WHAT", help="its texts from a table, or from a model of `corpus transcribe`")
    add("--split", default="test", help="its split (default: test)")
    add("--format", choices=tuple(FORMATS), default="csv", help="msp-challenge: the columns that MSP-Podcast's challenge takes")
    add("--transcribe", nargs="?", const="whisper_base", metavar="MODEL", help="recognise what is said where no text is given")
    add("--no-text", action="store_true", help="without texts, for a run trained with modality_dropout")
    add("--out", metavar="FILE", help="write the csv there instead of to stdout")
    add("-k", "--upstream_ckpt", metavar="DIR", help="where the upstream's weights lie now")
    add("--text-upstream-ckpt", metavar="DIR", help="where the text upstream's weights lie now")
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    return parser


def refuse_mixtures(flags: Namespace) -> None:
    """Refuse files and a corpus at once, and neither; and what --transcribe may have swallowed."""
    if bool(flags.inputs) == bool(flags.corpus):
        found = "both" if flags.corpus else "neither"
        swallowed = flags.transcribe and Path(flags.transcribe).suffix.lower() in {".wav", ".flac", ".csv", ".txt"}
        hint = f" Put --transcribe behind '{flags.transcribe}'." if swallowed else " For instance: headwater predict RUN my.wav"
        raise UserError(f"Expected audio files, or --corpus with --split, found {found}.{hint}")
    if flags.no_text and flags.transcribe:
        raise UserError("Expected --no-text or --transcribe, found both. Leave one out.")


def files_asked(flags: Namespace) -> Sequence[str | Utterance]:
    """Return the files named, or a split's utterances."""
    if not flags.corpus:
        from ..training.inputs import files_of

        return files_of(flags.inputs)
    from ..corpus.base import get_reader
    from ..training.config import CorpusConfig, complete_corpus
    from ..training.prepare import read_corpus

    errors: list[str] = []
    asked = CorpusConfig(
        flags.corpus, flags.data, fold=flags.fold, demo=flags.demo, demo_scale=flags.demo_scale, transcripts=flags.transcripts
    )
    config = complete_corpus(asked, get_reader(flags.corpus), errors)
    if errors:
        raise UserError("\n".join(errors))
    splits = read_corpus(config).splits
    if flags.split not in splits:
        raise UserError(
            f"Expected a split of {config.name} after --split, found '{flags.split}'. There are: {', '.join(splits)}."
        )
    return splits[flags.split]


def words_of(flags: Namespace, run: TrainedRun) -> Words | None:
    """Return what tells the run the words of a file; None where it reads none."""
    if not run.reads:
        if flags.transcribe and not run.without:
            raise UserError(f"Expected a run that reads text for --transcribe, found '{flags.run}', which only listens.")
        return None
    from ..training.texts import words_by

    return words_by(flags.transcribe, flags.device)


@contextmanager
def lines_to(out: str | None) -> Iterator[Callable[[str], object]]:
    """Give a function that writes a line to stdout, or to a file that appears whole when all went well."""
    if out is None:
        yield partial(print, flush=True)
        return
    from ..training.checkpoint import written_aside

    # opened before anything is computed: a place that cannot be written is known at once
    with written_aside(Path(out)) as aside, aside.open("w", encoding="utf-8") as file:
        yield lambda line: file.write(f"{line}\n")


@dataclass(frozen=True)
class Lines:
    """How predictions are written: the header, and a prediction's fields (none: it has no line)."""

    header: Sequence[str]
    row: Callable[[Prediction], list[str]]


def plain_lines(vocabulary: Mapping[str, Any]) -> Lines:
    """Return the columns of everybody: file, start, end, then label and scores, the ratings, or the text."""
    classes, dimensions = vocabulary.get("classes", ()), vocabulary.get("dimensions", ())
    named = [] if dimensions else ["label" if classes else "text"]
    answers = [*named, *(f"score_{name}" for name in classes), *dimensions]

    def row(prediction: Prediction) -> list[str]:
        """Return a file's fields, its error last."""
        if prediction.error:
            return [prediction.file, "", "", *([""] * len(answers)), prediction.error]
        heard = [f"{prediction.start:.3f}", f"{prediction.start + prediction.seconds:.3f}"] if prediction.seconds else ["", ""]
        numbers = [f"{value:.6f}" for value in (prediction.scores or {}).values()]
        return [prediction.file, *heard, *([str(prediction.label)] if named else []), *numbers, ""]

    return Lines(["file", "start", "end", *answers, "error"], row)


def challenge_lines(vocabulary: Mapping[str, Any]) -> Lines:
    """Return the columns of MSP-Podcast's challenge; a file without an answer has no line, and is told."""
    from ..corpus.msp_podcast import LETTERS, RATINGS

    columns = {name: column for name, column in RATINGS.items() if name in vocabulary.get("dimensions", ())}
    classes = vocabulary.get("classes", ["texts"])
    if "dimensions" not in vocabulary and not {*classes} <= {*LETTERS}:
        raise UserError(
            f"Expected a run on MSP-Podcast's emotions or ratings for --format msp-challenge, found one on "
            f"{', '.join(classes)}. Leave --format out."
        )

    def row(prediction: Prediction) -> list[str]:
        """Return a file's name and its answer."""
        if prediction.scores is None:
            return []
        numbers = [f"{prediction.scores[name]:.6f}" for name in columns]
        return [Path(prediction.file).name, *(numbers or [LETTERS[str(prediction.label)]])]

    return Lines(["FileName", *(columns.values() or ["EmoClass"])], row)


FORMATS: dict[str, Callable[[Mapping[str, Any]], Lines]] = {"csv": plain_lines, "msp-challenge": challenge_lines}


def csv_line(fields: Sequence[str]) -> str:
    """Return fields as one line of csv."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(fields)
    return buffer.getvalue()
