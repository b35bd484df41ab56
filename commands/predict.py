"""Ask a finished run about audio files."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .shell import Parser

if TYPE_CHECKING:
    from ..training.predict import Prediction

HELP = "label and scores for audio files"
EXAMPLE = "headwater predict result/downstream/my_run my.wav recordings/ list.csv --out labels.csv"
BROKEN = 3  # exit code where some files were passed over


def main(arguments: Sequence[str]) -> int:
    """Print one csv line for each file, in the order given; broken files carry their error."""
    parser = Parser("headwater predict", "Label and scores for every file, in the order given.", EXAMPLE)
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="audio files, folders, or lists (csv, tsv, jsonl, txt)")
    parser.add_argument("--out", metavar="FILE", help="write the csv there instead of to stdout")
    parser.add_argument("-k", "--upstream_ckpt", metavar="DIR", help="where the upstream's weights lie now")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    flags = parser.parse_args(arguments)
    from ..training.inputs import files_of
    from ..training.predict import load_run

    files = files_of(flags.inputs)
    broken = 0
    with lines_to(flags.out) as write:
        run = load_run(flags.run, flags.upstream_ckpt)
        run.move_to(flags.device)
        for mark in run.marks:
            print(f"{mark}: not a result to quote", file=sys.stderr)
        classes = run.expert.vocabulary["classes"]
        write(csv_line(["file", "start", "end", "label", *(f"score_{name}" for name in classes), "error"]))
        for prediction in run.predict_all(files):
            if prediction.error:
                broken += 1
                print(f"passed over: {prediction.error}", file=sys.stderr)
            write(csv_line(row_of(prediction, classes)))
    if flags.out:
        print(f"written to {flags.out}: {len(files)} files, {broken} of them broken", file=sys.stderr)
    return BROKEN if broken else 0


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


def row_of(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    """Return the csv fields of one file."""
    if prediction.scores is None:
        return [prediction.file, "", "", "", *([""] * len(classes)), prediction.error]
    scores = [f"{prediction.scores[name]:.6f}" for name in classes]
    return [
        prediction.file,
        f"{prediction.start:.3f}",
        f"{prediction.start + prediction.seconds:.3f}",
        str(prediction.label),
        *scores,
        "",
    ]


def csv_line(fields: Sequence[str]) -> str:
    """Return fields as one line of csv."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(fields)
    return buffer.getvalue()
