"""An extraction: plan first, then one shard after another until none is free, and the merge after the last."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import plain_disk_errors
from ...core.locks import Claim, doubt_of, exclusive, kind_of_locks
from ...core.process import in_launch
from ...corpus.recordings.source import Source
from ...training.config import TrainingConfig
from ...upstream.load import load_upstream
from ...upstream.store.store import LOCKS, Store
from ..config.schema import RunConfig
from ..runtime import Runtime, make_accelerator
from .config import ExtractConfig, Rows, space_for
from .job import FAILURES, Job, begin, begun, job_key, shards_of
from .merge import Merged, merge
from .plan import make_plan, plan_lines, refuse_large
from .shard import Engine, Printer, fill_shard


@dataclass(frozen=True)
class Share:
    """How an extraction is shared, and how much of it this process does."""

    shards: int | None = None  # None: as it was begun, or the usual number
    shard: int | None = None  # the only one that this process computes
    most: str | None = None
    plan: bool = False  # print the plan, and stop
    retry: bool = False  # try recordings that failed again


@dataclass(frozen=True)
class Outcome:
    """What this process has done."""

    job: Job | None
    merged: Merged | None  # None: other shards are to come
    held: tuple[str, ...] = ()  # by whom they are computed
    failures: int = 0  # of the shards that this process computed


def extract(
    source: Source,
    config: ExtractConfig,
    rows: Rows,
    root: Path,
    share: Share,
    runtime: Runtime,
    show: Printer,
    print_line: Printer,
) -> Outcome:
    """Compute the features of a source into a store; `print_line` prints the plan, `show` what happens."""
    if in_launch():
        raise UserError(
            "Expected one process, found a launch of several. Start the command several times: they share the shards."
        )
    accelerator = make_accelerator(RunConfig(training=TrainingConfig(precision=config.training.precision)), runtime)
    upstream = load_upstream(config.upstream, "audio")
    engine = Engine(upstream, space_for(upstream, config, rows), accelerator)
    shards_of(source, share.shards)
    with plain_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        store = Store(root, engine.space, upstream.name)
        try:
            job = planned(source, engine, store, rows, share, print_line)
            if job is None:
                return Outcome(None, None)
            if doubt := doubt_of(root):
                show(f"note      {doubt}: {job.locks} is used")
            return work(job, engine.ready(), source, store, share, show)
        finally:
            store.leave()


def planned(source: Source, engine: Engine, store: Store, rows: Rows, share: Share, print_line: Printer) -> Job | None:
    """Return the job, planned by the first process that comes; the plan is printed. None where it is all that is wanted."""
    job = begun(store.folder, source, rows.stretch, share.shards)
    if job is None and share.plan:
        print_plan(make_plan(source, engine, rows.stretch), engine, store, shards_of(source, share.shards), print_line)
        return None
    lock = store.folder / LOCKS / f"plan-{job_key(source, rows.stretch)}"
    with exclusive(
        lock, kind_of_locks(store.folder), waiting=lambda holder: print_line(f"plan      waiting for {holder}, which makes it")
    ):
        job = begun(store.folder, source, rows.stretch, share.shards)
        plan: dict[str, Any] = make_plan(source, engine, rows.stretch) if job is None else dict(job.plan)
        count = shards_of(source, share.shards) if job is None else job.shards
        print_plan(plan, engine, store, count, print_line)
        refuse_other_shard(share, count)
        if job is None:
            refuse_large(plan, engine.space, share.most, store.root)
            job = begin(store.folder, source, rows.stretch, share.shards, plan)
    left = job.left()
    if len(left) < job.shards:
        print_line(f"done      {job.shards - len(left)} of {job.shards} shards")
    return None if share.plan else job


def print_plan(plan: dict[str, Any], engine: Engine, store: Store, shards: int, print_line: Printer) -> None:
    """Print what it will take."""
    for line in plan_lines(plan, engine.space, shards, store.folder):
        print_line(line)


def refuse_other_shard(share: Share, count: int) -> None:
    """Refuse a shard that there is not."""
    if share.shard is not None and not 0 <= share.shard < count:
        raise UserError(
            f"Expected --shard from 0 to {count - 1}, found {share.shard}. They are counted from 0, as in --array=0-{count - 1}."
        )


def work(job: Job, engine: Engine, source: Source, store: Store, share: Share, show: Printer) -> Outcome:
    """Compute the shard that is wanted, or all that are free; merge where none is left."""
    wanted = [*range(job.shards)] if share.shard is None else [share.shard]
    held: list[str] = []
    failures = 0
    for number in wanted:
        if job.is_done(number) and not share.retry:
            continue
        with job.claimed(number) as claim:
            if claim is None:
                held.append(f"shard {number} by {job.holder(number)}")
            elif not job.is_done(number) or share.retry:  # or another process has just finished it
                failures += compute_shard(job, number, engine, source, store, claim, share, show)
    if share.shard is not None and held:
        raise UserError(f"Expected a free shard, found {held[0]}. Wait for it to end, or choose another.")
    if job.left():
        return Outcome(job, None, tuple(held), failures)
    merged = merge(job, store)
    return Outcome(job, merged, (), merged.failures)


def compute_shard(
    job: Job, number: int, engine: Engine, source: Source, store: Store, claim: Claim, share: Share, show: Printer
) -> int:
    """Compute a shard, and return how many of its recordings failed."""
    show(f"shard {number:<4}of 0 to {job.shards - 1}")
    fill_shard(job, number, engine, source, store, claim, show, share.retry)
    with (job.part(number) / FAILURES).open("rb") as file:
        failures = sum(1 for _ in file) - 1
    if failures:
        show(f"shard {number:<4}{failures} failed, listed in {job.part(number) / FAILURES}")
    return failures
