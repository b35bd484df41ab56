"""Whether a run hears through the store: what it would take, filling it, and what the loop is given instead of audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional as F
from tqdm import tqdm

from ..corpus.audio import cache_folder
from ..corpus.batch import Batch, Example, cut_pieces, make_batch
from ..errors import UserError
from ..upstream.base import Layers
from ..upstream.store import BUCKETS, Computed, Place, Space, Store, default_limit, in_words, parse_size, row_keys, space_of
from .checkpoint import plain_disk_errors
from .config import RunConfig
from .loop import ahead, shows_progress
from .prepare import Prepared
from .source import AudioSource, MemorySource, ShardSource, Source

MODES = ("off", "auto", "on", "check")
FILL_SECONDS = 240.0  # padded audio in one pass on a GPU; on a CPU one utterance at a time is fastest
TOLERANCE = {"means": 1e-4, "frames": 2e-2}  # of --store check: logits from float32 means, from float16 frames


def with_store(prepared: Prepared, accelerator: Accelerator, say: Callable[..., None], *, share_layers: bool = False) -> Prepared:
    """Return the run with a source of stored features where it may have one, filled; `say` is told what happens.

    `share_layers`: other runs of the plan hear other layers, so that all are stored.
    """
    config, mode = prepared.config, prepared.config.store.mode
    reason = refusal(prepared)
    if mode == "off" or (reason and mode == "auto"):
        return prepared
    if reason:
        raise UserError(f"Expected features that can be stored for --store {mode}, found {reason}. Use --store off.")
    root = store_root(config)
    means = prepared.task.expert.pools.get("audio") == "mean"
    layers = range(prepared.upstream.spec.num_layers)
    asked = [config.upstream.layer] if config.upstream.layer is not None else list(layers)
    with plain_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        examples = {row.utterance.id: row for rows in prepared.task.splits.values() for row in rows}
        keys = row_keys((row.utterance for row in examples.values()), root, prepared.upstream.spec.sample_rate)
        space = choose_space(prepared, root, asked, set(keys.values()), means, share_layers)
        store = Store(root, space, prepared.upstream.name)
        missing = {key: examples[name] for name, key in keys.items() if key not in store.index}
        if missing and not fits(prepared, store, list(missing.values()), say):
            return prepared
        fill(prepared, store, missing, accelerator)
        store.refresh()
        store.touch()
    places = {name: store.index[key] for name, key in keys.items()}
    source = make_source(config, store, places, [space.layers.index(layer) for layer in asked])
    stored = replace(
        prepared, task=replace(prepared.task, source=source), identity={**prepared.identity, "features": source.kind}
    )
    if mode == "check":
        check(stored, accelerator, say)
    return stored


def refusal(prepared: Prepared) -> str:
    """Return why this run's features cannot be stored; "" where they can."""
    config = prepared.config.upstream
    if config.trainable:
        return "an upstream that is finetuned (-f)"
    if config.padding != "exact":
        return f"padding {config.padding}: an utterance's features depend on its batch mates"
    return ""


def store_root(config: RunConfig) -> Path:
    """Return the folder that all spaces lie in: the cache's, or the one that --store names."""
    return cache_folder() / "store" if config.store.mode in MODES else Path(config.store.mode).expanduser()


def choose_space(prepared: Prepared, root: Path, asked: Sequence[int], keys: set[str], means: bool, share_layers: bool) -> Space:
    """Return the space of the layers asked for, or the one of all layers where it holds every row already."""
    config, upstream = prepared.config, prepared.upstream
    everything = list(range(upstream.spec.num_layers))
    spaces = [
        space_of(upstream, config.upstream, layers=layers, pooled=means, precision=config.training.precision)
        for layers in (asked, everything)
    ]
    if share_layers or list(asked) == everything:
        return spaces[1]
    known = (root / spaces[1].key).is_dir() and keys <= Store(root, spaces[1], upstream.name).index.keys()
    return spaces[1] if known else spaces[0]


def fits(prepared: Prepared, store: Store, missing: Sequence[Example], say: Callable[..., None]) -> bool:
    """Say what filling will take, and whether it may."""
    spec, config = prepared.upstream.spec, prepared.config.store
    frames = len(missing) if store.space.pooled else sum(spec.num_frames(int(row.seconds * spec.sample_rate)) for row in missing)
    size = frames * store.space.bytes_per_frame
    limit = parse_size(config.limit) if config.limit else default_limit(store.root)
    what = "means" if store.space.pooled else "frames"
    if size <= limit:
        hours = sum(row.seconds for row in missing) / 3600
        say(f"store     {len(missing)} utterances ({hours:.2f} h) to compute once: {in_words(size)} of {what}, in {store.folder}")
        return True
    words = (
        f"{in_words(size)} of {what} for {len(missing)} utterances, more than the limit of {in_words(limit)}. "
        f"Raise it (--store-limit {size // 10**9 + 1}GB), store one layer (-l), or use a head that pools by the mean."
    )
    if config.mode != "auto":
        raise UserError(f"Expected features that fit into the store, found {words}")
    say(f"store     not used: {words}")
    return False


