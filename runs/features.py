"""Decide whether a run uses cached features, compute the missing ones, and give the loop features instead of audio."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.files import cache_folder, parse_size, plain_disk_errors
from ..corpus.batch import Batch, Example, make_batch, silent_batch
from ..corpus.fingerprints import row_keys, text_keys
from ..training.batches import cut_pieces, derive_seed
from ..training.loop import ahead
from ..training.source import Source, kind_of_role
from ..training.step import TaskData, cropped
from ..upstream.base import Layers, Upstream
from ..upstream.statistics import over_time
from ..upstream.store.reading import MemoryLayers, ShardLayers, StoredLayers
from ..upstream.store.space import Space
from ..upstream.store.store import BUCKETS, Store
from ..upstream.store.writing import Computed
from .config.schema import MODES, RunConfig
from .log import filling
from .prepare import RunSetup
from .store_choice import Demand, Printer, Reuse, choose_store, missing_rows, seconds_without

FILL_SECONDS = 240.0  # padded audio in one pass on a GPU; on a CPU one utterance at a time is fastest
SAMPLE_SECONDS = 20.0  # of audio that a CPU computes to see how fast it is
# of --store check, by what is stored and how it was computed: difference of the logits over the largest of them
TOLERANCE = {
    ("means", True): 1e-4,
    ("means", False): 1e-1,
    ("frames", True): 1e-2,
    ("frames", False): 1e-1,
    ("frames in 8 bits", True): 1e-1,
    ("frames in 8 bits", False): 2e-1,
}
EXACT_MEMORY = 2**28  # bytes of pooled rows that the exact solver has read at once; more are read from their shards
HEADING = 10  # characters before what a printed line says: "store     "


class Unwritable(UserError):
    """The store's disk is full, or may not be written."""


def with_store(setup: RunSetup, accelerator: Accelerator, show: Printer, reuse: Reuse | None = None) -> RunSetup:
    """Return the run with stored features where it may have them, filled; `show` prints what happens.

    Means where a task's head needs no more, else frames; tasks on the same audio share their spaces.
    """
    mode = setup.config.store.mode
    reasons = {role: refusal(setup, role) for role in setup.model.configs}
    if all(reasons.values()) and mode not in ("off", "auto"):
        found = " and ".join(dict.fromkeys(reasons.values()))
        raise UserError(f"Expected features that can be stored for --store {mode}, found {found}. Use --store off.")
    usable = [role for role, reason in reasons.items() if not reason and mode != "off"]
    tasks: dict[str, TaskData] = {}
    notes: list[str] = []
    for name, task in setup.tasks.items():
        prefix = f"{name}: " * setup.config.is_joint
        show_prefixed = partial(prefixed, show, prefix)
        tasks[name], note = stored_task(setup, task, usable, accelerator, show_prefixed, reuse or Reuse())
        if note:
            show_prefixed(f"note      {note}")
            notes.append(prefix + note)
    kinds = {name: task.source.kind for name, task in tasks.items()}
    features = kinds if setup.config.is_joint else next(iter(kinds.values()))
    identity = {**setup.identity, "features": features}
    ready = replace(setup, tasks=tasks, notes=(*setup.notes, *notes), identity=identity)
    if mode == "check":
        for task in (task for task in tasks.values() if task.source.stored):
            check(ready, task, accelerator, show)
    return ready


def prefixed(show: Printer, prefix: str, line: str) -> None:
    """Print a line with the name of a task behind its heading."""
    show(line[:HEADING] + prefix + line[HEADING:])


