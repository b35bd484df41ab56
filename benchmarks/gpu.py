"""Claim: on a GPU, finetuning and filling see more audio a second, in less memory, than the usual loops.

python benchmarks/gpu.py --to gpu            # a CUDA device, under 8 minutes: gpu/gpu.json, and gpu/gpu.md for the README
python benchmarks/gpu.py --to gpu --tiny     # on the CPU, in seconds: whether the script works, no figure to publish
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from finetune_step import our_step, padded_batch, read
from reference import SAMPLE_RATE, lengths, random_hubert, write_corpus
from torch import Tensor, nn
from transformers import HubertForSequenceClassification, HubertModel, Trainer, TrainerCallback, TrainingArguments

from headwater.core.errors import UserError
from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example
from headwater.training.config import TrainingConfig
from headwater.training.source import padded_pieces
from headwater.upstream.load import load_upstream

PRECISIONS = ("float32", "bf16")
_TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_conv_pos_embeddings": 16,
}
_TINY |= {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16}
_WARM = 2  # steps that are not timed


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    utterances: int
    batch: int  # utterances of a step
    steps: int
    seconds: float  # of each measurement, at most: no step starts later
    device: str


FULL, SMALL = Size(256, 32, 20, 30.0, "cuda"), Size(6, 3, 2, 5.0, "cpu")


@dataclass(frozen=True)
class Row:
    """What came out of one measurement."""

    what: str
    way: str
    precision: str
    audio_seconds_a_second: float
    peak_memory_gb: float | None  # of the device
    note: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="a folder for gpu.json and gpu.md")
    parser.add_argument("--tiny", action="store_true", help="a trial on the CPU")
    parser.add_argument("--one-process", type=Path, metavar="WORK", help=argparse.SUPPRESS)  # how this script starts itself
    flags = parser.parse_args(arguments)
    if not flags.tiny and not torch.cuda.is_available():
        print(
            "Expected a CUDA device, found none. Run it where there is one, or add --tiny for a trial of the script on the CPU.",
            file=sys.stderr,
        )
        return 2
    size = SMALL if flags.tiny else FULL
    if flags.one_process is not None:
        print(json.dumps(distributed(flags.one_process, size)))
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        rows = list(measured(Path(name), size))
    flags.to.mkdir(parents=True, exist_ok=True)
    facts = {
        "machine": machine(size),
        "seconds": round(time.monotonic() - began),
        "tiny": flags.tiny,
        "rows": [*map(asdict, rows)],
    }
    (flags.to / "gpu.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (flags.to / "gpu.md").write_text(text := as_table(facts["machine"], rows, tiny=flags.tiny), encoding="utf-8")
    print(text)
    return 0


def measured(work: Path, size: Size) -> Iterator[Row]:
    """Yield every row, and print it as it comes."""
    seconds = lengths(size.utterances) * (0.1 if size is SMALL else 1.0)
    table = write_corpus(work / "corpus", seconds)
    random_hubert(work / "hubert", **(_TINY if size is SMALL else {}))
    waves = [read(work / "corpus" / f"{row:05d}.wav") for row in range(size.utterances)]
    ways = [
        *((plain_trainer, precision) for precision in PRECISIONS),
        *((ours, precision) for precision in PRECISIONS),
        *((attention, precision) for precision in PRECISIONS),
        *((filling, precision) for precision in PRECISIONS),
    ]
    for way, precision in ways:
        for row in way(work, table, waves, precision, size):
            print(row, file=sys.stderr, flush=True)
            yield row
    yield one_process(work, table, size)


def plain_trainer(work: Path, _: Path, waves: Sequence[Tensor], precision: str, size: Size) -> Iterator[Row]:
    """Yield transformers' own Trainer: padded batches in random order, the convolutions frozen."""
    model = HubertForSequenceClassification.from_pretrained(
        work / "hubert", num_labels=4, layerdrop=0.0, apply_spec_augment=False, attn_implementation="sdpa"
    )
    model.freeze_feature_encoder()
    audio, times, tiny = list[float](), list[float](), size.device == "cpu"

    def collate(rows: Sequence[int]) -> dict[str, Tensor]:
        padded, mask, _ = padded_batch([waves[row] for row in rows])
        audio.append(sum(len(waves[row]) for row in rows) / SAMPLE_RATE)
        return {"input_values": padded, "attention_mask": mask, "labels": torch.tensor([row % 4 for row in rows])}

    class Clock(TrainerCallback):
        """Notes when each step has ended, and ends what takes too long."""

        def on_step_end(self, *given: Any, **_: Any) -> None:
            """Note the time."""
            wait(size)
            times.append(time.monotonic())
            given[2].should_training_stop = times[-1] - times[0] > size.seconds

    settings = TrainingArguments(
        output_dir=str(work / "trainer"),
        per_device_train_batch_size=size.batch,
        max_steps=size.steps + _WARM,
        bf16=precision == "bf16",
        use_cpu=tiny,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    fresh(size)
    dataset: Any = list(range(len(waves)))
    Trainer(model, settings, data_collator=collate, train_dataset=dataset, callbacks=[Clock()]).train()
    heard, took = sum(audio[_WARM : len(times)]), times[-1] - times[_WARM - 1]
    yield Row("finetuning", "transformers' Trainer", precision, heard / took, peak(size))


def ours(work: Path, table: Path, waves: Sequence[Tensor], precision: str, size: Size) -> Iterator[Row]:
    """Yield our step, which reads its audio from files."""
    fresh(size)
    step = our_step(work, table, size.batch, precision, device=size.device)
    mean = sum(map(len, waves)) / len(waves) / SAMPLE_RATE * size.batch
    steps, took = timed(step, size)
    yield Row("finetuning", "ours", precision, steps * mean / took, peak(size))


def attention(work: Path, _: Path, waves: Sequence[Tensor], precision: str, size: Size) -> Iterator[Row]:
    """Yield a pass of transformers' model over one batch with each of its attentions."""
    padded, mask, _ = (part.to(size.device) for part in padded_batch(sorted(waves, key=len)[-size.batch :]))
    for kind in ("eager", "sdpa"):
        fresh(size)
        model = HubertModel.from_pretrained(work / "hubert", attn_implementation=kind).eval().to(size.device)

        def once(model: nn.Module = model) -> None:
            with torch.no_grad(), torch.autocast(size.device, torch.bfloat16, enabled=precision == "bf16"):
                model(padded, attention_mask=mask)

        passes, took = timed(once, size)
        yield Row("forward pass", f"attention: {kind}", precision, passes * float(mask.sum()) / SAMPLE_RATE / took, peak(size))


def filling(work: Path, _: Path, waves: Sequence[Tensor], precision: str, size: Size) -> Iterator[Row]:
    """Yield what the store does with a corpus: every layer of each utterance, in pieces of like length; and in random ones."""
    upstream = load_upstream(str(work / "hubert")).to(size.device)
    utterances = [Utterance(str(row), Path(f"{row}.wav"), duration=len(wave) / SAMPLE_RATE) for row, wave in enumerate(waves)]
    examples = [Example(utterance, utterance.duration or 0.0) for utterance in utterances]
    sorted_pieces = [
        [int(one.utterance.id) for one in piece] for piece in padded_pieces(examples, TrainingConfig(piece_seconds=240))
    ]
    order = np.random.default_rng(0).permutation(len(waves)).tolist()
    random_pieces = [order[start : start + 16] for start in range(0, len(order), 16)]
    for way, pieces in {"random batches of 16": random_pieces, "pieces of like length": sorted_pieces}.items():
        fresh(size)

        def once(pieces: Sequence[Sequence[int]] = pieces) -> None:
            for piece in pieces:
                with torch.no_grad(), torch.autocast(size.device, torch.bfloat16, enabled=precision == "bf16"):
                    layers = upstream([waves[row] for row in piece])
                [value.half().cpu() for value in layers.values]

        passes, took = timed(once, size)
        yield Row("filling", way, precision, passes * sum(map(len, waves)) / SAMPLE_RATE / took, peak(size))


def one_process(work: Path, table: Path, size: Size) -> Row:
    """Return our step under DDP with one process, and how far its losses are from those without."""
    AcceleratorState._reset_state(reset_partial_state=True)
    step = our_step(work, table, size.batch, "float32", device="auto" if size.device == "cuda" else "cpu")
    alone = [value for _ in range(3) for value in step().values()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, __file__, "--to", str(work), "--one-process", str(work), *(["--tiny"] if size is SMALL else [])]
    done = subprocess.run(command, env={**os.environ, **place}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            f"Expected a process group of one process, found: {done.stderr.strip().splitlines()[-1]}. Read {__file__}."
        )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    apart = max(abs(one - other) / abs(one) for one, other in zip(alone, found["losses"], strict=True))
    rate, memory = found["audio_seconds_a_second"], found["peak_memory_gb"]
    return Row("finetuning", f"ours, DDP, 1 process, {found['backend']}", "float32", rate, memory, f"losses within {apart:.0e}")


def distributed(work: Path, size: Size) -> dict[str, Any]:
    """Return three losses and the pace of our step in this process, which is one of a group."""
    fresh(size)
    step = our_step(work, work / "corpus" / "corpus.csv", size.batch, "float32", device="cpu" if size is SMALL else "auto")
    losses = [value for _ in range(3) for value in step().values()]
    steps, took = timed(step, size)
    mean = float(np.mean(lengths(size.utterances) * (0.1 if size is SMALL else 1.0))) * size.batch
    backend = torch.distributed.get_backend() if torch.distributed.is_initialized() else "no group"
    rate = steps * mean / took
    return {"losses": losses, "audio_seconds_a_second": rate, "peak_memory_gb": peak(size), "backend": backend}


def timed(step: Callable[[], Any], size: Size) -> tuple[int, float]:
    """Return how many steps were timed, and their seconds: after a few that are not."""
    for _ in range(_WARM):
        step()
    wait(size)
    began, count = time.monotonic(), 0
    while count < size.steps and time.monotonic() - began < size.seconds:
        step()
        wait(size)
        count += 1
    return count, time.monotonic() - began


def wait(size: Size) -> None:
    """Wait until the device has done what it was given."""
    if size.device == "cuda":
        torch.cuda.synchronize()


def fresh(size: Size) -> None:
    """Give memory back, and count its peak from now on."""
    if size.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(size: Size) -> float | None:
    """Return the most memory that the device held, in GB."""
    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if size.device == "cuda" else None


def machine(size: Size) -> str:
    """Return what was measured on."""
    name = torch.cuda.get_device_name() if size.device == "cuda" else "a CPU"
    return f"{name}, torch {torch.__version__}, {size.utterances} utterances, {size.batch} a step"


def as_table(where: str, rows: Sequence[Row], *, tiny: bool) -> str:
    """Return the rows for benchmarks/README.md."""
    lines = [f"`python benchmarks/gpu.py --to DIR`: {where}." + (" A trial: publish none of it." * tiny), ""]
    lines += ["| what | way | precision | audio-s a second | peak, GB | |", "|---|---|---|---|---|---|"]
    for row in rows:
        memory = "" if row.peak_memory_gb is None else f"{row.peak_memory_gb:.2f}"
        lines.append(f"| {row.what} | {row.way} | {row.precision} | {row.audio_seconds_a_second:,.0f} | {memory} | {row.note} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
