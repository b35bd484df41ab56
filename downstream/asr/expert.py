"""The ASR expert: linear -> bidirectional LSTMs -> linear over characters, trained by CTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...upstream.base import UpstreamSpec
from ..base import Task
from ..ctc import Ctc, CtcConfig, Writing, build_ctc
from ..spelling import joined
from . import question


@dataclass(frozen=True)
class AsrConfig(CtcConfig):
    """The `asr:` section."""

    normalize: Literal["upper", "none"] = "upper"  # upper: capital letters, digits and apostrophes; none: texts as they are
    loss_over: Literal["characters", "utterance"] = "characters"  # an utterance's loss is a mean over these


def build(options: AsrConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Ctc:
    """Return the expert for a vocabulary and what the upstream promises."""
    return build_ctc(options, vocabulary, specs, Writing("asr", "characters", tuple(vocabulary["characters"]), tuple, joined))


TASK = Task(name="asr", options=AsrConfig, question=lambda _: question.QUESTION, build=build)
