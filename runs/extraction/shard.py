"""One shard of an extraction: its recordings computed into a store of its own, which any kill leaves whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator

from ...core.errors import UserError
from ...core.locks import Claim
from ...core.text import duration
from ...corpus.batch import Example, as_batch
from ...corpus.recordings.source import Source
from ...training.batches import cut_pieces
from ...upstream.base import Upstream
from ...upstream.store.merged import Part, write_part
from ...upstream.store.shards import Shard, open_shard, recover_parts
from ...upstream.store.space import Space
from ...upstream.store.store import Store
from ...upstream.store.writing import Computed, RowWriter
from ..features import FILL_SECONDS, computed
from .job import Entry, Failed, Job, Stored, append_journal, read_journal, write_lists
from .reading import Reader, Reading, prefetched

PREFIX = "rows"  # of a part's files
BLOCK_SECONDS = 4 * FILL_SECONDS  # of audio that a GPU's pieces are cut from
MOST_IN_BLOCK = 4096  # utterances, those included whose rows are there
SHOW_SECONDS, CHECK_SECONDS = 30.0, 10.0  # between two lines of progress, and two looks at one's own lease
Printer = Callable[[str], None]


@dataclass(frozen=True)
class Engine:
    """What computes features."""

    upstream: Upstream
    space: Space
    accelerator: Accelerator

    @property
    def on_cpu(self) -> bool:
        """Whether one utterance at a time is fastest."""
        return self.accelerator.device.type == "cpu"

    def ready(self) -> Engine:
        """Move the model to its device and return the engine."""
        self.upstream.to(self.accelerator.device).eval()
        return self

    def blocks(self, readings: Iterable[Reading]) -> Iterator[list[Reading]]:
        """Yield readings as they are computed together: one by one on a CPU, minutes of audio on a GPU."""
        if self.on_cpu:
            yield from ([reading] for reading in readings)
            return
        block, seconds = list[Reading](), 0.0
        for reading in readings:
            block.append(reading)
            seconds += 0.0 if reading.samples is None else reading.seconds
            if seconds >= BLOCK_SECONDS or len(block) >= MOST_IN_BLOCK:
                yield block
                block, seconds = [], 0.0
        if block:
            yield block

    def compute(self, readings: Sequence[Reading]) -> Iterator[tuple[Reading, Computed | str]]:
        """Yield each reading with its features, or why it has none; by length on a GPU."""
        examples = [Example(reading.utterance, reading.seconds) for reading in readings]
        behind = {id(example): reading for example, reading in zip(examples, readings, strict=True)}
        pieces = [[example] for example in examples] if self.on_cpu else cut_pieces(examples, seconds=FILL_SECONDS)
        for piece in pieces:
            yield from self.piece([behind[id(example)] for example in piece])

    def piece(self, readings: Sequence[Reading]) -> Iterator[tuple[Reading, Computed | str]]:
        """Yield what one pass gives; where the model refuses one, the others go through alone."""
        try:
            found = self.rows([reading.samples for reading in readings])
        except (UserError, ValueError) as problem:
            if len(readings) > 1:
                for reading in readings:
                    yield from self.piece([reading])
            else:
                yield readings[0], f"the model refuses it: {problem}"
            return
        for reading, row in zip(readings, found, strict=True):
            short = row.frames < 1
            reason = f"{reading.seconds:g} s are too short for a frame" if short else "" if row.is_finite else NO_NUMBERS
            yield reading, reason or row

    @torch.no_grad()
    def rows(self, waveforms: Sequence) -> list[Computed]:
        """Return the features of waveforms that go through the model together."""
        everything = len(self.space.layers) == self.upstream.spec.num_layers
        batch = as_batch(waveforms).to(self.accelerator.device)
        with self.accelerator.autocast():
            layers = self.upstream(batch, layers=None if everything else list(self.space.layers))
        return [computed(layers, row, self.space) for row in range(len(waveforms))]


NO_NUMBERS = "its features are NaN or infinite: look for damaged samples in it"


@dataclass
class Tally:
    """What a shard has come to: recordings of which a part is still to come, and its pace."""

    began: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)
    checked: float = field(default_factory=time.monotonic)
    seconds: float = 0.0  # of audio that was computed
    count: int = 0  # utterances that were computed
    open: dict[str, tuple[list[Stored], list[Failed]]] = field(default_factory=dict)

    def line(self, number: int, done: int) -> str:
        """Return a line of progress."""
        pace = self.seconds / max(time.monotonic() - self.began, 1e-9)
        return f"shard {number:<4}{done} recordings done; {duration(self.seconds)} of audio computed, {pace:.1f} s a second"


def fill_shard(
    job: Job, number: int, engine: Engine, source: Source, store: Store, claim: Claim, show: Printer, retry: bool = False
) -> Part:
    """Compute what a shard lacks, and write its index last; what is done is read from its journal."""
    folder = job.part(number)
    folder.mkdir(parents=True, exist_ok=True)
    recover_parts(folder, PREFIX)  # the claim is ours: whoever wrote them is gone
    have = {row.key for shard in shards_in(folder, engine.space) for row in shard.rows}
    entries = {name: entry for name, entry in read_journal(folder).items() if not (retry and entry.failed)}
    store.look_up(row.key for entry in entries.values() for row in entry.stored if row.key not in have)
    entries = {
        name: entry for name, entry in entries.items() if all(row.key in have or row.key in store.index for row in entry.stored)
    }
    if entries:
        show(f"shard {number:<4}goes on: {len(entries)} recordings are done")

    def has(key: str) -> bool:
        if key not in have:
            store.look_up([key])
        return key in have or key in store.index

    root = source.place if source.place.is_dir() else source.place.parent
    reader = Reader(root.absolute(), job.plan["stretch"], engine.upstream.spec.sample_rate, has)
    writer = RowWriter(folder, PREFIX, engine.space, lambda _: None)
    tally, before = Tally(), len(entries)
    recordings = source.shard(number, job.shards, frozenset(entries))
    try:
        for block in engine.blocks(prefetched(reader.read(recordings))):
            finished = compute_block(block, engine, writer, have, tally)
            append_journal(folder, finished)
            entries |= {entry.name: entry for entry in finished}
            look_around(tally, claim, lambda: show(tally.line(number, len(entries))))  # noqa: B023 (called at once)
    finally:  # interrupted or not: what was computed stays
        writer.close()
    claim.check()
    part = finish(folder, engine.space, list(entries.values()))
    show(f"shard {number:<4}done: {len(entries) - before} recordings now, {len(entries)} in all, {part.rows} rows")
    return part


def look_around(tally: Tally, claim: Claim, show: Callable[[], None]) -> None:
    """Print a line and look at the claim, each now and then."""
    now = time.monotonic()
    if now - tally.checked >= CHECK_SECONDS:
        tally.checked = now
        claim.check()
    if now - tally.shown >= SHOW_SECONDS:
        tally.shown = now
        show()


def compute_block(block: Sequence[Reading], engine: Engine, writer: RowWriter, have: set[str], tally: Tally) -> list[Entry]:
    """Compute and store a block, and return the recordings that are finished with it."""
    outcomes: dict[int, str] = {}
    fresh = [reading for reading in block if reading.samples is not None]
    for reading, found in engine.compute(fresh):
        if isinstance(found, str):
            outcomes[id(reading)] = found
            continue
        if reading.key not in have:  # the same audio under two names is one row
            writer.append(reading.key, found)
            have.add(reading.key)
        tally.seconds, tally.count = tally.seconds + reading.seconds, tally.count + 1
    finished: list[Entry] = []
    for reading in block:
        stored, failed = tally.open.setdefault(reading.recording, ([], []))
        reason = outcomes.get(id(reading), reading.reason)
        if reason:
            failed.append(reading.failed(reason))
        else:
            stored.append(reading.stored())
        if reading.is_last:
            finished.append(Entry(reading.recording, tuple(stored), tuple(failed)))
            del tally.open[reading.recording]
    return finished


def shards_in(folder: Path, space: Space) -> list[Shard]:
    """Return a part's shards; files that are none are removed, and their rows computed again."""
    shards = []
    for path in sorted(folder.glob("*.safetensors")):
        shard = open_shard(path)
        if shard is None or shard.shape[1:] != (len(space.layers), space.dim):
            path.unlink()
        else:
            shards.append(shard)
    return shards


def finish(folder: Path, space: Space, entries: Sequence[Entry]) -> Part:
    """Read every row of a part once more, and write its lists and its index."""
    shards = shards_in(folder, space)
    damaged = [shard.path for shard in shards if not shard.is_sound()]
    if damaged:
        for path in damaged:
            path.unlink()
        raise UserError(
            f"Expected rows as they were written, found {len(damaged)} damaged files in {folder}, now removed. "
            "Look at the disk, and run the command again: only their rows are computed."
        )
    entries = sorted(entries, key=lambda entry: entry.name)
    write_lists(folder, entries)
    facts = {
        "recordings": len(entries),
        "utterances": sum(len(entry.stored) for entry in entries),
        "seconds": round(sum(row.seconds for entry in entries for row in entry.stored), 3),
        "failures": sum(len(entry.failed) for entry in entries),
    }
    return write_part(folder, shards, facts)
