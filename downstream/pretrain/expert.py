"""The pretraining expert: HuBERT's masked prediction of the units that a teacher's frames were clustered into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import UserError
from ...core.options import ABOVE_0, AT_LEAST_0, SHARE_OR_1, Range
from ...corpus.batch import Batch
from ...upstream.base import TEACHER, UpstreamSpec, valid_positions
from ...upstream.spans import random_spans
from ..base import Expert, Output, Task
from ..teaching import TaughtConfig, hop_ratio, nearest_frames, require_layers, require_teacher
from . import question

UNITS = Range("from 2 to 100,000", lambda number: 2 <= number <= 100_000)
_BATCH, _NO_IMPROVEMENT = 10_000, 100  # of k-means, as HuBERT's script


@dataclass(frozen=True)
class PretrainConfig(TaughtConfig):
    """The `pretrain:` section."""

    units: Annotated[int, UNITS] = 100  # clusters of the teacher's frames: what is predicted
    teacher_layer: int = -1  # whose frames are clustered; -1: the last
    sample_frames: Annotated[int, ABOVE_0] = 200_000  # of the teacher, that k-means sees
    mask_share: Annotated[float, SHARE_OR_1] = 0.8  # of the frames, if spans did not overlap (about 0.57 then are)
    mask_length: Annotated[int, ABOVE_0] = 10  # frames of a span
    least_masks: Annotated[int, AT_LEAST_0] = 2  # spans of an utterance
    hidden_weight: Annotated[float, AT_LEAST_0] = 1.0  # of the loss over hidden frames
    visible_weight: Annotated[float, AT_LEAST_0] = 0.0  # of that over frames that were visible
    dim: Annotated[int, ABOVE_0] = 256  # in which a frame is compared with the units' embeddings
    temperature: Annotated[float, ABOVE_0] = 0.1  # that their cosines are divided by


class MaskedPrediction(Expert):
    """Guesses the unit of each frame from the upstream's last layer: the nearest embedding by cosine."""

    roles = ("audio", TEACHER)
    trains_upstream = True
    centroids: Tensor  # (unit, dim of the teacher)

    def __init__(self, vocabulary: Mapping[str, Any], specs: tuple[UpstreamSpec, UpstreamSpec], options: PretrainConfig) -> None:
        super().__init__()
        student, teacher = specs
        self.vocabulary, self.options, self.spec = dict(vocabulary), options, student
        self.takes = {"audio": (-1,), TEACHER: (options.teacher_layer,)}
        self.ratio, self.fit_frames = hop_ratio(student, teacher), options.sample_frames
        self.projector = nn.Linear(student.dim, options.dim)
        self.embeddings = nn.Parameter(torch.empty(vocabulary["units"], options.dim).uniform_())
        self.register_buffer("centroids", torch.zeros(vocabulary["units"], teacher.dim))

    def hide(self, batch: Batch) -> Tensor | None:
        """Return spans of frames, drawn by each utterance's seed: that of the step in training, elsewhere always the same."""
        options, rows = self.options, []
        for samples, draw in zip(batch.lengths, batch.draws, strict=True):
            generator, count = torch.Generator().manual_seed(draw), self.spec.num_frames(samples)
            # a clip that is hardly longer than a span keeps some of it to guess from
            length = min(options.mask_length, max(count // 2, 1))
            rows.append(random_spans(count, options.mask_share, length, options.least_masks, generator))
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def fit_to_teacher(self, layers: Sequence[Tensor], seed: int) -> None:
        """Cluster a sample of the teacher's frames into units."""
        from sklearn.cluster import MiniBatchKMeans

        [frames], count = layers, len(self.centroids)
        if len(frames) < count:
            raise UserError(
                f"Expected at least {count} frames of the teacher for pretrain.units={count}, found {len(frames)} in training. "
                f"Lower it, or give more audio."
            )
        kmeans = MiniBatchKMeans(
            count,
            batch_size=_BATCH,
            init="k-means++",
            n_init=5,
            max_no_improvement=_NO_IMPROVEMENT,
            reassignment_ratio=0.0,
            random_state=seed % 2**32,
        )
        self.centroids.copy_(torch.from_numpy(kmeans.fit(frames.float().numpy()).cluster_centers_))

    @torch.no_grad()
    def units_of(self, frames: Tensor) -> Tensor:
        """Return the nearest unit of each frame (…, dim)."""
        values = frames.float()
        distances = self.centroids.pow(2).sum(dim=1) - 2 * values @ self.centroids.T  # but for the frame's own square
        return distances.argmin(dim=-1)

    def forward(self, frames: Mapping[str, Any]) -> Output:
        """Return a logit of each unit, frame by frame; expected are the teacher's units, and which frames were hidden."""
        student, teacher = frames["audio"], frames[TEACHER]
        values = student.values[0]
        with torch.autocast(values.device.type, enabled=False):
            units = self.units_of(teacher.values[0])
            logits = F.normalize(self.projector(values.float()), dim=-1) @ F.normalize(self.embeddings, dim=-1).T
        index = nearest_frames(teacher, values.shape[1], self.ratio).to(units.device)
        return Output(logits / self.options.temperature, student.lengths, expected=(units.gather(1, index), student.masked))

    def loss(self, output: Output, batch: Batch) -> Tensor:  # noqa: ARG002
        """Return the mean over utterances of the mean over hidden frames of -log p(unit), and of the visible ones weighted."""
        nats, hidden, visible = self._frames(output)
        weights = ((self.options.hidden_weight, hidden), (self.options.visible_weight, visible))
        return sum(
            (weight * _mean(nats, which).mean() for weight, which in weights if weight), torch.zeros((), device=nats.device)
        )

    def decode(self, output: Output) -> Tensor:
        """Return sums over the frames of each utterance, as `question.SUMS` names them."""
        nats, hidden, visible = self._frames(output)
        right = output.values.argmax(dim=-1) == output.expected[0]
        sums = (hidden, hidden & right, torch.where(hidden, nats, 0.0), visible, visible & right)
        return torch.stack([values.float().sum(dim=1) for values in sums], dim=1).detach().cpu()

    def _frames(self, output: Output) -> tuple[Tensor, Tensor, Tensor]:
        """Return -log p(unit) of each frame (batch, frame), which were hidden, and which visible."""
        units, masked = output.expected
        with torch.autocast(output.values.device.type, enabled=False):
            nats = F.cross_entropy(output.values.float().transpose(1, 2), units, reduction="none")
        valid = valid_positions(output.lengths, nats.shape[1], nats.device)
        masked = masked.to(nats.device)
        return nats, valid & masked, valid & ~masked


def _mean(values: Tensor, which: Tensor) -> Tensor:
    """Return the mean of each row over some of its places; 0 where it has none."""
    return torch.where(which, values, 0.0).sum(dim=1) / which.sum(dim=1).clamp(min=1)


def build(options: PretrainConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> MaskedPrediction:
    """Return the expert for what upstream and teacher promise."""
    student, teacher = require_teacher("pretrain", specs)
    require_layers("pretrain.teacher_layer", [options.teacher_layer], teacher)
    if not student.maskable:
        raise UserError(
            "Expected an upstream with a mask embedding for pretrain (new/hubert, say), found one without. Name another."
        )
    if math.isclose(options.mask_share, 0.0) and options.least_masks == 0 and not options.visible_weight:
        raise UserError(
            "Expected something to guess for pretrain, found no masks and no weight of visible frames. Raise pretrain.mask_share."
        )
    return MaskedPrediction(vocabulary, (student, teacher), options)


TASK = Task(name="pretrain", options=PretrainConfig, question=question.question_of, build=build)
