"""What the app shows of one run, or of the layers of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ....core.errors import UserError
from ....downstream.answer import Answer
from ...folds import Folds
from ...predict import Prediction, predict_item
from ...trained_run import TrainedRun
from ...waveforms import Waveform
from ..layers import Probe
from ..replies import facts_of, parts_of, timeline
from .drawing import heading, layers_as_cells, picture, turns, verdict, windows_as_cells


@dataclass(frozen=True)
class Subject:
    """A run or a probe, and its facts."""

    run: TrainedRun | Folds | Probe
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, run: TrainedRun | Folds | Probe) -> Subject:
        """Return what is shown of a run; of a probe, the facts that all of its runs share."""
        facts = facts_of(run.first if isinstance(run, Probe) else run)
        return cls(run, {**facts, "run": run.folder.resolve().name})

    @property
    def layers(self) -> list[str]:
        """The layers that a slider chooses among; none of a single run."""
        return [*self.run.runs] if isinstance(self.run, Probe) else []

    @property
    def chosen(self) -> int:
        """The place of the layer that dev chose."""
        return self.layers.index(self.run.chosen) if isinstance(self.run, Probe) else 0

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.run.first.answer if isinstance(self.run, Probe) else self.run.answer

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file."""
        return not isinstance(self.run, Probe) and self.run.uses_text

    def empty(self) -> str:
        """Return what is shown before there is a sound."""
        return card(self.facts, f'<p class="hw-small">predicts {self.answer.describe().replace("`", "")}</p>')

    def cards(self, waveform: Waveform, seconds: float, text: str) -> list[str]:
        """Return what is shown of a sound: of a probe one card for each layer."""
        try:
            if isinstance(self.run, Probe):
                return self.cards_of_layers(self.run, waveform, seconds)
            spoken = text if self.run.uses_text else None
            if self.run.uses_text and not text.strip():
                raise UserError("Expected what is said, for a run that reads, found nothing. Type it below the sound.")
            found = predict_item(self.run, waveform, spoken)
            over_time = picture(windows_as_cells(timeline(self.run, waveform, seconds, spoken)), self.answer, over="time")
            return [card(self.facts, verdict(found, self.answer) + turns(found) + over_time)]
        except UserError as problem:
            return [card(self.facts, verdict(Prediction("", error=str(problem)), self.answer))] * max(1, len(self.layers))

    def cards_of_layers(self, probe: Probe, waveform: Waveform, seconds: float) -> list[str]:
        """Return a card for each layer: its own answer, its scores over time, and those of all layers."""
        found = probe.predict(waveform)
        parts = [(start, probe.predict(part)) for start, part in parts_of(waveform, seconds)]
        over_layers = picture(layers_as_cells(found), self.answer, over="layers")
        shown = []
        for name, prediction in found.items():
            windows = [replace(by_layer[name], start=start) for start, by_layer in parts]
            over_time = picture(windows_as_cells(windows), self.answer, over="time")
            shown.append(card(self.facts, verdict(prediction, self.answer) + over_time + over_layers, name))
        return shown


def card(facts: Mapping[str, Any], content: str, layer: str = "") -> str:
    """Return the html of one run."""
    number = layer.removeprefix("layer")
    chosen = (
        f'<p class="hw-small">{f"layer {number}" if number != layer else "the weighted sum of all layers"}</p>' if layer else ""
    )
    return f'<div class="hw-card">{heading(dict(facts))}{chosen}{content}</div>'