def fill(prepared: Prepared, store: Store, missing: dict[str, Example], accelerator: Accelerator) -> None:
    """Run the upstream over what is missing, all processes of a launch together."""
    if not missing:
        return
    prepared.model.to(accelerator.device).eval()
    seconds = sum(example.seconds for example in missing.values())
    bar = tqdm(total=round(seconds), desc="computing features", unit="s", disable=not shows_progress(accelerator))
    first = accelerator.process_index * BUCKETS // accelerator.num_processes
    store.fill(
        missing,
        compute=lambda examples: compute(prepared, store.space, examples, accelerator),
        advance=lambda example: bar.update(example.seconds),
        first_bucket=first,
    )
    bar.close()
    accelerator.wait_for_everyone()


@torch.no_grad()
def compute(
    prepared: Prepared, space: Space, examples: Sequence[Example], accelerator: Accelerator
) -> Iterator[tuple[int, Computed]]:
    """Yield (position, features) for each example: one at a time on a CPU, by length on a GPU."""
    positions = {id(example): position for position, example in enumerate(examples)}
    on_cpu = accelerator.device.type == "cpu"
    pieces = [[example] for example in examples] if on_cpu else cut_pieces(examples, seconds=FILL_SECONDS)
    wanted = None if len(space.layers) == prepared.upstream.spec.num_layers else list(space.layers)
    for index, batch in ahead(range(len(pieces)), lambda index: make_batch(pieces[index])):
        with accelerator.autocast():
            layers = prepared.upstream(batch.to(accelerator.device), layers=wanted)
        for row, example in enumerate(pieces[index]):
            yield positions[id(example)], computed(layers, row, space)


def computed(layers: Layers, row: int, space: Space) -> Computed:
    """Return one utterance's features as its row keeps them."""
    length = layers.lengths[row]
    frames = torch.stack([value[row, :length].float() for value in layers.values], dim=1)  # (frame, layer, dim)
    norms = tuple(round(norm, 6) for norm in frames.norm(dim=2).mean(dim=0).tolist())
    if space.normalized:
        frames = F.layer_norm(frames, frames.shape[-1:])  # before the mean: the norm of a mean is another thing
    if space.pooled:
        frames = frames.double().mean(dim=0, keepdim=True).float()
    return Computed(frames.cpu().numpy(), norms, length)


def make_source(config: RunConfig, store: Store, places: dict[str, Place], columns: Sequence[int]) -> Source:
    """Return what serves the rows: out of memory where means fit, else from their shards."""
    kind = ("means" if store.space.pooled else "frames") + f", {store.space.precision}"
    shards = ShardSource("audio", places, columns, store.space.pooled, kind)
    size = len(places) * len(columns) * store.space.dim * 4
    in_memory = store.space.pooled and size <= parse_size(config.store.memory)
    return MemorySource.of(shards) if in_memory else shards


def check(prepared: Prepared, accelerator: Accelerator, say: Callable[..., None]) -> None:
    """Compare one batch from the store with the full computation, and stop at a difference."""
    task, model = prepared.task, prepared.model.to(accelerator.device).eval()
    examples = sorted(task.splits["dev"], key=lambda example: example.seconds)[:: max(1, len(task.splits["dev"]) // 8)][:8]
    answers = []
    for source in (AudioSource(), task.source):
        batch: Batch = source.batch(examples).to(accelerator.device)
        with torch.no_grad(), accelerator.autocast():
            answers.append(model.answer(task.name, batch).values.float().cpu().numpy())
    difference = float(np.abs(answers[0] - answers[1]).max() / max(float(np.abs(answers[0]).max()), 1e-6))
    allowed = TOLERANCE[task.source.kind.split(",")[0]] * (1 if prepared.config.training.precision == "float32" else 100)
    if difference > allowed:
        raise UserError(
            f"Expected the store's answers within {allowed:g} of the full computation, found {difference:.2g}. "
            f"Remove the features with `headwater store prune --all`, or use --store off."
        )
    say(f"store     checked on {len(examples)} utterances: {difference:.1e} from the full computation")
