"""Who speaks, without training: the equal error rate of pairs of learners for the mean over time of each layer.

    python benchmarks/real_pairs.py DATA WEIGHTS WORK

The folds are those of "pairs of learners" in real_sets.py. A layer's mean over an utterance is standardised by the utterances of
the speakers who are not tested, and a pair scores the cosine of its two. Nothing else is fitted.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import soundfile
import torch
from real_sets import learners_apart, write_table

import headwater
from headwater.downstream.metrics import equal_error_rate
from headwater.upstream.base import UpstreamConfig

FOLDS = range(1, 6)


def main() -> None:
    """Print a line for each layer of each upstream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "weights", "work"):
        parser.add_argument(name, type=Path)
    flags = parser.parse_args()
    table = flags.work.absolute() / "pairsoflearners.csv"
    write_table(table, list(learners_apart(flags.data.absolute() / "speechocean762")))
    corpora = [headwater.load_corpus("manifest", str(table), fold=fold, options={"label_required": False}) for fold in FOLDS]
    rows = [row for split in corpora[0].splits.values() for row in split]
    tested = [{row.id for row in corpus.splits["test"]} for corpus in corpora]
    speakers = np.array([str(row.speaker) for row in rows])
    models = {name: UpstreamConfig(str(flags.weights / name), attend="valid") for name in ("whisper_tiny_en", "whisper_base")}
    print("| upstream | layer | EER, mean over folds |\n|---|---|---|")
    for name, config in {"fbank": UpstreamConfig("fbank"), "fbank_no_cmvn": UpstreamConfig("fbank_no_cmvn"), **models}.items():
        for layer, means in enumerate(means_of(config, [str(row.audio) for row in rows])):
            held_out = [np.array([row.id in test for row in rows]) for test in tested]
            rates = [error_rate(means, speakers, test) for test in held_out]
            print(f"| {name} | {layer} | {mean(rates):.3f} ± {stdev(rates):.3f} |", flush=True)


def means_of(config: UpstreamConfig, files: list[str]) -> np.ndarray:
    """Return the mean over time of each layer of each file (layer, file, dim)."""
    upstream, found = headwater.load_upstream(config), []
    for file in files:
        waveform = torch.from_numpy(soundfile.read(file, dtype="float32")[0])
        with torch.no_grad():
            found.append([values[0].mean(dim=0).numpy() for values in upstream([waveform]).values])
    return np.array(found).swapaxes(0, 1)


def error_rate(means: np.ndarray, speakers: np.ndarray, test: np.ndarray) -> float:
    """Return the equal error rate of all pairs of the tested speakers' utterances."""
    others = means[~test]
    scaled = (means[test] - others.mean(axis=0)) / (others.std(axis=0) + 1e-6)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    pairs = np.array([*combinations(range(len(unit)), 2)])
    same = speakers[test][pairs[:, 0]] == speakers[test][pairs[:, 1]]
    return equal_error_rate(same, (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1))[0]


if __name__ == "__main__":
    main()
