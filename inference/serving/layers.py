"""The runs of a probe of layers: one pass of the upstream for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.run_folder import RunFolder
from ...corpus.batch import Batch
from ...downstream.answer import Answer, Window
from ...upstream.base import Layers, Upstream
from ..predict import Piece, Prediction, Predictor, predict_items, utterance_text
from ..trained_run import TrainedRun, load_one
from ..waveforms import SAMPLE_RATE, Waveform, read_waveform

SUM = "sum"  # the run on the mixture of all layers


@dataclass(frozen=True)
class Probe:
    """The runs of `-l all`, loaded: one for each layer, and one on their weighted sum."""

    folder: Path
    runs: dict[str, TrainedRun]  # layer0, layer1, …, sum
    chosen: str  # by dev

    @property
    def first(self) -> TrainedRun:
        """Any of the runs, which differ in their layer alone."""
        return next(iter(self.runs.values()))

    def move_to(self, device: str) -> None:
        """Put the models on a device."""
        for run in self.runs.values():
            run.move_to(device)

    def predict(self, waveform: Waveform) -> dict[str, Prediction]:
        """Return the prediction of each layer; what cannot be read carries its error."""
        whole = Waveform(read_waveform(waveform), SAMPLE_RATE, waveform.name)
        computed, found = _Computed(self), {}
        for name, run in self.runs.items():
            (found[name],) = predict_items(_OfLayer(run, name, computed), [whole], utterance_text)
        return found


@dataclass
class _Computed:
    """The rows of a file's pieces by layer, as soon as one of the layers needs them."""

    probe: Probe
    rows: list[dict[str, Any]] = field(default_factory=list)

    @torch.no_grad()
    def of(self, name: str, pieces: Sequence[Piece]) -> list[Any]:
        """Return a layer's row of each piece."""
        if not self.rows:
            self.rows = [self.of_all(piece.batch().to(self.probe.first.device)) for piece in pieces]
        return [row[name] for row in self.rows]

    def of_all(self, batch: Batch) -> dict[str, Any]:
        """Return the row of one piece by layer."""
        layers: Layers = self.probe.first.model.upstream("audio")(batch)
        found = {}
        for name, run in self.probe.runs.items():
            alone = run.config.upstream is not None and run.config.upstream.layer is not None
            own = Layers([layers.values[run.model.layer_index("audio")]], layers.lengths) if alone else layers
            found[name] = run.rows(replace(batch, stored={"audio": own}))[0]
        return found


@dataclass(frozen=True)
class _OfLayer(Predictor):
    """One run of a probe, whose rows are computed with those of the others."""

    run: TrainedRun
    name: str
    computed: _Computed

    @property
    def answer(self) -> Answer:
        """The kind of answer."""
        return self.run.answer

    @property
    def roles(self) -> tuple[str, ...]:
        """The inputs that it needs of a file: audio."""
        return self.run.roles

    @property
    def uses_text(self) -> bool:
        """Whether a text goes with each file: no."""
        return False

    def rows(self, batch: Batch) -> list[Any]:
        """Return of each piece in a batch what its prediction is decided from."""
        return self.run.rows(batch)

    def joined(self, windows: Sequence[Window]) -> tuple[Any, Tensor | None]:
        """Return one prediction, and its scores if there are any, from the rows of a file's pieces."""
        return self.run.joined(windows)

    def join(self, pieces: Sequence[Piece]) -> tuple[Any, Tensor | None]:
        """Return one prediction of a file's pieces."""
        rows = self.computed.of(self.name, pieces)
        return self.joined([(piece.seconds, row) for piece, row in zip(pieces, rows, strict=True)])


def probe_of(folder: str | Path, weights: str | None = None, task: str | None = None) -> Probe | None:
    """Return the runs of a finished probe of layers, of the first fold and seed; None where a folder is something else."""
    place = RunFolder(Path(folder).expanduser())
    if place.config.is_file() or not place.result.is_file():
        return None
    summary = place.read().result()
    settings = {row["setting"]: row["name"] for row in reversed(summary.get("runs", ())) if is_layer(str(row.get("setting")))}
    if len(settings) < 2:
        return None
    loaded: dict[str, Upstream] = {}
    names = sorted(settings, key=lambda name: (name == SUM, len(name), name))
    runs = {name: load_one(place.path / settings[name], weights, None, task, loaded) for name in names}
    if not all(shares_a_pass(run) for run in runs.values()):
        return None
    chosen = str(summary.get("chosen", names[-1]))
    return Probe(place.path, runs, chosen if chosen in runs else names[-1])


def shares_a_pass(run: TrainedRun) -> bool:
    """Return whether a run takes the layers of a frozen upstream of audio as they are, so that one pass serves others too."""
    section = run.config.upstream
    return run.roles == ("audio",) and section is not None and not section.trainable and not run.expert.takes


def is_layer(setting: str) -> bool:
    """Return whether a setting of a plan is a layer's, or that of their sum."""
    return setting == SUM or (setting.startswith("layer") and setting[5:].isdigit())
