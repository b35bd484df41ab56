"""The ASR expert: linear -> bidirectional LSTMs -> linear over characters, trained by CTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...upstream.base import UpstreamSpec
from ..base import Output, Task
from ..ctc import Ctc, CtcConfig, Writing, build_ctc
from ..spelling import joined
from . import question
from .answer import Transcript
from .beam import BeamConfig


@dataclass(frozen=True)
class AsrConfig(CtcConfig):
    """The `asr:` section."""

    normalize: Literal["upper", "none"] = "upper"  # upper: capital letters, digits and apostrophes; none: texts as they are
    loss_over: Literal["characters", "utterance"] = "characters"  # an utterance's loss is a mean over these
    beam: BeamConfig | None = None  # null: the best character of each frame; else a beam search beside it, of the finished model


class Transcriber(Ctc):
    """Hands on what a beam search takes, beside the text that the best character of each frame spells."""

    def decode(self, output: Output) -> tuple[Transcript, ...]:
        """Return transcripts that are still to be searched."""
        logs = output.values.detach().float().log_softmax(dim=2).cpu().numpy()
        seconds = self.spec.frame_seconds * self.options.downsample
        return tuple(
            Transcript(text, logs=row[:length], seconds=length * seconds)
            for text, row, length in zip(self.read(output), logs, output.lengths, strict=True)
        )


def build(options: AsrConfig, vocabulary: Mapping[str, Any], specs: Mapping[str, UpstreamSpec]) -> Ctc:
    """Return the expert for a vocabulary and what the upstream promises."""
    writing = Writing("asr", "characters", tuple(vocabulary["characters"]), tuple, joined)
    return build_ctc(options, vocabulary, specs, writing, Ctc if options.beam is None else Transcriber)


TASK = Task(name="asr", options=AsrConfig, question=question.question_of, build=build, afterwards=("beam",))
