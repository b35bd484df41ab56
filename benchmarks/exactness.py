"""Claim: training from stored features is training on the full computation: means within 1e-5, float16 frames within 1e-3.

python benchmarks/exactness.py --utterances 64 --steps 60

float16 rounds by 5e-4 of a value, and a head with a maximum in it passes that on to the loss: where a batch of two drives a loss
to 3.1, it was 1.5e-3 off (a side run, frames in float16 against float32: 5.2e-4 at batch 4, 4.9e-5 at batch 8).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from reference import SAMPLE_RATE, random_hubert

from headwater.downstream.answer import OneClass
from headwater.runs.config.resolve import resolve
from headwater.runs.results import read_predictions
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

HEADS = {"means": "mean", "frames": "avgmax"}


def main() -> None:
    """Train each head with and without the store, and print the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=64)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0, help="the longest utterance; the shortest has 1 s")
    parser.add_argument("--blocks", type=int, default=12, help="of HuBERT: 12 are base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3, help="SUPERB's is 1e-4")
    parser.add_argument("--only", choices=sorted(HEADS), help="one kind of features")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    shape = f"{flags.blocks} blocks of 768, {flags.utterances} utterances of 1 to {flags.seconds:g} s"
    print(f"{shape}, {flags.steps} steps of {flags.batch}; largest differences from --store off")
    print(f"{'features':<22} {'loss':>9} {'weights':>9} {'scores':>9}  {'predictions':<12} {'off':>8} {'store':>8}")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        write_voices(work / "corpus", flags.utterances, flags.seconds)
        random_hubert(work / "hubert", num_hidden_layers=flags.blocks)
        for kind in [flags.only] if flags.only else HEADS:
            for normalize in (False, True):
                print(compared(work, kind, normalize, flags), flush=True)


def write_voices(folder: Path, count: int, longest: float) -> None:
    """Write a manifest of voice-like sounds: a gliding tone with overtones, syllables and noise, four classes by pitch."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = ["audio,label,speaker,split"]
    for number, seconds in enumerate(np.linspace(1.0, longest, count)):
        axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        phase = 2 * np.pi * np.cumsum(90 + 40 * (number % 4) + 10 * np.sin(3 * axis)) / SAMPLE_RATE
        voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 12)) * (1.2 + np.sin(20 * axis))
        soundfile.write(folder / f"{number:03d}.wav", 0.1 * voice + 0.01 * generator.standard_normal(len(axis)), SAMPLE_RATE)
        split = ("train", "train", "train", "dev", "test")[number % 5]
        rows.append(f"{number:03d}.wav,{'abcd'[number % 4]},s{number % 8},{split}")
    (folder / "corpus.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def compared(work: Path, kind: str, normalize: bool, flags: argparse.Namespace) -> str:
    """Return a line of the table."""
    steps = flags.steps
    mapping = {
        "task": "emotion",
        "optimizer": {"lr": flags.lr},
        "upstream": {"name": str(work / "hubert"), "normalize_layers": normalize},
        "corpus": {"data": str(work / "corpus" / "corpus.csv")},
        "emotion": {"pooling": HEADS[kind]},
        "training": {"steps": steps, "batch_size": flags.batch, "eval_every": steps, "log_every": 1, "save_every": steps},
    }
    seconds, folders = [], []
    for mode in ("off", str(work / "store")):
        folders.append(work / f"{kind}-{normalize}-{'off' if mode == 'off' else 'store'}")
        began = time.perf_counter()
        run(resolve([mapping, {"store": {"mode": mode}}]), folders[-1], Runtime("cpu", quiet=True))
        seconds.append(time.perf_counter() - began)
    found = json.loads((folders[1] / "identity.json").read_text())["features"]
    assert found.startswith(kind), f"{kind} were to be stored, found {found}"
    outcomes = [read_predictions(folder / "predictions-test.csv", OneClass(()))[0] for folder in folders]
    same = "equal" if outcomes[0].predictions == outcomes[1].predictions else "DIFFERENT"
    scores = [np.asarray(outcome.scores) for outcome in outcomes]
    pairs = [[losses(folder) for folder in folders], [layer_weights(folder) for folder in folders], scores]
    largest = [f"{np.abs(first - second).max():9.1e}" for first, second in pairs]
    label = kind + ", layers normed" * normalize
    return f"{label:<22} {' '.join(largest)}  {same:<12} {seconds[0]:6.0f} s {seconds[1]:6.0f} s"


def losses(folder: Path) -> np.ndarray:
    """Return every loss of a run, of training and of dev."""
    return np.array([json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()])


def layer_weights(folder: Path) -> np.ndarray:
    """Return what a run's weighted sum has learnt."""
    return np.array(json.loads((folder / "layer_weights.json").read_text())["layers"]["emotion/audio"]["weights"])


if __name__ == "__main__":
    main()
