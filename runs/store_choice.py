"""Choose what a run keeps of its features: frames in float16 or in 8 bits, means, or nothing; one line says which and why."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..core.files import format_bytes, parse_size
from ..core.text import duration
from ..corpus.batch import Example
from ..training.batches import cut_pieces
from ..training.step import TaskData
from ..upstream.base import TokenCounter, Upstream
from ..upstream.store.space import Numbers, Space, space_of
from ..upstream.store.store import TRIAL, Store, default_limit
from ..upstream.store.writing import Computed
from .config.schema import RunConfig, StoreConfig, batch_size_of
from .prepare import RunSetup

MEASURED_FROM = 600.0  # seconds of audio: below, filling is too quick to be worth a forecast
Printer = Callable[[str], None]
ComputeIn = Callable[[Space, Sequence[Example]], Iterator[tuple[int, Computed]]]  # what an upstream makes of examples


@dataclass(frozen=True)
class Reuse:
    """What other runs mean for the features of this one."""

    share_layers: bool = False  # others of the plan use other layers, so that all are stored
    runs: int = 1  # of the plan, which use the same features
    before: Mapping[str, str] = field(default_factory=dict)  # task -> features of the run that is gone on with


@dataclass(frozen=True)
class Demand:
    """What a task needs of the store for one role."""

    role: str
    root: Path
    examples: Mapping[str, Example]  # utterance id -> example
    keys: Mapping[str, str]  # utterance id -> row key
    layers: Sequence[int]
    statistics: str | None  # over time, where they are all that the head needs
    seconds: float | None = None  # of audio that the run computes without a store; None: not to be weighed
    before: str = ""  # the role's features in the run that is gone on with


@dataclass(frozen=True)
class Forecast:
    """What a store will take."""

    rows: int  # that are missing
    audio: float  # seconds of them
    size: int  # bytes

    def said(self, demand: Demand, store: Store, modality: str) -> str:
        """Return the line of a store that is used."""
        if not self.rows:
            unread = "" if modality == "text" else " no audio is read,"
            return f"{len(demand.keys)} utterances are there already ({store.space.kind}):{unread} in {store.folder}"
        long = f"{self.rows} texts" if modality == "text" else f"{self.rows} utterances ({self.audio / 3600:.2f} h)"
        return f"{long} to compute once: {format_bytes(self.size)} of {store.space.kind}, in {store.folder}"


@dataclass(frozen=True)
class Paces:
    """Seconds that a second of audio takes here, measured on a sample."""

    compute: float
    write: float
    read: float


def choose_store(
    setup: RunSetup, demand: Demand, compute: ComputeIn, show: Printer, reuse: Reuse, sample_seconds: float
) -> tuple[Store | None, str]:
    """Return the first store that fits, float16 before 8 bits, or None and why; `show` prints the choice.

    The run computes its features in every step where no store fits, or where that is faster than filling one.
    """
    config, upstream = setup.config.store, setup.model.upstream(demand.role)
    if demand.before == "computed" and config.mode == "auto":
        return None, "the run here began without"
    limit, too_large = limit_of(config, demand.root), list[tuple[Store, Forecast]]()
    for numbers in numbers_of(config, demand):
        store = open_store(setup, demand, numbers, reuse)
        forecast = forecast_of(upstream, store, demand)
        if forecast.size <= limit:
            break
        store.leave()
        too_large.append((store, forecast))
    else:
        return None, refused(too_large, limit)
    line = forecast.said(demand, store, upstream.spec.modality)
    if too_large:
        [(first, more)] = too_large
        line += f"; in {first.space.numbers} {format_bytes(more.size)}, more than the limit of {format_bytes(limit)}"
        line += f" (otherwise: -o store.limit={gigabytes(more.size)}GB, or --store off)"
    if demand.seconds is not None and forecast.audio > MEASURED_FROM and not demand.before:
        paces = measure(demand, store, compute, sample_seconds)
        filling = forecast.audio * (paces.compute + paces.write)
        reading, without = demand.seconds * reuse.runs * paces.read, demand.seconds * reuse.runs * paces.compute
        if without < filling + reading and config.mode == "auto":
            store.leave()
            return None, (
                f"steps and evaluations compute at most {duration(without)}, filling takes {duration(filling)} "
                f"and reading {duration(reading)} (measured). --store on fills it for later runs."
            )
        line += f"; {duration(filling)} to fill, {duration(reading)} to read, {duration(without)} without (measured)"
    show(f"store     {line}")
    return store, ""


def refused(too_large: Sequence[tuple[Store, Forecast]], limit: int) -> str:
    """Return why no store fits, and the ways out."""
    sizes = " or ".join(f"{format_bytes(forecast.size)} of {store.space.kind}" for store, forecast in too_large)
    store, forecast = too_large[-1]
    in_bits = ", keep frames in 8 bits (-o store.precision=int8)" if store.space.kind == "frames" else ""
    return (
        f"{sizes} for {forecast.rows} utterances, more than the limit of {format_bytes(limit)}. "
        f"Raise it (-o store.limit={gigabytes(forecast.size)}GB), store one layer (-l){in_bits}, "
        "or use a head that pools by the mean."
    )


def gigabytes(size: int) -> int:
    """Return a limit that so many bytes fit into."""
    return size // 10**9 + 1


def numbers_of(config: StoreConfig, demand: Demand) -> tuple[Numbers, ...]:
    """Return what rows may be kept in, the first choice first; a run goes on with what it began with."""
    if demand.statistics is not None:
        return ("float16",)  # means are in float32 either way
    if config.precision != "auto":
        return (config.precision,)
    if demand.before:
        return ("int8",) if "8 bits" in demand.before else ("float16",)
    return ("float16", "int8")


def open_store(setup: RunSetup, demand: Demand, numbers: Numbers, reuse: Reuse) -> Store:
    """Return the store of the requested layers, or of all where it holds them already or other runs use others."""
    role, upstream = demand.role, setup.model.upstream(demand.role)
    requested = space_of(
        upstream,
        setup.model.configs[role],
        layers=demand.layers,
        statistics=demand.statistics,
        precision=setup.config.training.precision,
        numbers=numbers,
        weights_hash=setup.identity["upstreams"][role],
    )
    everything = replace(requested, layers=tuple(range(upstream.spec.num_layers)))
    if reuse.share_layers or requested == everything:
        return Store(demand.root, everything, upstream.name)
    if (demand.root / everything.key).is_dir():
        store = Store(demand.root, everything, upstream.name)
        store.look_up(demand.keys.values())
        if store.index.keys() >= {*demand.keys.values()}:
            return store
        store.leave()
    return Store(demand.root, requested, upstream.name)


def missing_rows(store: Store, demand: Demand) -> dict[str, Example]:
    """Return row key -> example of what the store does not hold."""
    store.look_up(demand.keys.values())
    return {key: demand.examples[name] for name, key in demand.keys.items() if key not in store.index}


def forecast_of(upstream: Upstream, store: Store, demand: Demand) -> Forecast:
    """Return what filling a store will take."""
    missing = missing_rows(store, demand).values()
    frames = 0 if store.space.pooled else sum(frames_of(upstream, row) for row in missing)
    return Forecast(len(missing), sum(row.seconds for row in missing), store.space.size(len(missing), frames))


def frames_of(upstream: Upstream, example: Example) -> int:
    """Return how many frames an upstream makes of an utterance: tokens, where it reads."""
    if isinstance(upstream, TokenCounter):
        return upstream.num_tokens(example.utterance.text or "")
    return upstream.spec.num_frames(int(example.seconds * upstream.spec.sample_rate))


def limit_of(config: StoreConfig, root: Path) -> int:
    """Return how many bytes a run may store."""
    return parse_size(config.limit) if config.limit else default_limit(root)


def seconds_without(config: RunConfig, task: TaskData) -> float:
    """Return how much audio a task's steps and evaluations compute without a store, at most."""
    cuts = [example for of_one in task.crops.values() for example in of_one]
    train = cuts or task.splits["train"]
    drawn = config.training.steps * batch_size_of(config, config.tasks[task.name])
    seconds = {split: sum(row.seconds for row in rows) for split, rows in task.splits.items() if split != "train"}
    evaluations = config.training.steps // config.training.eval_every
    return drawn * sum(row.seconds for row in train) / len(train) + sum(
        of_split * (evaluations if split == "dev" else 1) for split, of_split in seconds.items()
    )


