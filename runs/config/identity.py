"""The identity of a run: the part of a config that decides the numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.options import differences, plain, without_folders
from ...core.run_folder import RunFolder
from ...core.tensors import load_tensors
from ...corpus.batch import Example
from ...downstream.load import load_task
from ...downstream.masks import MasksConfig
from ...plugins.registry import SECTIONS
from .schema import RunConfig, TaskConfig, batch_size_of, roles_of, section_of, to_mapping

NO_NUMBER = (
    "reference",
    "report_by",
    "folds",
    "stages",
    "store",
    "steps_from",
    "track",
)  # nothing that is only shown, no plan, no place
NO_NUMBER_OF_TRAINING = ("log_every", "save_every", "shard")  # what is logged and kept, and where weights lie

_UPSTREAM = {
    "front_end": "frozen",
    "front_end_gradient": 1.0,
    "layerdrop": 0.0,
    "dropout_of": "all",
    "config": None,
    "filters": "random",
    "adapter": "none",
    "adapter_rank": 8,
    "adapter_alpha": None,
    "adapter_dropout": 0.0,
    "adapter_targets": None,
}
# options that came after the first run folders: with these values nothing differs, so that those runs stay what they are
ADDED: Mapping[str, Mapping[str, Any]] = {
    "optimizer": {"schedule_steps": None, "adapter_lr": 1e-3, "bits": 32},
    "training": {"eval_piece_size": None, "bucket_steps": None},
    "upstream": _UPSTREAM,
    "text_upstream": _UPSTREAM,
    "teacher": _UPSTREAM,
    "masks": plain(MasksConfig()),
}
# the same in the tasks' own sections
ADDED_TO_TASKS = {"modality_dropout": 0, "mask_fill": "mean", "text_pooling": None, "beam": None}


def identity_of(config: RunConfig) -> dict[str, Any]:
    """Return the part of a config that decides the numbers: no path, no published value, no plan, no log.

    What was added since the first runs counts where it is used: those runs stay what they are.
    """
    mapping = to_mapping(config)
    unused = {*NO_NUMBER, *([] if config.split else ["split"])}
    unused |= {key for key in ("text_upstream", "teacher") if not getattr(config, key).name}
    mapping = {key: value for key, value in mapping.items() if key not in unused}
    for part in (key for key in ADDED if key in mapping):
        mapping[part] = without_idle(mapping[part], ADDED[part])
    for later in (key for key in ("masks", "own_adapters") if key in mapping and not mapping[key]):
        del mapping[later]
    if config.solver == "exact":  # which neither draws nor steps
        mapping = {key: value for key, value in mapping.items() if key not in ("optimizer", "seed")}
        mapping["training"] = {"precision": config.training.precision}
    else:
        mapping = {key: value for key, value in mapping.items() if key not in ("solver", "exact")}
    mapping["training"] = {key: value for key, value in mapping["training"].items() if key not in NO_NUMBER_OF_TRAINING}
    for key in (key for key in SECTIONS.values() if key in mapping):
        section = {name: value for name, value in mapping[key].items() if name != "path"}
        mapping[key] = {**section, "name": _without_path(section["name"])}
    if not config.is_joint:
        return {**mapping, **task_identity(config, config.only)}
    tasks = {
        name: {"batch_size": batch_size_of(config, task)} | task_identity(config, task) for name, task in config.tasks.items()
    }
    return {**mapping, "tasks": tasks}


def task_identity(config: RunConfig, task: TaskConfig) -> dict[str, Any]:
    """Return the part of a task's options that decides the numbers."""
    mapping = section_of(task)
    texts = "text" in roles_of(config, task) or load_task(task.task).question(task.expert).writes
    unused = {"data", "skip_broken"} | (set() if texts else {"transcripts", "missing_text"})
    corpus = {key: value for key, value in mapping["corpus"].items() if key not in unused}
    if corpus.get("transcripts"):
        corpus["transcripts"] = Path(corpus["transcripts"]).name
    corpus["options"] = {key: value for key, value in corpus["options"].items() if key != "audio_root"}
    own = without_idle({**mapping[task.task], **without_folders(task.expert)}, ADDED_TO_TASKS)
    del mapping["report_by"]  # chooses what a table shows
    return {**mapping, "corpus": corpus, "init_head": task.init_head and Path(task.init_head).name, task.task: own}


def without_idle(options: Mapping[str, Any], idle: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that change nothing."""
    return {name: value for name, value in options.items() if name not in idle or value != idle[name]}


def _without_path(name: str) -> str:
    """A folder counts by its name; what is in it counts by the hash of its weights."""
    return Path(name).name if Path(name).expanduser().is_dir() else name


def fingerprint(splits: Mapping[str, Sequence[Example]], read: bool = False) -> str:
    """Return a hash of ids, cuts, targets, splits, and texts where they are read: alike wherever the corpus lies."""
    digest = hashlib.sha256()
    for split, examples in sorted(splits.items()):
        for example in examples:
            row = example.utterance
            digest.update(repr((split, row.id, row.start, row.duration, row.speaker, example.target)).encode())
            if read:
                digest.update(repr(row.text).encode())
    return digest.hexdigest()


def refuse_other(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder in which another run stands, with each difference; one without a checkpoint gives way."""
    run = RunFolder(folder)
    if not (run.last.is_file() or run.result.is_file()):
        return
    there = run.read().identity(*identity) if run.identity.is_file() else load_tensors(run.last)[1]["identity"]
    lines = differences({key: value for key, value in there.items() if key in identity}, identity)
    if lines:
        listed = "\n".join("  " + line.removeprefix("config.") for line in lines[:12])
        advice = "Choose another folder with -n or -p, or the options of the run that is there."
        of_code = [line for line in lines if line.startswith("code")]
        if of_code and all(line.startswith(("code", "upstreams.")) for line in lines):  # whose hash the code is part of
            listed = "\n".join("  " + re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1", line) for line in of_code)
            advice = "The code is not what the run there began with: bring that back, or choose another folder with -n or -p."
        if all(line.startswith("features") for line in lines):
            advice = (
                "Hear as before: --store off for computed, --store on (with -o store.limit=SIZE) for stored features, "
                "-o store.precision=int8 for frames in 8 bits, float16 for others."
            )
        raise UserError(f"Expected the same run in '{folder}', found another one there (there -> now):\n{listed}\n{advice}")
