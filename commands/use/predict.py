"""Predict labels and scores of audio files with a finished run."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from ...core.text import as_path, printable
from ..common.console import print_note, print_result
from ..common.hints import PREDICTION
from ..common.sections import read_corpus_of, sections_of, text_weights_of
from ..common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ...downstream.answer import Answer
    from ...inference.folds import Folds
    from ...inference.inputs import Item
    from ...inference.predict import Prediction, TranscriptLookup
    from ...inference.several import Predictions, Several
    from ...inference.trained_run import TrainedRun

    AnyRun = TrainedRun | Folds | Several


HELP = "predict labels and scores of audio files with a finished run"
EXAMPLE = "headwater predict result/downstream/my_run my.wav recordings/ list.csv --out labels.csv"
SECTIONS = ("corpus", "text_upstream", "asr")  # that -o sets; of asr, how a finished run is read: asr.beam
BROKEN = 3  # exit code where some files were passed over


def main(arguments: Sequence[str]) -> int:
    """Print one csv line for each file, in the order given; broken files carry their error."""
    flags = make_parser().parse_intermixed_args(arguments)  # options may stand between RUN and the files
    from ...core.run_folder import RunFolder
    from ...core.sharing.fetch import run_place
    from ...inference.folds import Folds
    from ...inference.load import load_run
    from ...inference.several import Several, load_several

    refuse_mixtures(flags)
    if flags.format == "rttm" and flags.out:
        raise UserError("Expected no --out beside --format rttm, which is printed, found one. Type: … --format rttm > FILE.rttm")
    if flags.pair:
        return print_pairs(flags)
    files = inputs_of(flags)
    if flags.format == "msp-challenge":
        refuse_one_name(files)
    # of a single run, --fold is the corpus' alone
    fold = None if flags.corpus and RunFolder(run_place(flags.run)).runs() is None else flags.fold
    sections = sections_of(flags.override, SECTIONS)
    options = {name: sections[name] for name in sections if name not in ("corpus", "text_upstream")}
    places = flags.upstream_ckpt, text_weights_of(sections)
    run: AnyRun
    if is_several(flags):
        run = load_several(flags.run, words_of(flags.task), flags.also, *places, fold, options)
    else:
        run = load_run(flags.run, *places, flags.task, fold, options)
    run = run.without_text() if flags.no_text else run
    run.move_to(flags.device)
    print_note(*(f"{mark}: not a result to quote" for mark in run.marks), *([run.description] if isinstance(run, Folds) else []))
    print_note(*leakage_note(flags, run), *trained_note(files, run))
    lines = several_lines(run) if isinstance(run, Several) else FORMATS[flags.format](run.answer)
    transcripts = transcript_lookup(flags, run)
    broken = print_all(files, run, lines, transcripts) if flags.out is None else write_all(flags, files, run, lines, transcripts)
    return BROKEN if broken else 0


def is_several(flags: Namespace) -> bool:
    """Return whether several runs, or several tasks of one, predict on the same files."""
    return bool(flags.also) or len(words_of(flags.task)) > 1


def words_of(text: str | None) -> list[str]:
    """Return `a,b` as words."""
    return [word for word in (part.strip() for part in (text or "").split(",")) if word]


def leakage_note(flags: Namespace, run: AnyRun) -> list[str]:
    """Return a note where folds predict on the corpus that each of them was trained on a part of."""
    from ...inference.folds import Folds

    if not (isinstance(run, Folds) and flags.corpus and flags.fold is None):
        return []
    trained = [member.config.only.corpus for member in run.runs]
    if trained[0].name != flags.corpus or len({corpus.fold for corpus in trained}) == 1:
        return []
    return [
        f"note: other folds of {flags.run} were trained on this split of {flags.corpus}; --fold N chooses the one that was not"
    ]


def trained_note(files: Sequence[Item], run: AnyRun) -> list[str]:
    """Return a note where a run over a table, or any of some folds, was trained on files that are to predict."""
    from ...core.run_folder import RunFolder
    from ...inference.folds import Folds
    from ...inference.inputs import audio_of
    from ...inference.several import Several
    from ...runs.leakage import trained_utterances

    if isinstance(run, Several):
        return list(dict.fromkeys(note for one in run.runs.values() for note in trained_note(files, one)))
    folders = [RunFolder(member.folder) for member in (run.runs if isinstance(run, Folds) else (run,))]
    lists = [folder.read().trained_on() for folder in folders if folder.trained_on.is_file()]  # an exported run has none
    known = {name.rpartition(" ")[0] for each in lists for name in trained_utterances(each, "manifest")}
    count = sum(os.path.abspath(audio_of(file)) in known for file in files)
    return [f"note: {run.folder} was trained on {count} of these {len(files)} files: their labels say little"] if count else []


def print_pairs(flags: Namespace) -> int:
    """Print a line for each pair of files, in the order given; return the exit code."""
    from ...inference.csv_journal import csv_line
    from ...inference.load import load_run

    run = load_run(flags.run, flags.upstream_ckpt, None, flags.task, flags.fold)
    run.answer.pairs()
    run.move_to(flags.device)
    print_note(*(f"{mark}: not a result to quote" for mark in run.marks))
    print_result(csv_line(["file", "other", "score", "label", "error"]))
    broken = 0
    for pair in (run.predict_pair(one, other) for one, other in flags.pair):
        broken += bool(pair.error)
        score = "" if pair.score is None else f"{pair.score:.6f}"
        print_result(csv_line([as_path(pair.file), as_path(pair.other), score, pair.label, printable(pair.error)]))
    return BROKEN if broken else 0


def print_all(files: Sequence[Item], run: AnyRun, lines: Lines, transcripts: TranscriptLookup | None) -> int:
    """Print a line for each file as it comes; return how many are broken."""
    from ...inference.csv_journal import csv_line

    broken = 0
    if lines.header:
        print_result(csv_line(lines.header))
    for prediction in run.predict_all(files, transcripts):
        if prediction.error:
            broken += 1
            print_note(f"passed over: {prediction.error}")
        row = lines.row(prediction)
        if row:
            print_result(csv_line(row) if lines.header else row[0])
    return broken


def write_all(flags: Namespace, files: Sequence[Item], run: AnyRun, lines: Lines, transcripts: TranscriptLookup | None) -> int:
    """Add what is new or changed to a csv, which appears whole when all went well; return how many files are broken."""
    from tqdm import tqdm

    from ...inference.csv_journal import growing
    from ...inference.inputs import version_of

    has_audio = "audio" in run.roles
    with growing(Path(flags.out), about(flags, run), lines.header) as table:
        todo = table.todo(files, partial(version_of, has_audio=has_audio, has_text=run.uses_text))
        print_note(*table.notes)
        try:
            predictions = tqdm(run.predict_all(todo, transcripts), total=len(todo), desc="predicting", unit="file", disable=None)
            for item, prediction in zip(todo, predictions, strict=True):
                table.add(item, lines.row(prediction), failed=bool(prediction.error))
                if prediction.error:
                    print_note(f"passed over: {prediction.error}")
        except KeyboardInterrupt:
            print_note("the same command goes on where it was")
            raise
    print_note(table.summary(has_audio=has_audio))
    return table.broken


def about(flags: Namespace, run: AnyRun) -> dict[str, Any]:
    """Return what all rows of a csv have in common: the run and its options."""
    from ...inference.waveforms import WINDOW_SECONDS

    recogniser = None
    if flags.transcribe and run.uses_text:
        from ...corpus.transcription.recogniser import find_asr

        recogniser = find_asr(flags.transcribe).fingerprint[:16]
    return {
        "run": run.fingerprint[:16],
        "task": flags.task,
        "fold": flags.fold,
        "texts": "read" if run.uses_text else "left out" if run.without else "none",
        "transcribed by": recogniser,
        "window": WINDOW_SECONDS,
        "format": flags.format,
    }


def make_parser() -> Parser:
    """Return the flags."""
    help_text = "Predict the label (or ratings, or text) and the scores of every file with a finished run, in the order given."
    parser = Parser("headwater predict", help_text, EXAMPLE, PREDICTION)
    add = parser.add_argument
    add(
        "run",
        metavar="RUN",
        help="a run folder, the folder of several folds or seeds (their scores are averaged), or hf:OWNER/NAME on the hub",
    )
    add("inputs", nargs="*", metavar="INPUT", help="audio files, folders, or lists of files (csv, tsv, jsonl, txt)")
    help_text = "say whether two files are of one speaker (a run of asv); repeat it for more pairs"
    add("--pair", nargs=2, action="append", metavar=("A", "B"), help=help_text)
    add("--task", metavar="TASK,…", help="predict this task of a run that has several, or some of them at once: emotion,ks")
    help_text = "predict with this run too, in columns of its own; a model that runs share is in memory once; repeat it for more"
    add("--also", action="append", default=[], metavar="[NAME=]RUN", help=help_text)
    help_text = (
        "predict the utterances of a corpus in place of files: a name that `headwater list corpora` shows, or ./my_corpus.py"
    )
    add("--corpus", action=TypedPath, kind="corpus", help=help_text)
    help_text = "load the code of the run's own task from this folder"
    add("-d", "--downstream", action=TypedPath, kind="task", only_paths=True, metavar="DIR", help=help_text)
    user_code: dict[str, Any] = {"action": TypedPath, "kind": "upstream", "only_paths": True, "metavar": "FILE"}
    add("-u", "--upstream", **user_code, help="load the code of the run's own upstream from this file")
    add("--text-upstream", **user_code, help="load the code of the run's own text upstream from this file")
    add("--data", metavar="PATH", help="folder or table of the corpus")
    add("--demo", action="store_true", help="use the miniature of the corpus")
    help_text = "use this fold of a plan; with --corpus, also this fold of the corpus (default there: 1)"
    add("--fold", type=int, metavar="N", help=help_text)
    help_text = "read the transcripts of the corpus from a table (id, text), or use those that `headwater corpus transcribe` made"
    add("--transcripts", metavar="WHAT", help=help_text)
    add("--split", default="test", help="the split of the corpus (default: test)")
    help_text = (
        "the columns of the csv; msp-challenge: those of MSP-Podcast's challenge; rttm: turns of sd, printed (default: csv)"
    )
    add("--format", choices=tuple(FORMATS), default="csv", help=help_text)
    help_text = "transcribe files that have no transcript with this Whisper model (default: whisper_base)"
    add("--transcribe", nargs="?", const="whisper_base", metavar="MODEL", help=help_text)
    add("--no-text", action="store_true", help="predict without transcripts (needs a run trained with modality_dropout)")
    help_text = "write to this csv, or update it: new and changed files are computed, other rows stay"
    add("--out", metavar="FILE", help=help_text)
    add("-k", "--upstream_ckpt", metavar="DIR", help="folder with the weights of the upstream, if they have moved")
    help_text = (
        "options of the corpus, where weights have moved to, how transcripts are found: corpus.protocol=…, "
        "text_upstream.path=DIR, asr.beam.lm=FILE, asr.beam=null (greedily)"
    )
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=help_text)
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    return parser


def refuse_mixtures(flags: Namespace) -> None:
    """Refuse files and a corpus at once, and neither; and what --transcribe may have swallowed."""
    if not flags.corpus and "corpus" in sections_of(flags.override, SECTIONS):
        raise UserError("Expected --corpus NAME beside -o corpus.…, found none. Add it, or leave the option out.")
    if is_several(flags) and (flags.pair or flags.format != "csv"):
        other = "--pair" if flags.pair else f"--format {flags.format}"
        raise UserError(f"Expected one run and one task for {other}, found several. Leave --also and other tasks out.")
    if flags.pair and (flags.inputs or flags.corpus or flags.out):
        other = "files" if flags.inputs else "--corpus" if flags.corpus else "--out"
        raise UserError(f"Expected --pair A B alone, found {other} beside it. Leave one out.")
    if not flags.pair and bool(flags.inputs) == bool(flags.corpus):
        found = "both" if flags.corpus else "neither"
        swallowed = flags.transcribe and Path(flags.transcribe).suffix.lower() in {".wav", ".flac", ".csv", ".txt"}
        hint = f" Put --transcribe behind '{flags.transcribe}'." if swallowed else " For instance: headwater predict RUN my.wav"
        raise UserError(f"Expected audio files, or --corpus with --split, found {found}.{hint}")
    if flags.no_text and flags.transcribe:
        raise UserError("Expected --no-text or --transcribe, found both. Leave one out.")


def inputs_of(flags: Namespace) -> Sequence[Item]:
    """Return the files named, or a split's utterances."""
    if not flags.corpus:
        from ...inference.inputs import files_of

        return files_of(flags.inputs)
    section = sections_of(flags.override, SECTIONS).get("corpus") or {}
    values = {"name": flags.corpus, "data": flags.data, "fold": flags.fold or 1, "demo": flags.demo}
    corpus = read_corpus_of({**values, "transcripts": flags.transcripts}, section)
    splits = corpus.splits
    if flags.split not in splits:
        raise UserError(
            f"Expected a split of {corpus.name} after --split, found '{flags.split}'. There are: {', '.join(splits)}."
        )
    return splits[flags.split]


