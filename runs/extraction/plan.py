"""What an extraction will take, before it begins: hours of audio, bytes on the disk, hours of cores or GPUs."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError
from ...core.files import format_bytes, parse_size
from ...core.text import duration
from ...corpus.recordings.source import Recording, Source
from ...upstream.store.shards import MAX_ROWS, reserved_bytes
from ...upstream.store.space import Space
from ..features import FILL_SECONDS, SAMPLE_SECONDS
from .extent import Extent, measure_extent
from .reading import Reader, Reading
from .shard import Engine

MOST_FRAMES = "100GB"  # of frames that are computed without --most
TIMED = 120.0  # seconds: what is longer is cut for the sample that is timed


def make_plan(source: Source, engine: Engine, stretch: float | None) -> dict[str, Any]:
    """Return what an extraction will take; a sample is timed for it."""
    spec = engine.upstream.spec
    extent = measure_extent(source, stretch, lambda seconds: spec.num_frames(int(seconds * spec.sample_rate)))
    pace, sampled = time_sample(source, engine, stretch)
    return {
        **asdict(extent),
        "bytes": bytes_of(engine.space, extent),
        "pace": pace,
        "sampled": sampled,
        "device": engine.accelerator.device.type,
        "threads": torch.get_num_threads(),
    }


def bytes_of(space: Space, extent: Extent) -> int:
    """Return the bytes of all rows, the headers of their files, and what is listed of each."""
    header = reserved_bytes(ROW_TYPE[space.numbers], len(space.layers), MAX_ROWS) / MAX_ROWS
    return space.size(extent.utterances, extent.frames) + round((header + LISTED) * extent.utterances)


LISTED = 400  # bytes of an utterance in journal, list and index
ROW_TYPE = {"float16": torch.zeros(0, dtype=torch.float16).numpy().dtype, "int8": torch.zeros(0, dtype=torch.int8).numpy().dtype}


def time_sample(source: Source, engine: Engine, stretch: float | None) -> tuple[float, float]:
    """Return how many seconds a second of audio takes here, read and computed, and how much audio was timed."""
    wanted = SAMPLE_SECONDS if engine.on_cpu else FILL_SECONDS
    reader = Reader(source.place, stretch, engine.upstream.spec.sample_rate, lambda _: False)
    engine.ready()
    warm, took, seconds = False, 0.0, 0.0
    block: list[Reading] = []
    began = time.perf_counter()
    for reading in reader.read(some_recordings(source)):
        if reading.samples is None:
            continue
        cut = reading.samples[: int(TIMED * engine.upstream.spec.sample_rate)]
        block.append(replace(reading, samples=cut, seconds=len(cut) / engine.upstream.spec.sample_rate))
        enough = seconds + sum(one.seconds for one in block) >= wanted
        if not warm or enough or engine.on_cpu:
            [*engine.compute(block)]
            if warm:  # a model's first pass is slower
                took, seconds = took + time.perf_counter() - began, seconds + sum(one.seconds for one in block)
            warm, block, began = True, [], time.perf_counter()
        if seconds >= wanted:
            break
    if not seconds and block:
        [*engine.compute(block)]
        took, seconds = time.perf_counter() - began, sum(one.seconds for one in block)
    if not seconds:  # one utterance in all: its pass is timed a second time
        began = time.perf_counter()
        for reading in reader.read(some_recordings(source)):
            if reading.samples is not None:
                cut = reading.samples[: int(TIMED * engine.upstream.spec.sample_rate)]
                seconds = len(cut) / engine.upstream.spec.sample_rate
                [*engine.compute([replace(reading, samples=cut, seconds=seconds)])]
                took = time.perf_counter() - began
                break
    return took / max(seconds, 1e-9), seconds


def some_recordings(source: Source) -> Iterator[Recording]:
    """Yield recordings, drawn at random; of tars those of one, in order."""
    order = random.Random(1).sample(range(len(source.files)), min(len(source.files), 200))
    for number in order:
        yield from source.shard(number, len(source.files))


def plan_lines(plan: Mapping[str, Any], space: Space, shards: int, folder: Path) -> list[str]:
    """Return the plan as it is printed."""
    layers = f"layer {space.layers[0]}" if len(space.layers) == 1 else f"{len(space.layers)} layers"
    numbers = "float32" if space.pooled else {"int8": "8 bits"}.get(space.numbers, space.numbers)
    what = {True: space.statistics, False: "frames"}[space.pooled]
    on_gpu = plan["device"] != "cpu"
    hours = plan["seconds"] * plan["pace"] / 3600 * (1 if on_gpu else plan["threads"])
    unit = "GPU" if on_gpu else "core"
    time = f"{hours:,.2f} {unit}-hours" if hours >= 0.1 else f"{hours * 3600:.0f} {unit}-seconds"
    terabytes = f" ({plan['bytes'] / 1e12:.4f} TB)" * (plan["bytes"] >= 1e10)
    threads = f"{plan['threads']} thread{'s' * (plan['threads'] > 1)}"
    where = "this GPU" if on_gpu else f"{threads} of this machine"
    each = plan["seconds"] * plan["pace"] / shards
    return [
        f"audio     {plan['seconds'] / 3600:,.2f} h in {plan['utterances']:,} utterances, {plan['how']}",
        f"disk      {format_bytes(plan['bytes'])}{terabytes}: {what} of {layers} in {numbers}, {space.dim} numbers each",
        f"time      {time}: a second of audio takes {plan['pace']:.4f} s on {where} (timed on {plan['sampled']:.0f} s)",
        f"shards    {shards}, about {duration(each)} each",
        f"folder    {folder}",
    ] + (
        [f"note      the longest utterance measured has {duration(plan['longest'])}: --stretch 30 cuts it"]
        * (plan["longest"] > TIMED)
    )


def refuse_large(plan: Mapping[str, Any], space: Space, most: str | None, root: Path, stored: int = 0) -> None:
    """Refuse frames beyond the stated size, and what the disk has no room for."""
    size, limit = int(plan["bytes"]), most or (None if space.pooled else MOST_FRAMES)
    if limit is not None and size > parse_size(limit):
        raise UserError(
            f"Expected at most {format_bytes(parse_size(limit))} (--most), found {format_bytes(size)} of {space.kind} for "
            f"{plan['seconds'] / 3600:,.1f} h. {'; '.join(ways_out(plan, space))}; or raise it: --most {size // 10**9 + 1}GB"
        )
    free = shutil.disk_usage(next(place for place in (root, *root.parents) if place.exists())).free
    if size - stored > free:
        raise UserError(
            f"Expected room for {format_bytes(size - stored)} in {root}, found {format_bytes(free)} free. "
            f"Choose another disk (--store DIR). {'; '.join(ways_out(plan, space))}."
        )


def ways_out(plan: Mapping[str, Any], space: Space) -> Sequence[str]:
    """Return what makes an extraction smaller, with its size."""
    extent = Extent(0, plan["utterances"], plan["seconds"], plan["frames"], 0.0, "")

    def size(other: Space) -> str:
        return format_bytes(bytes_of(other, extent))

    words: list[str] = []
    if not space.pooled:
        words.append(f"Keep means (without --frames: {size(replace(space, pooled=True, numbers='float16'))})")
        if space.numbers == "float16":
            words.append(f"8 bits (-o store.precision=int8: {size(replace(space, numbers='int8'))})")
    if len(space.layers) > 1:
        words.append(f"{'one' if words else 'Keep one'} layer (-l N: {size(replace(space, layers=space.layers[:1]))})")
    return words or ["Take fewer recordings"]
