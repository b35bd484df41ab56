"""The slot filling expert: linear -> bidirectional LSTMs -> linear over characters and marks of slots, trained by CTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...upstream.base import UpstreamSpec
from ..base import Task
from ..ctc import Ctc, CtcConfig, Writing, build_ctc
from . import question
from .slots import text_of, tokens_of


@dataclass(frozen=True)
class SfConfig(CtcConfig):
    """The `sf:` section."""

    normalize: Literal["upper", "none"] = "upper"  # upper: capital letters, digits and apostrophes; none: texts as they are


def build(options: SfConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Ctc:
    """Return the expert for a vocabulary and what the upstream promises."""
    return build_ctc(options, vocabulary, specs, Writing("sf", "tokens", question.tokens(vocabulary), tokens_of, text_of))


TASK = Task(name="sf", options=SfConfig, question=lambda _: question.QUESTION, build=build)