def refuse_one_name(files: Sequence[Item]) -> None:
    """Refuse different files of one name for a table that has no folders."""
    from ...inference.inputs import audio_of

    seen: dict[str, str] = {}
    for path in map(audio_of, files):
        first = seen.setdefault(Path(path).name, path)
        if first != path:
            raise UserError(
                f"Expected a name for each file for --format msp-challenge, whose table has no folders, found two called "
                f"'{Path(path).name}': {first} and {path}. Rename one, or leave --format out."
            )


def transcript_lookup(flags: Namespace, run: AnyRun) -> TranscriptLookup | None:
    """Return the lookup of a file's transcript; None where the run uses no text."""
    if not run.uses_text:
        if flags.transcribe and not run.without:
            raise UserError(f"Expected a run that reads text for --transcribe, found '{flags.run}', which uses audio only.")
        return None
    from ...inference.texts import lookup_transcripts

    return lookup_transcripts(flags.transcribe, flags.device)


@dataclass(frozen=True)
class Lines:
    """How predictions are written: the header, and a prediction's fields (none: it has no line)."""

    header: Sequence[str]
    row: Callable[[Any], list[str]]  # of a Prediction, or of the Predictions of several runs


def plain_lines(answer: Answer) -> Lines:
    """Return the columns of everybody: file, start, end, a label (ratings have none), scores (a text has none), error."""
    named = answer.answered
    columns = [*named, *(f"score_{name}" for name in answer.score_names)]

    def row(prediction: Prediction) -> list[str]:
        """Return a file's fields, its error last."""
        if prediction.error:
            return [as_path(prediction.file), "", "", *([""] * len(columns)), printable(prediction.error)]
        times = [f"{prediction.start:.3f}", f"{prediction.start + prediction.seconds:.3f}"] if prediction.seconds else ["", ""]
        numbers = [f"{value:.6f}" for value in (prediction.scores or {}).values()]
        answered = map(printable, answer.write(prediction.label) if named else [])
        return [as_path(prediction.file), *times, *answered, *numbers, ""]

    return Lines(["file", "start", "end", *columns, "error"], row)


