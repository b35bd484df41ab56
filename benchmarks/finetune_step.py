"""Claim: a step that finetunes HuBERT-base on a CPU is faster than a plain padded loop over transformers' own model.

python benchmarks/finetune_step.py --repeats 3           # 8 utterances of 1 to 15 s, float32 and bf16, in turns
python benchmarks/finetune_step.py --seconds 1 4 7
"""

from __future__ import annotations

import argparse
import statistics
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
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from reference import random_hubert, write_corpus
from torch import Tensor, nn
from transformers import HubertModel

from headwater.runs.config.resolve import resolve
from headwater.runs.prepare import prepare
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
    flags = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        table = write_corpus(work / "corpus", flags.seconds)
        random_hubert(work / "hubert")
        for precision in flags.precisions:
            ways = {
                "plain": plain_step(work, len(flags.seconds), precision, flags.adapter),
                "ours": our_step(work, table, len(flags.seconds), precision, flags.adapter),
            }
            medians, ratios = alternate(ways, flags.repeats)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(
                f"{precision}: plain {medians['plain']:.1f} s, ours {medians['ours']:.1f} s of the processor, "
                f"x{statistics.median(ratios):.2f} ({spread} in {flags.repeats} turns)",
                flush=True,
            )


def alternate(ways: dict[str, Callable[[], None]], repeats: int) -> tuple[dict[str, float], list[float]]:
    """Return the median seconds of the processor that each way takes, and in each turn how many times the first one's."""
    for step in ways.values():
        step()  # the first one is slower
    rows = []
    for _ in range(repeats):
        rows.append({name: processor_seconds(step) for name, step in ways.items()})
    return {name: statistics.median(row[name] for row in rows) for name in ways}, [row["plain"] / row["ours"] for row in rows]


def processor_seconds(step: Callable[[], None]) -> float:
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


def our_step(work: Path, table: Path, count: int, precision: str, adapter: str) -> Callable[[], None]:
    """Return a step as the command trains it, reading its audio included."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision={"float32": "no", "bf16": "bf16"}[precision])
    mapping = {
        "task": "emotion",
        "upstream": {"name": str(work / "hubert"), "trainable": True, "layer": 12, "adapter": adapter},
        "corpus": {"name": "manifest", "data": str(table)},
        "training": {"precision": precision, "batch_size": count},
        "optimizer": {"name": "adamw"},
    }
    config = resolve([mapping])
    setup = prepare(config)
    tasks = {task.name: task for task in setup.tasks.values()}
    plan = Plan(replace(config.training, steps=10**6), config.optimizer, 1, Balancer([config.only.task]))
    optimizer, done = make_optimizer(setup.model, config, setup.balancer), [0]
    setup.model.train()

    def step() -> None:
        batches = step_batches(tasks, plan, accelerator, dict.fromkeys(tasks, done[0]))
        take_step(setup.model, batches, accelerator, plan, done[0])
        clip(setup.model, plan.optimizer.clip, accelerator)
        optimizer.step()
        optimizer.zero_grad()
        done[0] += 1

    return step


if __name__ == "__main__":
    main()
