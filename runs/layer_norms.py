"""How large the layers are that a weighted sum mixes: its weights mean little without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..corpus.batch import Example, make_batch, silent_batch
from ..training.batches import cut_pieces
from ..training.config import TrainingConfig
from ..training.model import Model
from ..training.step import TaskData

NORM_UTTERANCES = 64  # dev utterances over which the layers' feature norms are averaged


def layer_norms(model: Model, task: TaskData, training: TrainingConfig) -> dict[str, Any]:
    """Return weights and norms of the weighted sums of a task."""
    layers = {}
    stretches = [stretch for of_one in task.crops.values() for stretch in of_one]  # all that the store has of training
    for role in model.summed(task.name):
        examples = (task.splits.get("dev") or stretches or task.splits["train"])[:NORM_UTTERANCES]  # a final model has no dev
        norms = task.source.norms(role, examples)
        norms = norms or feature_norms(model, role, examples, replace(training, sort_pieces=True), task.name)
        weights = model.weighted_sum(task.name, role).weights.tolist()
        layers[f"{task.name}/{role}"] = {"weights": weights, "norms": norms, "upstream": model.upstream(role).name}
    return layers


@torch.no_grad()
def feature_norms(
    model: Model, role: str, examples: Sequence[Example], training: TrainingConfig, task: str | None = None
) -> list[float]:
    """Return the mean L2 norm of valid frames for each layer of the upstream, or of the task's own."""
    model.eval()
    device = next(model.parameters()).device
    totals, frames = torch.zeros(0), 0
    read = silent_batch if model.upstream(role).spec.modality == "text" else make_batch
    for piece in cut_pieces(examples, seconds=training.piece_seconds, size=training.piece_size):
        layers = model.layers(role, read(piece).to(device), task=task)
        norms = [
            [value[row, :length].float().norm(dim=-1).sum() for row, length in enumerate(layers.lengths)]
            for value in layers.values
        ]
        sums = torch.tensor([[float(norm) for norm in row] for row in norms]).sum(dim=1)  # (layer)
        totals = sums if not len(totals) else totals + sums
        frames += sum(layers.lengths)
    return (totals / max(frames, 1)).tolist()
