"""What an extraction is: the options that a run has too, under the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...core.errors import UserError
from ...upstream.base import Upstream, UpstreamConfig
from ...upstream.statistics import STATISTICS
from ...upstream.store.space import Numbers, Space, space_of


@dataclass(frozen=True)
class Passes:
    """Part of the `training:` section of a run that decides its features."""

    precision: Literal["float32", "bf16", "fp16"] = "float32"  # of the passes; bf16 and fp16 under autocast


@dataclass(frozen=True)
class Kept:
    """Part of the `store:` section of a run that decides its features."""

    precision: Numbers = "float16"  # of frames; int8 is half as large


@dataclass(frozen=True)
class Table:
    """Part of the `corpus:` section of a run: how a table is read."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of the reader `manifest`: columns, audio_root


@dataclass(frozen=True)
class ExtractConfig:
    """Which features are computed, and of which stretches."""

    upstream: UpstreamConfig = field(default_factory=UpstreamConfig)
    training: Passes = Passes()
    store: Kept = Kept()
    corpus: Table = Table()


@dataclass(frozen=True)
class Rows:
    """What is kept of each utterance."""

    frames: bool = False
    statistics: str = "mean"  # over time, where no frames are kept
    stretch: float | None = None  # seconds of which recordings are cut

    def __post_init__(self) -> None:
        if self.statistics not in STATISTICS:
            raise UserError(f"Expected --statistics {', '.join(STATISTICS)}, found '{self.statistics}'.")
        if self.frames and self.statistics != "mean":
            raise UserError("Expected --frames or --statistics, found both. Frames are kept whole: leave one out.")
        if self.stretch is not None and not 1.0 <= self.stretch <= 4 * 3600:
            raise UserError(f"Expected --stretch from 1 to 14400 seconds, found {self.stretch:g}. For instance 30.")


def space_for(upstream: Upstream, config: ExtractConfig, rows: Rows) -> Space:
    """Return the space that a run with these options has its features in."""
    if config.upstream.trainable or config.upstream.adapter != "none":
        raise UserError("Expected a frozen upstream, found one that is trained. Name the run folder (-u RUN) of a trained one.")
    if config.upstream.padding != "exact" or not getattr(upstream, "exact", True):
        raise UserError(
            "Expected upstream.padding=exact, found s3prl: an utterance's features depend on its batch mates, and are not stored."
        )
    layer = config.upstream.layer
    if layer is not None and not 0 <= layer < upstream.spec.num_layers:
        raise UserError(f"Expected -l from 0 to {upstream.spec.num_layers - 1}, found {layer}. Leave it out for all layers.")
    if config.store.precision != "float16" and not rows.frames:
        raise UserError(
            "Expected --frames beside store.precision=int8: means are kept in float32. Leave it out, or add --frames."
        )
    return space_of(
        upstream,
        config.upstream,
        layers=range(upstream.spec.num_layers) if layer is None else (layer,),
        statistics=None if rows.frames else rows.statistics,
        precision=config.training.precision,
        numbers=config.store.precision,
    )
