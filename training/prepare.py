"""From a config to everything a run needs: corpus, examples, upstream, expert, model, identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..corpus.audio import cache_folder, check_files
from ..corpus.base import Corpus, Utterance, get_reader
from ..corpus.batch import Example
from ..corpus.demo import demo_root
from ..corpus.locate import find_root
from ..downstream.base import Expert, Task, load_task
from ..errors import UserError
from ..upstream.base import Upstream, find_upstream, load_upstream
from ..upstream.row_keys import hash_file
from .checkpoint import load_tensors
from .config import CorpusConfig, RunConfig, identity_of
from .loop import TaskData
from .model import Model


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    config: RunConfig
    corpus: Corpus
    task: TaskData
    model: Model
    identity: Mapping[str, Any]
    marks: tuple[str, ...]  # DEMO, UNTRAINED
    notes: tuple[str, ...]

    @property
    def upstream(self) -> Upstream:
        """The upstream that listens."""
        return self.model.upstream("audio")


def prepare(config: RunConfig) -> Prepared:
    """Load and check everything that a run needs; what is missing is named in one message."""
    upstream, corpus = load_both(config)
    asked, config = config, replace(config, upstream=resolved_layer(config, upstream))
    if config.training.gradient_checkpointing:
        save_memory(config, upstream)
    task = load_task(config.task)
    vocabulary = task.make_vocabulary(config.expert, config.labels, corpus)
    chosen = {name: task.select(vocabulary, rows) for name, rows in corpus.splits.items()}
    seconds, notes = audible(chosen, config.corpus)
    model, expert = build_model(config, task, vocabulary, upstream)
    if config.init_head:
        start_from(model, Path(config.init_head).expanduser())
    splits = {name: make_examples(expert, rows, seconds) for name, rows in chosen.items()}
    for split in ("train", "dev"):
        if not splits.get(split):
            raise UserError(
                f"Expected utterances in split '{split}' of {corpus.name}, found none. Check `headwater corpus check`."
            )
    identity = {
        "config": identity_of(asked),
        "corpus": fingerprint(splits),
        "upstreams": {"audio": upstream.weights_hash()},
    }
    data = TaskData(config.task, expert, splits)
    if config.init_head:
        identity["init_head"] = hash_file(Path(config.init_head).expanduser() / "checkpoints" / "best.safetensors")
    return Prepared(config, corpus, data, model, identity, marks_of(config, upstream), (*corpus.notes, *notes))


def load_both(config: RunConfig) -> tuple[Upstream, Corpus]:
    """Return upstream and corpus; where both are missing, one message says so."""
    problems, upstream, corpus = [], None, None
    try:
        find_upstream(config.upstream)  # a wrong name is told before a demo is spoken for it
    except UserError as problem:
        if config.corpus.demo:
            raise
        problems.append(str(problem))
    try:
        corpus = read_corpus(config.corpus)
    except UserError as problem:
        problems.append(str(problem))
    try:
        upstream = load_upstream(config.upstream)
    except UserError as problem:
        problems.append(str(problem))
    if upstream is None or corpus is None:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return upstream, corpus


def read_corpus(config: CorpusConfig) -> Corpus:
    """Return the corpus of a config, real or demo."""
    reader = get_reader(config.name)
    root = demo_root(reader, scale=config.demo_scale) if config.demo else find_root(reader, config.data)
    return reader.read(root, protocol=config.protocol, fold=config.fold, **config.options)


def resolved_layer(config: RunConfig, upstream: Upstream) -> Any:
    """Return the upstream's section with -l checked against the layers there are."""
    layer, count = config.upstream.layer, upstream.spec.num_layers
    if layer is not None and not -count <= layer < count:
        there = f"from 0 to {count - 1}" if count > 1 else "0"
        raise UserError(
            f"Expected -l {there}, a layer of '{upstream.name}', found {layer}. Leave it out for the weighted sum of all layers."
        )
    if config.upstream.trainable and not any(True for _ in upstream.parameters()):
        raise UserError(f"Expected an upstream with weights for -f, found that '{upstream.name}' has none. Leave out -f.")
    return config.upstream if layer is None else replace(config.upstream, layer=layer % count)


