"""The part of a config that decides the numbers, and what tells two runs apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.options import differences
from ...core.run_folder import RunFolder
from ...core.tensors import load_tensors
from ...corpus.batch import Example
from ...downstream.load import load_task
from .schema import TASK_KEYS, MtlConfig, RunConfig, mtl_mapping, to_mapping

_UPSTREAM = {"front_end": "frozen", "front_end_gradient": 1.0, "layerdrop": 0.0, "dropout_of": "all"}
# options that came after the first run folders: with these values nothing differs, so that those runs stay what they are
ADDED: Mapping[str, Mapping[str, Any]] = {
    "optimizer": {"schedule_steps": None},
    "training": {"eval_piece_size": None, "bucket_steps": None},
    "upstream": _UPSTREAM,
    "text_upstream": _UPSTREAM,
    "task": {"modality_dropout": 0, "mask_fill": "mean"},
}


def identity_of(config: RunConfig) -> dict[str, Any]:
    """Return the part of a config that decides the numbers: no path, no published value, no plan, no log."""
    mapping = to_mapping(config)
    for key in ("reference", "folds", "stages", "store", "steps_from", *(() if config.split else ("split",))):
        mapping.pop(key)
    # what was added since the first runs counts where it is used: those runs stay what they are
    texts = bool(config.text_upstream.name) or load_task(config.task).question(config.expert).writes
    unused = {"data", "skip_broken"} | (set() if texts else {"transcripts", "missing_text"})
    mapping["corpus"] = {key: value for key, value in mapping["corpus"].items() if key not in unused}
    if mapping["corpus"].get("transcripts"):
        mapping["corpus"]["transcripts"] = Path(mapping["corpus"]["transcripts"]).name
    options = {key: value for key, value in mapping["corpus"]["options"].items() if key != "audio_root"}
    mapping["corpus"]["options"] = options
    told = {"log_every", "save_every"}  # what is told on the way
    mapping["training"] = {key: value for key, value in mapping["training"].items() if key not in told}
    for key, section in (("upstream", config.upstream), ("text_upstream", config.text_upstream)):
        mapping[key] = {name: value for name, value in mapping[key].items() if name != "path"}
        mapping[key]["name"] = _without_path(section.name)
    if not config.text_upstream.name:
        mapping.pop("text_upstream")
    mapping["init_head"] = config.init_head and Path(config.init_head).name
    for part, idle in ADDED.items():
        key = config.task if part == "task" else part
        if key in mapping:
            mapping[key] = {name: value for name, value in mapping[key].items() if name not in idle or value != idle[name]}
    return mapping


def _without_path(name: str) -> str:
    """A folder counts by its name; what is in it counts by the hash of its weights."""
    return Path(name).name if Path(name).expanduser().is_dir() else name


def mtl_identity(config: MtlConfig) -> dict[str, Any]:
    """Return the part of a config that decides the numbers."""
    mapping, runs = mtl_mapping(config), {name: identity_of(run) for name, run in config.runs.items()}
    told = {"log_every", "save_every"}
    training = {key: value for key, value in mapping["training"].items() if key not in told}
    one = next(iter(runs.values()))
    tasks = {
        name: {key: run[key] for key in (*TASK_KEYS, config.runs[name].task)} | {"batch_size": run["training"]["batch_size"]}
        for name, run in runs.items()
    }
    same = {key: one[key] for key in ("optimizer", "upstream")}
    return {**mapping, "training": training, **same, "tasks": tasks}


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
        if all(line.startswith("features:") for line in lines):
            advice = "Hear as before: --store off for computed, --store on (with -o store.limit=SIZE) for stored features."
        raise UserError(f"Expected the same run in '{folder}', found another one there (there -> now):\n{listed}\n{advice}")
