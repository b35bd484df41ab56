"""Claim: a step that finetunes HuBERT-base on a CPU is faster than a plain padded loop over transformers' own model.

python benchmarks/finetune_step.py --repeats 3           # 8 utterances of 1 to 15 s, float32 and bf16, in turns
python benchmarks/finetune_step.py --adapter lora --precisions bf16
python benchmarks/finetune_step.py --ways ours --repeats 1 --precisions float32        # one way alone, for its memory
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from reference import random_hubert, write_corpus
from torch import Tensor, nn
from transformers import HubertModel

from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
from headwater.runs.runtime import Runtime, make_accelerator
from headwater.runs.state import make_optimizer
from headwater.training.balance import Balancer
from headwater.training.step import Plan, clip, step_batches, take_step

PRECISIONS = ("float32", "bf16")


def main() -> None:
    """Measure both ways in both precisions, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[1, 3, 5, 7, 9, 11, 13, 15])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--adapter", default="none", help="lora, say: with peft in the plain loop too")
    parser.add_argument("--ways", nargs="+", choices=("plain", "ours"), default=("plain", "ours"))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        table = write_corpus(work / "corpus", flags.seconds)
        random_hubert(work / "hubert")
        for precision in flags.precisions:
            makers = {
                "plain": lambda precision=precision: plain_step(work, len(flags.seconds), precision, flags.adapter),
                "ours": lambda precision=precision: our_step(work, table, len(flags.seconds), precision, flags.adapter),
            }
            ways = {way: makers[way]() for way in flags.ways}
            before = peak()
            rows = in_turns(ways, flags.repeats)
            medians = {way: statistics.median(row[way] for row in rows) for way in ways}
            print(f"{precision}: {', '.join(f'{way} {seconds:.1f} s' for way, seconds in medians.items())} of the processor")
            if len(ways) == 2:
                ratios = [row["plain"] / row["ours"] for row in rows]
                spread = f"{min(ratios):.2f} to {max(ratios):.2f} in {flags.repeats} turns"
                print(f"{precision}: x{statistics.median(ratios):.2f} ({spread})", flush=True)
            else:
                print(f"{precision}: {before:.2f} GB before the steps, at most {peak():.2f} GB in them", flush=True)


def peak() -> float:
    """Return the most memory that this process ever held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)


def in_turns(ways: dict[str, Callable[[], Any]], repeats: int) -> list[dict[str, float]]:
    """Return the seconds of the processor that a step of each way takes, turn by turn."""
    return [{name: processor_seconds(step) for name, step in ways.items()} for _ in range(repeats)]


def processor_seconds(step: Callable[[], Any]) -> float:
    """Return the seconds of the processor that a step takes: those of the clock count what else the machine does."""
    began = time.process_time()
    step()
    return time.process_time() - began


def quiet(model: HubertModel) -> HubertModel:
    """Return a model without what would make two runs of it differ in work: LayerDrop and masks."""
    model.config.layerdrop, model.config.apply_spec_augment = 0.0, False
    return model


def plain_step(work: Path, count: int, precision: str, adapter: str) -> Callable[[], None]:
    """Return a step as most scripts have it: all utterances padded to the longest, the convolutions frozen."""
    model: Any = quiet(HubertModel.from_pretrained(work / "hubert", attn_implementation="sdpa")).train()
    model.feature_extractor._freeze_parameters()
    if adapter != "none":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    head = nn.Linear(768, 4)
    weights = [weight for weight in (*model.parameters(), *head.parameters()) if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    waves = [read(work / "corpus" / f"{row:05d}.wav") for row in range(count)]

    def step() -> None:
        padded, mask, targets = padded_batch(waves)
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            hidden = model(padded, attention_mask=mask).last_hidden_state
            frames = torch.tensor([min(round(len(wave) / 320), hidden.shape[1]) for wave in waves])
            valid = (torch.arange(hidden.shape[1]) < frames.unsqueeze(1)).unsqueeze(2)
            loss = nn.functional.cross_entropy(head((hidden * valid).sum(1) / frames.unsqueeze(1)), targets)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def read(path: Path) -> Tensor:
    """Return a wav file's samples."""
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


def padded_batch(waves: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return waveforms padded to the longest, which samples are valid, and a class of each."""
    padded = nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
    mask = torch.stack([torch.arange(padded.shape[1]) < len(wave) for wave in waves]).long()
    return padded, mask, torch.from_numpy(np.arange(len(waves)) % 4)


def our_step(
    work: Path, table: Path, count: int, precision: str, adapter: str = "none", device: str = "cpu"
) -> Callable[[], dict[str, float]]:
    """Return a step as the command trains it, reading its audio included; it gives the step's losses."""
    mapping = {
        "task": "emotion",
        "upstream": {"name": str(work / "hubert"), "trainable": True, "layer": -1, "adapter": adapter},
        "corpus": {"name": "manifest", "data": str(table)},
        "training": {"precision": precision, "batch_size": count},
        "optimizer": {"name": "adamw"},
    }
    config = resolve([mapping])
    accelerator = make_accelerator(config, Runtime(device=device))
    setup = prepare(config)
    tasks = {task.name: task for task in setup.tasks.values()}
    plan = Plan(replace(config.training, steps=10**6), config.optimizer, 1, Balancer([config.only.task]))
    optimizer, done = make_optimizer(setup.model, config, setup.balancer), [0]
    model = accelerator.prepare(setup.model)
    model.train()

    def step() -> dict[str, float]:
        batches = step_batches(tasks, plan, accelerator, dict.fromkeys(tasks, done[0]))
        facts = take_step(model, batches, accelerator, plan, done[0])
        clip(model, plan.optimizer.clip, accelerator)
        optimizer.step()
        optimizer.zero_grad()
        done[0] += 1
        return dict(facts.losses)

    return step


if __name__ == "__main__":
    main()