def stored_task(
    setup: RunSetup, task: TaskData, roles: Sequence[str], accelerator: Accelerator, show: Printer, reuse: Reuse
) -> tuple[TaskData, str]:
    """Return a task with its stored features, and what a user should know of them."""
    config, stored = setup.config, dict[str, StoredLayers]()
    roles = [role for role in roles if role in task.source.roles]
    cut = with_crops(task, config) if "audio" in roles else task
    for role in roles:
        try:
            layers = stored_layers(setup, cut, role, accelerator, show, reuse)
        except Unwritable as problem:
            if config.store.mode != "auto":
                raise
            show(f"store     not used, so that features are computed in every step: {problem}")
            break
        if layers is not None:
            stored[role] = layers
    kept = cut if "audio" in stored else task
    notes = [f"training uses {config.store.crops} fixed stretches of each utterance, those stored (--store off draws new ones)"]
    notes = notes if kept.crops else []
    if any(masks_frames(setup, role) and task.expert.pools.get(role) == "mean" for role in stored):
        notes.append("the store keeps frames, though this head needs their means alone: masks are over frames")
    notes += [layers.note for layers in stored.values() if layers.note]
    source = Source(task.source.roles, stored)  # a part of what a run is: float16 frames are not what audio gives
    return replace(kept, source=source), "; ".join(notes)


def with_crops(task: TaskData, config: RunConfig) -> TaskData:
    """Return a task with as many fixed stretches of each utterance as the store keeps, where it draws them."""
    if not task.expert.crops:
        return task
    crops: dict[str, list[Example]] = {}
    for example in task.splits["train"]:
        name = example.utterance.id
        crops[name] = []
        for number in range(config.store.crops):
            generator = torch.Generator().manual_seed(derive_seed(config.seed, "crop", name, number))
            cut = cropped(task.expert, example, generator)
            crops[name].append(replace(cut, utterance=replace(cut.utterance, id=f"{name}#{number}")))
    return replace(task, crops=crops)


def stretches_of(task: TaskData) -> list[Example]:
    """Return every stretch of audio that a task uses of its splits."""
    cuts = [example for of_one in task.crops.values() for example in of_one]
    return [*cuts, *(example for split, rows in task.splits.items() if split != "train" or not cuts for example in rows)]


def refusal(setup: RunSetup, role: str) -> str:
    """Return why the features of a role cannot be stored; "" where they can."""
    config = setup.model.configs[role]
    if config.trainable:
        return "an upstream that is finetuned (-f)"
    # a run folder's upstream has the padding of its own recipe
    if config.padding != "exact" or not getattr(setup.model.upstream(role), "exact", True):
        return "padding s3prl: an utterance's features depend on its batch mates"
    return ""


def store_root(mode: str) -> Path:
    """Return the folder that all spaces lie in: the cache's, or the one that --store names."""
    return cache_folder() / "store" if mode in MODES else Path(mode).expanduser().absolute()


def stored_layers(
    setup: RunSetup, task: TaskData, role: str, accelerator: Accelerator, show: Printer, reuse: Reuse
) -> StoredLayers | None:
    """Return what serves a role's stored rows, those that are missing computed first; None where they would take too much.

    The main process decides for all: what the others see of the disk changes while it is filled.
    """
    root, demand, store = store_root(setup.config.store.mode), None, None
    with all_or_none(accelerator):
        if accelerator.is_main_process:
            demand = demand_of(setup, task, role, root, reuse)
            store = chosen_store(setup, demand, accelerator, show, reuse)
    decided = [None if store is None else store.space]
    if accelerator.num_processes > 1:
        broadcast_object_list(decided)
    if decided[0] is None:
        return None
    with all_or_none(accelerator):
        demand = demand or demand_of(setup, task, role, root, reuse)
        with disk_problems(root):
            store = store or Store(root, decided[0], setup.model.upstream(role).name)
            fill(setup, store, demand, accelerator, show)
            store.touch()
            layers = make_layers(setup.config, store, demand)
    return layers


@contextmanager
def all_or_none(accelerator: Accelerator) -> Iterator[None]:
    """Raise on every process the user error that one of them meets, when all have come to the end."""
    problem: UserError | None = None
    try:
        yield
    except UserError as caught:
        problem = caught
    for met in gather_object([problem]) if accelerator.num_processes > 1 else [problem]:
        if met is not None:
            raise met


