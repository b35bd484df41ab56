"""What heads take from a sample of their teacher's frames before the first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..training.batches import derive_seed, epoch_order
from ..training.model import Model
from ..training.step import TaskData
from ..upstream.base import TEACHER
from .prepare import RunSetup


def learn_from_teachers(setup: RunSetup, show: Callable[[str], None]) -> None:
    """Give each head that asks for it frames of its teacher: of training utterances in an order that the seed draws."""
    for name, task in setup.tasks.items():
        if task.expert.learns_from:
            layers = sample_frames(setup.model, task, derive_seed(setup.config.seed, name, "learn"))
            show(f"teacher   {len(layers[0]):,} frames of {setup.model.upstream(TEACHER).name} seen before the first step")
            task.expert.learn(layers, derive_seed(setup.config.seed, name, "fit"))


@torch.no_grad()
def sample_frames(model: Model, task: TaskData, seed: int) -> list[Tensor]:
    """Return frames of the teacher, each layer (frame, dim): of whole utterances, one after the other, until they are enough."""
    model.eval()
    examples, most = task.splits["train"], task.expert.learns_from
    device = next(model.parameters()).device
    count, found = 0, list[list[Tensor]]()
    for row in epoch_order(len(examples), seed, 0):
        layers = model.taken(task.expert, TEACHER, task.source.batch([examples[row]]).to(device))
        found.append([value[0, : layers.lengths[0]].float().cpu() for value in layers.values])
        count += layers.lengths[0]
        if count >= most:
            break
    return [torch.cat(parts)[:most] for parts in zip(*found, strict=True)]
