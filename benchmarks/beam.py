"""Words read greedily, by beam search, and with an n-gram model of the training texts, on real speech with Whisper tiny.en.

    python benchmarks/beam.py DATA WEIGHTS WORK

DATA and WEIGHTS are those of real_speech.py; what lacks is passed over. The model is a bigram of the training split's own texts
(and, for the readers, of the learners' sentences): nobody's test texts are in it. Finished runs in WORK are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from real_speech import HOME, SETS, VALID, write_table

NAMES = ("digits spelt", "readers' words")


def main() -> None:
    """Train what is missing, and print a row for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--sets", nargs="+", default=NAMES, choices=NAMES)
    flags = parser.parse_args()
    data, weights, work = (path.expanduser().absolute() for path in (flags.data, flags.weights, flags.work))
    work.mkdir(parents=True, exist_ok=True)
    print("| set | greedy WER | beam alone | beam, bigram (weight, bonus, seconds of the search) |\n|---|---|---|---|")
    for one in (one for one in SETS if one.name in flags.sets and (data / one.folder).is_dir() and one.rows):
        slug = "".join(letter for letter in one.name if letter.isalnum())
        table, model = work / f"{slug}.csv", work / f"{slug}.arpa"
        write_table(table, list(one.rows(data / one.folder)))
        with table.open(encoding="utf-8") as file:
            texts = [row["text"].upper() for row in csv.DictReader(file) if row["split"] == "train"]
        texts += [*learned(data / "speechocean762")] if one.name == "readers' words" else []
        model.write_text(bigrams(texts), encoding="utf-8")
        command = [sys.executable, str(HOME / "run_downstream.py"), "-u", str(weights / "whisper_tiny_en"), "-d", "asr"]
        command += ["--data", str(table), "--quiet", "-p", str(work / slug), "-o", *one.options, VALID, f"asr.beam.lm={model}"]
        said(command, work / slug)
        alone = [sys.executable, str(HOME / "run_downstream.py"), "-m", "evaluate", "-e", str(work / slug), "-o"]
        own = json.loads((work / slug / "result.json").read_text(encoding="utf-8"))
        without = evaluated([*alone, "asr.beam.lm=null"], work / slug)
        scores, found = own["scores"]["test"], own["details"]["test"]["beam search"]
        ends = own["intervals"]["test"]
        shown = [
            f"{value:.3f}" + (" [{:.3f}, {:.3f}]".format(*of) if of else "")
            for value, of in ((scores["wer"], ends["wer"]), (without, None), (scores["wer_beam"], ends["wer_beam"]))
        ]
        print(
            f"| {one.name} | {' | '.join(shown)} ({found['lm_weight']}, {found['word_bonus']}, {found['seconds']}) |", flush=True
        )


def said(command: Sequence[str], folder: Path) -> None:
    """Train a run that is not there."""
    if not (folder / "result.json").is_file():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def evaluated(command: Sequence[str], folder: Path) -> float:
    """Return the rate of a beam without a model on the run's own test."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    [path] = (folder / "evaluations").glob("*/result.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return float(found["scores"]["test"]["wer_beam"])


def learned(folder: Path) -> Iterator[str]:
    """Yield the sentences of learners of English."""
    path = folder / "train" / "text"
    if path.is_file():
        yield from (line.split(maxsplit=1)[1].strip().upper() for line in path.read_text(encoding="utf-8").splitlines())


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