@contextmanager
def disk_problems(root: Path) -> Iterator[None]:
    """Turn what the store's disk refuses into one line that differs from a user's other mistakes."""
    try:
        yield
    except OSError as problem:
        try:
            with plain_disk_errors(root):
                raise problem
        except UserError as line:
            raise Unwritable(f"{line} --store off goes without, --store DIR keeps features elsewhere.") from None


def chosen_store(setup: RunSetup, demand: Demand, accelerator: Accelerator, show: Printer, reuse: Reuse) -> Store | None:
    """Return the store that a role's features are kept in; None where they are computed in every step."""
    upstream = setup.model.to(accelerator.device).eval().upstream(demand.role)
    sample_seconds = SAMPLE_SECONDS if accelerator.device.type == "cpu" else FILL_SECONDS

    def compute_sample(space: Space, examples: Sequence[Example]) -> Iterator[tuple[int, Computed]]:
        return compute(upstream, space, examples, accelerator)

    with disk_problems(demand.root):
        store, problem = choose_store(setup, demand, compute_sample, show, reuse, sample_seconds)
    if store is None and setup.config.store.mode != "auto":
        raise UserError(f"Expected features that fit into the store, found {problem}")
    if store is None:
        show(f"store     not used: {problem}")
    return store


def demand_of(setup: RunSetup, task: TaskData, role: str, root: Path, reuse: Reuse) -> Demand:
    """Return the utterances of all of a task's splits with their row keys, and the layers that are used."""
    with disk_problems(root):
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):  # a folder that cannot be written is found here, and reported once
            pass
    spec, layer = setup.model.upstream(role).spec, setup.model.configs[role].layer
    examples = {row.utterance.id: row for row in stretches_of(task)}
    utterances = [row.utterance for row in examples.values()]
    keys = text_keys(utterances) if spec.modality == "text" else row_keys(utterances, root, spec.sample_rate)
    taken = task.expert.takes.get(role)
    layers = tuple(range(spec.num_layers)) if layer is None else (layer,)
    layers = layers if taken is None else tuple(number % spec.num_layers for number in taken)
    statistics = task.expert.pools.get(role)
    if masks_frames(setup, role):
        statistics = None
    seconds = None
    if spec.modality == "audio" and setup.config.solver != "exact":  # a head without steps reads its features at once
        corpora = {name: section.corpus for name, section in setup.config.tasks.items()}
        sharing = [other for name, other in setup.tasks.items() if corpora[name] == corpora[task.name]]
        seconds = sum(seconds_without(setup.config, other) for other in sharing)
    before = kind_of_role(reuse.before.get(task.name, ""), role)
    return Demand(role, root, examples, keys, layers, statistics, seconds, before)


def masks_frames(setup: RunSetup, role: str) -> bool:
    """Return whether training masks the frames of a role: their mean has no stretch of time to mask."""
    return role == "audio" and setup.config.masks.is_on


def fill(setup: RunSetup, store: Store, demand: Demand, accelerator: Accelerator, show: Printer) -> None:
    """Run the upstream over what is missing, all processes of a launch together."""
    missing = missing_rows(store, demand)
    if not missing:
        return
    setup.model.to(accelerator.device).eval()
    with filling([example.seconds for example in missing.values()], accelerator, show) as advance:
        store.fill(
            missing,
            compute=lambda examples: compute(setup.model.upstream(demand.role), store.space, examples, accelerator),
            advance=lambda example: advance(example.seconds),
            first_bucket=accelerator.process_index * BUCKETS // accelerator.num_processes,
            show=show if accelerator.num_processes == 1 else lambda _: None,  # that it waits for its own kin is no news
        )


