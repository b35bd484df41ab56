"""Config sections of training: dataclasses, then a recipe, then flags; nothing is loaded before all of it is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from ..core.options import ABOVE_0, AT_LEAST_0, DECAY, UP_TO_MILLIONS


@dataclass(frozen=True)
class OptimizerConfig:
    """The `optimizer:` section."""

    name: Literal["adam", "adamw"] = "adam"  # adamw: the decay is apart from the gradient
    bits: Literal[32, 8] = 32  # of its two moments of each weight; 8: a quarter of their memory, by torchao
    lr: Annotated[float, ABOVE_0] = 1e-3  # of heads
    weights_lr: Annotated[float, AT_LEAST_0] | None = None  # of layer weights; None: as the heads'
    upstream_lr: Annotated[float, AT_LEAST_0] = 1e-5  # of a finetuned upstream
    adapter_lr: Annotated[float, AT_LEAST_0] = 1e-3  # of an upstream's adapter
    layer_decay: Annotated[float, DECAY] = 1.0  # a block's rate is that of the upstream x layer_decay^(blocks above it)
    weight_decay: Annotated[float, AT_LEAST_0] = 0.0  # of all that is trained
    clip: Annotated[float, ABOVE_0] | None = 1.0  # largest norm of the gradient; None: whatever it is
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # of every learning rate, after the warm-up
    warmup_steps: Annotated[int, AT_LEAST_0] = 0  # from a rate of 0 to the full one
    schedule_steps: Annotated[int, ABOVE_0] | None = None  # at which the schedule has ended; None: with the last step


@dataclass(frozen=True)
class TrainingConfig:
    """The `training:` section."""

    steps: Annotated[int, ABOVE_0] = 10_000  # at most
    batch_size: Annotated[int, UP_TO_MILLIONS] = 32  # utterances in a step, over all pieces and processes
    bucket_steps: Annotated[int, UP_TO_MILLIONS] | None = None  # drawn as one set, sorted by length and cut; None: each by itself
    eval_every: Annotated[int, ABOVE_0] = 200  # steps
    patience: Annotated[int, ABOVE_0] | None = None  # evaluations without a better one; None: train all steps
    log_every: Annotated[int, ABOVE_0] = 20  # steps
    save_every: Annotated[int, ABOVE_0] = 200  # steps
    piece_seconds: Annotated[float, ABOVE_0] = 60.0  # padded audio in one pass
    piece_size: Annotated[int, ABOVE_0] | None = None  # utterances in one pass; None: as many as the seconds allow
    eval_piece_size: Annotated[int, ABOVE_0] | None = None  # the same where nothing is trained; None: as piece_size
    sort_pieces: bool = True  # by length, so that little is padded
    piece_overhead: Annotated[float, AT_LEAST_0] = 1.0  # seconds of audio that one more pass takes as long as
    precision: Literal["float32", "bf16", "fp16"] = "float32"  # of the passes; bf16 and fp16 under autocast
    gradient_checkpointing: bool = False  # -f: less memory for more time, blocks are run again in the backward pass
    shard: bool = False  # --shard: with -f in several processes, each keeps a part of every weight, gradient and optimizer state

    def without_training(self) -> TrainingConfig:
        """Return the same, with the pieces that an evaluation is cut into."""
        return replace(self, piece_size=self.eval_piece_size or self.piece_size)
