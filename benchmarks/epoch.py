"""Claim: from the second epoch on, frozen ER is over 1,000 times faster from stored means, over 100 times from stored frames.

python benchmarks/epoch.py --utterances 32 --repeats 3
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import soundfile
import torch
from accelerate import Accelerator
from reference import ReferenceHead, alternate, lengths, nothing, random_hubert, reference_epoch, write_corpus
from transformers import HubertModel

from headwater.runs.config.resolve import resolve
from headwater.runs.features import with_store
from headwater.runs.prepare import prepare
from headwater.runs.state import make_optimizer
from headwater.training.balance import Balancer
from headwater.training.loop import Hooks, train
from headwater.training.step import Plan, Progress

EPOCHS = {"means": 200, "frames": 4}  # of ours in one measurement: one alone is too short to time


def main() -> None:
    """Measure the three ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        table = write_corpus(work / "corpus", lengths(flags.utterances))
        random_hubert(work / "hubert")
        runs = {"reference": reference_run(work, flags.utterances)}
        runs |= {kind: stored_run(work, table, kind) for kind in EPOCHS}
        medians = alternate(runs, flags.repeats)
    print(f"epoch of {flags.utterances} utterances, HuBERT-base, {flags.threads} thread(s), median of {flags.repeats}, in turns")
    for kind, seconds in medians.items():
        print(f"{kind:<10} {seconds:10.4f} s   x{medians['reference'] / seconds:,.0f}")


def reference_run(work: Path, count: int) -> Callable[[], float]:
    """Return one epoch of s3prl's way: batches of 4, accumulated 8 times."""
    model = HubertModel.from_pretrained(work / "hubert").eval()
    waves = [torch.from_numpy(soundfile.read(work / "corpus" / f"{row:05d}.wav", dtype="float32")[0]) for row in range(count)]
    head = ReferenceHead()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-4)
    return lambda: reference_epoch(model, head, optimizer, waves, batch=4, accumulate=8)


def stored_run(work: Path, table: Path, kind: str) -> Callable[[], float]:
    """Return one epoch of ours out of a filled store, as the command trains it."""
    pooling = {"means": "mean", "frames": "avgmax"}[kind]
    mapping = {
        "task": "emotion",
        "upstream": {"name": str(work / "hubert")},
        "corpus": {"name": "manifest", "data": str(table)},
        "emotion": {"pooling": pooling},
        "store": {"mode": str(work / "store")},
    }
    config = resolve([mapping])
    accelerator = Accelerator(cpu=True)
    setup = with_store(prepare(config), accelerator, print)
    task = setup.tasks["emotion"]
    assert task.source.kind.startswith(kind), f"{kind} were to be stored, found {task.source.kind}"
    per_epoch = -(-len(task.splits["train"]) // config.training.batch_size)
    steps = EPOCHS[kind] * per_epoch
    training = replace(config.training, steps=steps + 1, eval_every=10**9, save_every=10**9, log_every=10**9)
    plan = Plan(training, config.optimizer, 1, Balancer([config.only.task]))
    optimizer = make_optimizer(setup.model, config, setup.balancer)
    quiet = Hooks(log=nothing, save_last=nothing, save_best=nothing)

    def run() -> float:
        began = time.perf_counter()
        # the step that would evaluate is left out
        end = replace(plan, training=replace(training, steps=steps, patience=None))
        train(setup.model, [*setup.tasks.values()], optimizer, accelerator, end, Progress(), quiet)
        return (time.perf_counter() - began) / EPOCHS[kind]

    run()
    return run


if __name__ == "__main__":
    main()