@torch.no_grad()
def compute(
    upstream: Upstream, space: Space, examples: Sequence[Example], accelerator: Accelerator
) -> Iterator[tuple[int, Computed]]:
    """Yield (position, features) for each example: one at a time on a CPU, by length on a GPU."""
    positions = {id(example): position for position, example in enumerate(examples)}
    on_cpu = accelerator.device.type == "cpu"
    pieces = [[example] for example in examples] if on_cpu else cut_pieces(examples, seconds=FILL_SECONDS)
    wanted = None if len(space.layers) == upstream.spec.num_layers else list(space.layers)
    read = silent_batch if upstream.spec.modality == "text" else make_batch
    for index, batch in ahead(range(len(pieces)), lambda index: read(pieces[index])):
        with accelerator.autocast():
            layers = upstream(batch.to(accelerator.device), layers=wanted)
        for row, example in enumerate(pieces[index]):
            yield positions[id(example)], computed(layers, row, space)


def computed(layers: Layers, row: int, space: Space) -> Computed:
    """Return one utterance's features as its row keeps them."""
    length = layers.lengths[row]
    frames = torch.stack([value[row, :length].float() for value in layers.values], dim=1)  # (frame, layer, dim)
    norms = tuple(frames.norm(dim=2).mean(dim=0).tolist())
    if space.normalized:
        frames = F.layer_norm(frames, frames.shape[-1:])  # before the mean: the norm of a mean is another thing
    if space.pooled:
        frames = statistics_of(frames.double(), space.statistics).float()
    return Computed(frames.cpu().numpy(), norms, length)


def statistics_of(frames: Tensor, statistics: str) -> Tensor:
    """Return the statistics of one utterance's frames (frame, layer, dim): (1, layer, statistic x dim)."""
    if statistics == "mean":
        return frames.mean(dim=0, keepdim=True)
    by_layer = frames.transpose(0, 1)  # (layer, frame, dim)
    valid = torch.ones(by_layer.shape[:2], dtype=torch.bool, device=frames.device)
    return over_time(by_layer, valid, statistics).transpose(0, 1)


def make_layers(config: RunConfig, store: Store, demand: Demand) -> StoredLayers:
    """Return what serves the rows: out of memory where means fit, else from their shards."""
    kind = f"{store.space.kind}, {store.space.precision}"
    places = {name: store.index[key] for name, key in demand.keys.items()}
    columns = [store.space.layers.index(layer) for layer in demand.layers]
    shards = ShardLayers(store, places, columns, kind)
    size = len(places) * len(columns) * store.space.dim * 4
    # the exact solver reads rows once, and holds them in a form of its own
    limit = EXACT_MEMORY if config.solver == "exact" else parse_size(config.store.memory)
    in_memory = store.space.pooled and size <= limit
    return MemoryLayers.of(shards) if in_memory else shards


@torch.no_grad()
def check(setup: RunSetup, task: TaskData, accelerator: Accelerator, show: Printer) -> None:
    """Compare one batch from the store with the full computation, and stop at a difference."""
    model = setup.model.to(accelerator.device).eval()
    rows = task.splits.get("dev") or task.splits["train"]
    examples = sorted(rows, key=lambda example: example.seconds)[:: max(1, len(rows) // 8)][:8]
    outputs = []
    for source in (Source(task.source.roles), task.source):
        batch: Batch = source.batch(examples).to(accelerator.device)
        with accelerator.autocast():
            outputs.append(model.output_of(task.name, batch).values.float().cpu().numpy())
    difference = float(np.abs(outputs[0] - outputs[1]).max() / max(float(np.abs(outputs[0]).max()), 1e-6))
    kinds = {layers.kind.split(",")[0] for layers in task.source.stored.values()}
    exact = setup.config.training.precision == "float32"
    allowed = max(TOLERANCE[kind if kind.startswith("frames") else "means", exact] for kind in kinds)
    if not difference <= allowed:
        raise UserError(
            f"Expected the outputs from the store within {allowed:g} of the full computation, found {difference:.2g}. "
            "Remove the features with `headwater store prune --all`, or use --store off."
        )
    show(f"store     checked on {len(examples)} utterances: {difference:.1e} from the full computation")
