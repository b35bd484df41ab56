"""A sample of the teacher's frames, to which heads are fitted before the first step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..training.batches import derive_seed, epoch_order
from ..training.model import Model
from ..training.step import TaskData
from ..upstream.base import TEACHER
from .prepare import RunSetup


def fit_to_teachers(setup: RunSetup, show: Callable[[str], None]) -> None:
    """Give each head that requests it frames of its teacher: of training utterances in an order that the seed draws."""
    for name, task in setup.tasks.items():
        if task.expert.fit_frames:
            layers = sample_frames(setup.model, task, derive_seed(setup.config.seed, name, "learn"))
            show(f"teacher   {len(layers[0]):,} frames of {setup.model.upstream(TEACHER).name} sampled before the first step")
            task.expert.fit_to_teacher(layers, derive_seed(setup.config.seed, name, "fit"))


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