def measure(demand: Demand, store: Store, compute: ComputeIn, sample_seconds: float) -> Paces:
    """Compute a sample of what is missing, write it to the store's disk and read it again; return how long each took."""
    rows = sorted(missing_rows(store, demand).items(), key=lambda row: row[1].seconds)
    pieces = cut_pieces([example for _, example in rows], seconds=sample_seconds)
    middle = {id(example) for example in pieces[len(pieces) // 2]}
    sample = {key: example for key, example in rows if id(example) in middle}
    seconds = sum(example.seconds for example in sample.values())
    [*compute(store.space, [*sample.values()][:1])]  # a model's first pass is slower
    began = time.perf_counter()
    computed = dict(compute(store.space, [*sample.values()]))
    took = time.perf_counter() - began
    places = {id(example): place for place, example in enumerate(sample.values())}
    with tempfile.TemporaryDirectory(prefix=TRIAL, dir=demand.root) as folder:
        trial = Store(Path(folder), store.space, "trial")
        began = time.perf_counter()
        trial.fill(sample, lambda wanted: iter([(at, computed[places[id(row)]]) for at, row in enumerate(wanted)]), _ignore)
        wrote = time.perf_counter() - began
        for path in trial.folder.glob("*.safetensors"):
            forget(path)
        began = time.perf_counter()
        for place in trial.index.values():
            np.array(place.values())
        read = time.perf_counter() - began
        trial.held.close()
    return Paces(took / seconds, wrote / seconds, read / seconds)


def forget(path: Path) -> None:
    """Have a file read from its disk next time, not from memory, where the system can be asked for that."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _ignore(_: Example) -> None:
    pass
