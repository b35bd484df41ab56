"""The phone recognition expert: two linear layers on each frame, trained by CTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ...core.options import ABOVE_0, AT_LEAST_0, PATHS
from ...upstream.base import UpstreamSpec
from ..base import Task
from ..ctc import Ctc, CtcConfig, Writing, build_ctc
from . import question


@dataclass(frozen=True)
class PrConfig(CtcConfig):
    """The `pr:` section."""

    lexicon: str | list[str] | None = field(default=None, metadata=PATHS)  # files; null: those that lie in the corpus
    phones: Literal["found", "arpabet"] = "found"  # found: those of the training split; arpabet: SUPERB's 71
    stress: bool = True  # false: AH0, AH1 and AH2 are one phone
    projector_dim: Annotated[int, ABOVE_0] = 256  # of the first linear layer
    layers: Annotated[int, AT_LEAST_0] = 0  # LSTMs


def build(options: PrConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Ctc:
    """Return the expert for a vocabulary and what the upstream promises."""
    return build_ctc(options, vocabulary, specs, Writing("pr", "phones", tuple(vocabulary["phones"]), str.split, " ".join))


TASK = Task(name="pr", options=PrConfig, question=lambda _: question.QUESTION, build=build)