def save_memory(config: RunConfig, upstream: Upstream) -> None:
    """Have a finetuned upstream keep less for the backward pass; a frozen one keeps nothing anyway."""
    if not config.upstream.trainable:
        raise UserError("Expected -f beside training.gradient_checkpointing, found a frozen upstream. Add -f, or leave it out.")
    upstream.recompute_blocks()


def audible(chosen: Mapping[str, Sequence[Utterance]], config: CorpusConfig) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return seconds by utterance id; broken files stop the run, or are left out where the user said so."""
    utterances = [utterance for rows in chosen.values() for utterance in rows]
    seconds, broken = check_files(utterances, cache_folder())
    if broken and not config.skip_broken:
        listed = "\n".join(f"  {entry}" for entry in broken[:5])
        more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise UserError(
            f"Expected readable audio for all {len(utterances)} utterances, found {len(broken)} broken:\n{listed}{more}\n"
            "Mend or remove these files, or go on without them with --skip-broken."
        )
    return seconds, (f"{len(broken)} broken file{'s' * (len(broken) > 1)} left out",) if broken else ()


def make_examples(expert: Expert, utterances: Sequence[Utterance], seconds: Mapping[str, float]) -> list[Example]:
    """Return the utterances with what training asks of them, those without readable audio left out."""
    return [
        Example(utterance, seconds[utterance.id], expert.target(utterance), expert.weight(utterance))
        for utterance in utterances
        if utterance.id in seconds
    ]


def build_model(config: RunConfig, task: Task, vocabulary: Mapping[str, Any], upstream: Upstream) -> tuple[Model, Expert]:
    """Return the model and its expert, new weights drawn from the run's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        expert = task.build(config.expert, vocabulary, {"audio": upstream.spec})
        return Model({"audio": upstream}, {task.name: expert}, {"audio": config.upstream}), expert


def start_from(model: Model, folder: Path) -> None:
    """Take head and layer weights of another run as the start."""
    if not (folder / "checkpoints" / "best.safetensors").is_file():
        raise UserError(f"Expected a trained run after -i, found no checkpoint in '{folder}'. Check the path.")
    tensors, _ = load_tensors(folder / "checkpoints" / "best.safetensors")
    heads = {key: value for key, value in tensors.items() if not key.startswith("upstreams.")}
    own = {key: value for key, value in model.trained_state().items() if key.startswith("upstreams.")}
    model.load_trained_state({**own, **heads}, str(folder))


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """Return a hash of ids, cuts, targets and splits: the same corpus read from another folder has the same."""
    digest = hashlib.sha256()
    for split, examples in sorted(splits.items()):
        for example in examples:
            row = example.utterance
            digest.update(repr((split, row.id, row.start, row.duration, row.speaker, example.target)).encode())
    return digest.hexdigest()


def marks_of(config: RunConfig, upstream: Upstream) -> tuple[str, ...]:
    """Return what every table, file and picture of the run must say."""
    return ("DEMO",) * config.corpus.demo + ("UNTRAINED",) * upstream.untrained


def describe(prepared: Prepared, folder: Path) -> list[str]:
    """Return the lines that a run prints before it starts."""
    config, upstream, model = prepared.config, prepared.upstream, prepared.model
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    counts = ", ".join(f"{name} {len(rows)}" for name, rows in prepared.task.splits.items())
    how = "finetuned" if config.upstream.trainable else "frozen"
    count, layer = upstream.spec.num_layers, config.upstream.layer
    use = f"weighted sum of {count} layers" if layer is None and count > 1 else f"layer {layer or 0} (of 0 to {count - 1})"
    use += ", each normed" * config.upstream.normalize_layers
    fold = f", fold {config.corpus.fold}" if prepared.corpus.fold is not None else ""
    return [
        *(f"{mark}: not a result to quote" for mark in prepared.marks),
        f"upstream  {upstream.name} ({upstream.source}), {how}, {use}",
        f"corpus    {prepared.corpus.name}, protocol {prepared.corpus.protocol}{fold}: {counts}",
        f"training  {trained:,} weights, {config.training.steps} steps of {config.training.batch_size} utterances",
        f"folder    {folder}",
        *(f"note      {note}" for note in prepared.notes),
    ]