def several_lines(runs: Several) -> Lines:
    """Return the columns of several runs beside each other, each with the run's name before it."""
    lines = {name: plain_lines(run.answer) for name, run in runs.runs.items()}
    columns = [f"{name}.{column}" for name, own in lines.items() for column in own.header[3:-1]]

    def row(found: Predictions) -> list[str]:
        """Return a file's fields, its errors last."""
        rows = {name: lines[name].row(prediction) for name, prediction in found.by_run.items()}
        times = next((cells[1:3] for cells in rows.values() if cells[1]), ["", ""])
        return [
            as_path(found.first.file),
            *times,
            *(cell for cells in rows.values() for cell in cells[3:-1]),
            printable(found.error),
        ]

    return Lines(["file", "start", "end", *columns, "error"], row)


def challenge_lines(answer: Answer) -> Lines:
    """Return the columns of MSP-Podcast's challenge; a file without a prediction has no line, and is reported."""
    from ...corpus.readers.msp_podcast import LETTERS, RATINGS

    rated = answer.column is None
    columns = {name: column for name, column in RATINGS.items() if rated and name in answer.score_names}
    if not rated and not {*(answer.classes or [answer.kind])} <= {*LETTERS}:
        raise UserError(
            f"Expected a run on MSP-Podcast's emotions or ratings for --format msp-challenge, found one on "
            f"{', '.join(answer.classes or [answer.kind])}. Leave --format out."
        )

    def row(prediction: Prediction) -> list[str]:
        """Return a file's name and its prediction."""
        if prediction.scores is None:
            return []
        numbers = [f"{prediction.scores[name]:.6f}" for name in columns]
        return [Path(prediction.file).name, *(numbers or [LETTERS[str(prediction.label)]])]

    return Lines(["FileName", *(columns.values() or ["EmoClass"])], row)


def rttm_lines_of(answer: Answer) -> Lines:
    """Return RTTM: a line for each turn, and no header."""
    from ...corpus.rttm import rttm_lines

    if answer.kind != "turns":
        raise UserError(
            f"Expected a run of sd, which predicts turns, for --format rttm, found one of {answer.kind}. Leave it out."
        )

    def row(prediction: Prediction) -> list[str]:
        """Return all lines of a file as one."""
        if prediction.error:
            return []
        offset = prediction.start  # of a stretch of a recording
        turns = [(speaker, offset + start, offset + end) for speaker, start, end in prediction.label.turns]
        return ["\n".join(rttm_lines(Path(prediction.file).stem, turns))] if turns else []  # nobody speaks

    return Lines([], row)


FORMATS: dict[str, Callable[[Answer], Lines]] = {"csv": plain_lines, "msp-challenge": challenge_lines, "rttm": rttm_lines_of}
