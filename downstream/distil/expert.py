"""The distillation expert: a head for each layer of the teacher, all on the upstream's last one (DistilHuBERT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.options import ABOVE_0, AT_LEAST_0
from ...corpus.batch import Batch
from ...upstream.base import TEACHER, UpstreamSpec, valid_positions
from ..base import Expert, Output, Task
from ..teaching import TaughtConfig, at_frames, hop_ratio, require_layers, require_teacher
from . import question


@dataclass(frozen=True)
class DistilConfig(TaughtConfig):
    """The `distil:` section."""

    layers: list[int] = field(default_factory=list)  # of the teacher, that are imitated; []: all but the first, block 1's input
    # what makes a layer of the teacher's out of the upstream's last: DistilHuBERT's two layers, one, or nothing
    heads: Literal["gelu", "linear", "none"] = "gelu"
    l1_weight: Annotated[float, AT_LEAST_0] = 1.0  # of the mean absolute difference in the loss
    cosine_weight: Annotated[float, AT_LEAST_0] = 1.0  # of -log sigmoid(cosine)
    standardize: bool = True  # each dimension of the teacher's layers, by mean and deviation over a sample of frames
    sample_frames: Annotated[int, ABOVE_0] = 100_000  # of the teacher, for these


class Distillation(Expert):
    """Makes each of the teacher's layers out of the upstream's last one; the heads are dropped afterwards."""

    roles = ("audio", TEACHER)
    trains_upstream = True
    mean: Tensor  # (layer, dim)
    deviation: Tensor  # (layer, dim)

    def __init__(self, specs: tuple[UpstreamSpec, UpstreamSpec], layers: Sequence[int], options: DistilConfig) -> None:
        super().__init__()
        student, teacher = specs
        self.vocabulary, self.options = {}, options
        self.takes = {"audio": (-1,), TEACHER: tuple(layers)}
        self.ratio, self.fit_frames = hop_ratio(student, teacher), options.sample_frames if options.standardize else 0
        self.projector = nn.Linear(student.dim, student.dim * len(layers)) if options.heads == "gelu" else None
        self.heads = nn.ModuleList(_head(options, student.dim, teacher.dim) for _ in layers)
        self.register_buffer("mean", torch.zeros(len(layers), teacher.dim))
        self.register_buffer("deviation", torch.ones(len(layers), teacher.dim))

    def fit_to_teacher(self, layers: Sequence[Tensor], seed: int) -> None:  # noqa: ARG002
        """Take mean and deviation of each dimension from a sample of the teacher's frames."""
        for place, frames in enumerate(layers):
            values = frames.double()
            self.mean[place] = values.mean(dim=0)
            self.deviation[place] = values.std(dim=0, correction=0).clamp(min=1e-6)

    def forward(self, frames: Mapping[str, Any]) -> Output:
        """Return what was made of each frame (batch, frame, layer, dim); expected is what the teacher made."""
        student, teacher = frames["audio"], frames[TEACHER]
        values = student.values[0]
        count = len(self.heads)
        parts = [values] * count if self.projector is None else F.gelu(self.projector(values)).chunk(count, dim=-1)
        made = torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)], dim=2)
        with torch.no_grad():
            taught = [at_frames(layer.float(), teacher, values.shape[1], self.ratio) for layer in teacher.values]
            expected = torch.stack(
                [(layer - self.mean[place]) / self.deviation[place] for place, layer in enumerate(taught)], dim=2
            )
        return Output(made, student.lengths, expected=expected)

    def loss(self, output: Output, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the mean over utterances of the mean over frames and layers of L1 - log sigmoid(cosine), both weighted."""
        _, _, distance = self._frames(output)
        valid = valid_positions(output.lengths, distance.shape[1], distance.device)
        return (torch.where(valid, distance, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)).mean()

    def decode(self, output: Output) -> Tensor:
        """Return sums over the frames of each utterance, as `question.SUMS` names them."""
        valid = valid_positions(output.lengths, output.values.shape[1], output.values.device)
        sums = (valid, *(torch.where(valid, values, 0.0) for values in self._frames(output)))
        return torch.stack([values.float().sum(dim=1) for values in sums], dim=1).detach().cpu()

    def _frames(self, output: Output) -> tuple[Tensor, Tensor, Tensor]:
        """Return the mean L1 distance over the dimensions, the cosine, and the loss of each frame (batch, frame)."""
        with torch.autocast(output.values.device.type, enabled=False):
            made, taught = output.values.float(), output.expected
            l1 = (made - taught).abs().mean(dim=-1)
            cosine = F.cosine_similarity(made, taught, dim=-1)
            distance = self.options.l1_weight * l1 - self.options.cosine_weight * F.logsigmoid(cosine)
        return l1.mean(dim=2), cosine.mean(dim=2), distance.mean(dim=2)


def _head(options: DistilConfig, student: int, teacher: int) -> nn.Module:
    return nn.Identity() if options.heads == "none" else nn.Linear(student, teacher)


def build(options: DistilConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Distillation:  # noqa: ARG001
    """Return the expert for what upstream and teacher promise."""
    student, teacher = require_teacher("distil", specs)
    layers = options.layers or range(min(1, teacher.num_layers - 1), teacher.num_layers)
    require_layers("distil.layers", layers, teacher)
    if not (options.l1_weight or options.cosine_weight):
        raise UserError("Expected distil.l1_weight or distil.cosine_weight above 0, found neither. Raise one.")
    if options.heads == "none" and student.dim != teacher.dim:
        raise UserError(
            f"Expected an upstream as wide as its teacher ({teacher.dim}) for distil.heads=none, found {student.dim} dimensions. "
            "Use distil.heads=linear."
        )
    return Distillation((student, teacher), tuple(layers), options)


TASK = Task(name="distil", options=DistilConfig, question=question.question_of, build=build)
