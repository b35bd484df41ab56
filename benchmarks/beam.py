"""Words read greedily, by beam search, and with an n-gram model of the training texts: real speech, Whisper tiny.en.

    python benchmarks/beam.py DATA WEIGHTS WORK

DATA and WEIGHTS are those of real_speech.py. The model is a bigram of the training split's own texts, its weights are chosen on
dev; what is printed is of test. Finished runs in WORK are kept.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from real_speech import HOME, SETS, VALID, write_table

from headwater.downstream.asr.answer import Transcript
from headwater.downstream.asr.beam import BeamConfig, Search, choose
from headwater.downstream.spelling import error_rates
from headwater.inference.predict import Piece
from headwater.inference.trained_run import TrainedRun, load_one
from headwater.inference.waveforms import windows_of

ADAM = ("optimizer.lr=2e-3", "select_by=cer", VALID)
OPTIONS = {
    "digits spelt": (
        *("asr.projector_dim=128", "asr.hidden_dim=128", *ADAM),
        *("training.steps=800", "training.eval_every=100", "training.batch_size=32", "training.patience=6"),
    ),
    "readers' words": (
        *("asr.projector_dim=256", "asr.layers=0", *ADAM),
        *("training.steps=400", "training.eval_every=50", "training.batch_size=16", "training.patience=20"),
    ),
}
Said = list[tuple[str, list[Transcript]]]  # of each utterance what is said, and its windows


def main() -> None:
    """Train what is missing, and print a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    for one in (one for one in SETS if one.name in OPTIONS and one.rows and (data / one.folder).is_dir()):
        slug = "".join(letter for letter in one.name if letter.isalnum())
        table, model, folder = work / f"{slug}.csv", work / f"{slug}.arpa", work / slug
        write_table(table, list(one.rows(data / one.folder)))
        with table.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        model.write_text(bigrams([row["text"].upper() for row in rows if row["split"] == "train"]), encoding="utf-8")
        if not (folder / "result.json").is_file():
            command = [sys.executable, str(HOME / "run_downstream.py"), "-u", str(weights / "whisper_tiny_en"), "-d", "asr"]
            command += ["--data", str(table), "--quiet", "-p", str(folder), "-o", *OPTIONS[one.name]]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = load_one(folder, options={"asr": {"beam": {}}})
        dev, test = (said(run, [row for row in rows if row["split"] == split]) for split in ("dev", "test"))
        characters, config = tuple(run.vocabulary["characters"]), BeamConfig(lm=str(model))
        logs = [np.concatenate([part.logs for part in parts]) for _, parts in dev]
        chosen = choose(config, characters, [text for text, _ in dev], logs)
        searches = {
            "greedy": None,
            "beam": Search(characters, BeamConfig()),
            f"beam, bigram (weight {chosen['lm_weight']:g}, bonus {chosen['word_bonus']:g})": Search(
                characters, config, chosen["lm_weight"], chosen["word_bonus"]
            ),
        }
        speech = sum(part.seconds for _, parts in test for part in parts)
        for name, search in searches.items():
            began = time.perf_counter()
            found = [
                " ".join(" ".join(search.find(part.logs) if search else part.greedy for part in parts).split())
                for _, parts in test
            ]
            spent, rates = time.perf_counter() - began, error_rates([text for text, _ in test], found)
            print(
                f"{one.name}, {name}: WER {rates['wer']:.3f}, CER {rates['cer']:.3f}, {spent:.2f} s for {speech:.0f} s",
                flush=True,
            )


def said(run: TrainedRun, rows: Sequence[dict[str, str]]) -> Said:
    """Return what is said in utterances, and what the run makes of their windows before any search."""
    return [
        (row["text"].upper(), [run.rows(Piece(window, None).batch())[0] for window in windows_of(row["audio"])]) for row in rows
    ]


def bigrams(texts: Sequence[str]) -> str:
    """Return a bigram model of texts in ARPA's format, smoothed as Witten and Bell do."""
    sentences = [["<s>", *text.split(), "</s>"] for text in texts]
    words = Counter(word for sentence in sentences for word in sentence[1:])
    pairs = Counter(pair for sentence in sentences for pair in pairwise(sentence))
    after: Counter[str] = Counter(first for first, _ in pairs.elements())
    kinds: Counter[str] = Counter(first for first, _ in pairs)
    total = sum(words.values()) + len(words)  # an unknown word has the share of all first occurrences
    alone = {word: count / total for word, count in words.items()}
    kept = {first: kinds[first] / (after[first] + kinds[first]) for first in after}  # for words not seen behind it

    def log(value: float) -> str:
        return f"{math.log10(value):.5f}"

    lines = [
        "\\data\\",
        f"ngram 1={len(words) + 2}",
        f"ngram 2={len(pairs)}",
        "",
        "\\1-grams:",
        f"{log(len(words) / total)}\t<unk>",
    ]
    lines += [f"-99\t<s>\t{log(kept['<s>'])}"]
    lines += [f"{log(share)}\t{word}" + (f"\t{log(kept[word])}" if word in kept else "") for word, share in alone.items()]
    lines += ["", "\\2-grams:"]
    for (first, word), count in pairs.items():
        share = count / (after[first] + kinds[first]) + kept[first] * alone[word]
        lines.append(f"{log(share)}\t{first} {word}")
    return "\n".join([*lines, "", "\\end\\", ""])


if __name__ == "__main__":
    main()
