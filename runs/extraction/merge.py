"""The merge of an extraction: every part is checked, and the index of indices written; twice is as once."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError
from ...core.file_cache import file_key
from ...core.files import write_json
from ...core.locks import exclusive
from ...upstream.store.merged import DONE, Part, merged_parts, write_merged
from ...upstream.store.shards import Shard, open_shard
from ...upstream.store.store import LOCKS, Store, checked_shards
from .job import FAILURES, Job, write_csv


@dataclass(frozen=True)
class Merged:
    """What an extraction has come to."""

    utterances: int
    rows: int  # the same audio under two names is one
    seconds: float
    failures: int


def merge(job: Job, store: Store) -> Merged:
    """Check the parts of a job, all of which are done, and make them part of the store."""
    with exclusive(job.space / LOCKS / "merge", job.locks):  # of the space, whose list the merges of other jobs write, too
        parts = [part for number in range(job.shards) if (part := Part.read(job.part(number))) is not None]
        damaged = [(part, names) for part in parts if (names := damaged_files(part))]
        for part, names in damaged:
            for name in names:
                (part.folder / name).unlink(missing_ok=True)
        if damaged or len(parts) < job.shards:
            lost = ", ".join(part.folder.name for part, _ in damaged) or "some that are gone"
            raise UserError(
                f"Expected {job.shards} sound shards in {job.folder}, found damage in {lost}: what is damaged is removed. "
                "Look at the disk, and run the command again: only what is missing is computed."
            )
        with checked_shards(store.root) as memory:  # each was read to its end when its shard was done
            for part in parts:
                for name in part.files:
                    memory.keep(file_key(part.folder / name), True)
        others = [part for part in merged_parts(job.space) if part.folder.parent != job.folder]
        write_merged(job.space, sorted([*others, *parts], key=lambda part: part.folder))
        failures = join_failures(job, parts)
        facts = [json.loads((part.folder / DONE).read_text(encoding="utf-8")) for part in parts]
        seconds = sum(float(of_part["seconds"]) for of_part in facts)
        merged = Merged(sum(int(of_part["utterances"]) for of_part in facts), distinct_rows(parts), seconds, failures)
        write_json(job.folder / "extracted.json", {**vars(merged), "shards": job.shards})
        store.touch()
    return merged


def damaged_files(part: Part) -> list[str]:
    """Return the files of a part that are not what was written: sizes, headers, the index, and one row of each."""
    bad = [*part.missing()]
    if not part.is_sound():
        return [*{*bad, DONE}]
    _, places = part.index()
    counts = np.bincount(places[:, 0], minlength=len(part.files)) if len(places) else np.zeros(len(part.files), int)
    for number, name in enumerate(part.files):
        if name in bad:
            continue
        shard = open_shard(part.folder / name)
        last = int(places[places[:, 0] == number, 1].max(initial=-1))
        if shard is None or not counts[number] <= len(shard.rows) or last >= len(shard.rows) or not one_row_is_sound(shard):
            bad.append(name)
    return bad


def one_row_is_sound(shard: Shard) -> bool:
    """Return whether a row, drawn at random, is what was written."""
    return not shard.rows or shard.is_row_sound(random.SystemRandom().choice(shard.rows))


def distinct_rows(parts: list[Part]) -> int:
    """Return how many rows the parts have together; one that two of them computed counts once."""
    keys = [part.index()[0] for part in parts]
    return len(np.unique(np.concatenate(keys))) if keys else 0


def join_failures(job: Job, parts: list[Part]) -> int:
    """Write the failures of all shards into one table; return how many there are."""
    rows: list[list[str]] = []
    for part in parts:
        with (part.folder / FAILURES).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows += [*csv.reader(file)][1:]
    write_csv(job.folder / FAILURES, ["id", "audio", "start", "end", "reason"], rows)
    return len(rows)
