"""The part of a config that decides the numbers, and what tells two runs apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import read_json
from ...core.options import differences
from ...core.run_folder import LAST
from ...core.tensors import load_tensors
from ...corpus.batch import Example
from ...downstream.load import load_task
from .schema import RunConfig, TaskConfig, batch_size_of, roles_of, section_of, to_mapping

NO_NUMBER = ("reference", "folds", "stages", "store", "steps_from")  # no published value, no plan, no place
LOGGING = ("log_every", "save_every")  # of training


def identity_of(config: RunConfig) -> dict[str, Any]:
    """Return the part of a config that decides the numbers: no path, no published value, no plan, no log.

    What was added since the first runs counts where it is used: those runs stay what they are.
    """
    mapping = to_mapping(config)
    unused = {*NO_NUMBER, *([] if config.split else ["split"]), *([] if config.text_upstream.name else ["text_upstream"])}
    mapping = {key: value for key, value in mapping.items() if key not in unused}
    if mapping["optimizer"]["schedule_steps"] is None:
        mapping["optimizer"].pop("schedule_steps")
    mapping["training"] = {key: value for key, value in mapping["training"].items() if key not in LOGGING}
    for key in (key for key in ("upstream", "text_upstream") if key in mapping):
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
    own = mapping[task.task]
    if own.get("modality_dropout") == 0:
        own = {key: value for key, value in own.items() if key != "modality_dropout"}
    return {**mapping, "corpus": corpus, "init_head": task.init_head and Path(task.init_head).name, task.task: own}


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
    """Refuse a folder in which another run stands, with each difference; one that learnt nothing yet gives way."""
    if not any((folder / name).is_file() for name in (LAST, "result.json")):
        return
    if (folder / "identity.json").is_file():
        there = read_json(folder / "identity.json", [*identity])
    else:
        there = load_tensors(folder / LAST)[1]["identity"]
    lines = differences({key: value for key, value in there.items() if key in identity}, identity)
    if lines:
        listed = "\n".join("  " + line.removeprefix("config.") for line in lines[:12])
        advice = "Choose another folder with -n or -p, or the options of the run that is there."
        of_code = [line for line in lines if line.startswith("code")]
        if of_code and all(line.startswith(("code", "upstreams.")) for line in lines):  # whose hash the code is part of
            listed = "\n".join("  " + re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1", line) for line in of_code)
            advice = "The code is not what the run there began with: bring that back, or choose another folder with -n or -p."
        if all(line.startswith("features") for line in lines):
            advice = "Hear as before: --store off for computed, --store on (with a --store-limit) for stored features."
        raise UserError(f"Expected the same run in '{folder}', found another one there (there -> now):\n{listed}\n{advice}")
