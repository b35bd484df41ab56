"""What heads start from: another run's head and layer weights, and a sample of the teacher's frames."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import hash_file
from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors
from ..training.batches import derive_seed, epoch_order
from ..training.model import SHARED, Model, weights_of_task
from ..training.step import TaskData
from ..upstream.base import TEACHER
from .config.schema import RunConfig


def start_from_heads(model: Model, config: RunConfig) -> dict[str, Any]:
    """Load the heads that the tasks start from, and return what the run's identity says of them."""
    heads = {name: Path(task.init_head).expanduser() for name, task in config.tasks.items() if task.init_head}
    for name, folder in heads.items():
        start_from(model, folder, name, config.tasks[name].task)
    if config.is_joint:
        return {"init_heads": {name: head_hash(folder) for name, folder in heads.items()}}
    return {"init_head": hash_file(RunFolder(heads[config.only.task]).best)} if heads else {}


def start_from(model: Model, folder: Path, name: str, task: str) -> None:
    """Take head and layer weights of another run as a task's start; there it has the same name, or that of the task.

    A weighted sum that several tasks share starts even: each of them brings another.
    """
    best = RunFolder(folder).best
    if not best.is_file():
        raise UserError(f"Expected a trained run after -i, found no checkpoint in '{folder}'. Check the path.")
    tensors, _ = load_tensors(best)
    known = {key.split(".")[1] for key in tensors if key.startswith("experts.")}
    found = head_of(weights_of_task(tensors, name if name in known else task, name), name)
    if model.shares_sums:
        found = {key: value for key, value in found.items() if key.startswith("experts.")}
    own = f"experts.{name}.", f"sums.{name}."
    kept = {key: value for key, value in model.trained_state().items() if not key.startswith(own)}
    model.load_trained_state({**kept, **found}, str(folder))


def head_of(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return a task's weights without the upstreams'; a weighted sum that tasks shared becomes its own."""
    shared = f"sums.{SHARED}."
    heads = {key: value for key, value in weights.items() if not key.startswith("upstreams.")}
    return {key.replace(shared, f"sums.{name}.", 1) if key.startswith(shared) else key: heads[key] for key in heads}


def head_hash(folder: Path) -> str:
    """Return a hash of a run's weights; its file also says how long they took."""
    tensors, _ = load_tensors(RunFolder(folder).best)
    return hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()


def fit_to_teachers(model: Model, tasks: Mapping[str, TaskData], seed: int, show: Callable[[str], None]) -> None:
    """Give each head that requests it frames of its teacher: of training utterances in an order that the seed draws."""
    for name, task in tasks.items():
        if task.expert.fit_frames:
            layers = sample_frames(model, task, derive_seed(seed, name, "learn"))
            show(f"teacher   {len(layers[0]):,} frames of {model.upstream(TEACHER).name} sampled before the first step")
            task.expert.fit_to_teacher(layers, derive_seed(seed, name, "fit"))


@torch.no_grad()
def sample_frames(model: Model, task: TaskData, seed: int) -> list[Tensor]:
    """Return frames of the teacher, each layer (frame, dim): of whole utterances, one after the other, until they are enough."""
    model.eval()
    examples, most = task.splits["train"], task.expert.fit_frames
    device = next(model.parameters()).device
    count, found = 0, list[list[Tensor]]()
    for row in epoch_order(len(examples), seed, 0):
        layers = model.taken(task.expert, TEACHER, task.source.batch([examples[row]]).to(device))
        found.append([value[0, : layers.lengths[0]].float().cpu() for value in layers.values])
        count += layers.lengths[0]
        if count >= most:
            break
    return [torch.cat(parts)[:most] for parts in zip(*found, strict=True)]
