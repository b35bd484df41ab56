"""Export a run as an ONNX graph: a waveform in, scores out; kept only where it computes what the run does."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.files import plain_disk_errors, write_json
from ...core.installation import install_command
from ...corpus.batch import as_batch
from ...upstream.families.spectrogram import Spectrogram
from ...upstream.hub.hubert_family import HubertFamily
from ..trained_run import TrainedRun
from ..waveforms import SAMPLE_RATE, SHORTEST, WINDOW_SECONDS
from .graph import AsGraph, longest_of

NEEDED = ("onnx", "onnxruntime", "onnxscript")
FILE, DESCRIPTION = "model.onnx", "model.json"
LARGEST_DIFFERENCE = 1e-4
# seconds that the graph is compared at; the example that it is traced with has another length
LENGTHS = (0.5, 0.73, 1.0, 1.61, 2.9, 4.4, 7.3, 11.9, 16.0, 20.0)
EXAMPLE_SECONDS = 0.37  # short: the exporter unrolls an LSTM over the example before it puts it back


class NoGraph(UserError):
    """A run that has no graph, or none that computes what it does."""


@dataclass(frozen=True)
class Compared:
    """How far a graph's outputs are from the run's."""

    seconds: tuple[float, ...]
    differences: tuple[float, ...]  # the largest at each length

    @property
    def worst(self) -> float:
        """The largest of all; one that is no number counts as the largest there is."""
        return max(float("inf") if np.isnan(value) else value for value in self.differences)


def require() -> None:
    """Refuse to begin without the packages that write and run a graph."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Expected the packages {', '.join(NEEDED)} for --onnx, found no {missing[0]}. Run: {install_command('onnx')}"
        )


def audio_only(run: TrainedRun) -> TrainedRun:
    """Return a run without its text role, as a graph has none; refuse one that needs text."""
    run.answer.graph()  # refused where there is none
    upstream = run.model.upstream("audio") if "audio" in run.expert.roles else None
    if isinstance(upstream, (HubertFamily, Spectrogram)) and not upstream.exact:
        raise UserError(
            f"Expected exact padding for --onnx, found padding: s3prl in '{run.folder}', which rounds lengths as no graph does. "
            "Leave --onnx out, or train with the exact one."
        )
    if run.expert.roles == ("audio",):
        return run
    if "audio" in run.expert.roles and "text" in run.expert.optional_roles:
        return run.without_text()
    raise UserError(
        f"Expected a run on audio only for --onnx, found one that needs text in '{run.folder}': a graph has no tokenizer. "
        "Leave --onnx out, or train with a modality_dropout above 0."
    )


def write(run: TrainedRun, folder: Path) -> dict[str, Any]:
    """Write a run's graph and its description, and return that; a graph that computes something else is removed."""
    path = folder / FILE
    traced(run, path)
    compared = compare(run, path)
    if not compared.worst <= LARGEST_DIFFERENCE:
        at = compared.seconds[int(np.argmax(np.nan_to_num(compared.differences, nan=np.inf)))]
        for file in folder.glob(f"{FILE}*"):
            file.unlink()
        raise NoGraph(
            f"Expected an ONNX graph that computes what the run does (within {LARGEST_DIFFERENCE:g}), found a difference of "
            f"{compared.worst:.2g} at {at:g} s. Use the folder without one, and report this run."
        )
    facts = description(run, compared)
    write_json(folder / DESCRIPTION, facts)
    return facts


def traced(run: TrainedRun, path: Path) -> None:
    """Write the graph of a run, for waveforms of any length."""
    end = run.answer.graph()
    graph = AsGraph(run.model, run.config.only.task, end.finish).eval()
    example = torch.from_numpy(speech_like(EXAMPLE_SECONDS)).unsqueeze(0)
    length = torch.export.Dim("samples", min=SHORTEST, max=longest_of(run.model.upstream("audio")))
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                dynamic_shapes=({1: length},),
                input_names=["waveform"],
                output_names=[end.output],
                verbose=False,
                optimize=False,  # it takes `x + 1e-10` for `x`, which makes silence no number; onnxruntime optimises by itself
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as problem:
            cause = str(problem.__cause__ or problem).strip().splitlines()[0][:300]
            raise NoGraph(
                f"Expected a run that ONNX can hold, found one that it cannot: {cause}. Use the folder without a graph, and "
                "report this run."
            ) from problem
    assert program is not None, "dynamo=True returns the program"
    forget_lengths(program.model)
    forget_places(program.model)
    with plain_disk_errors(path):
        program.save(path)  # of more than 2 GB, the weights lie beside it


def forget_lengths(model: Any) -> None:
    """Take the shapes that are noted behind an LSTM away: the exporter has the example's length there, and runtimes trust it."""
    nodes = [*model.graph]
    first = next((place for place, node in enumerate(nodes) if node.op_type == "LSTM"), len(nodes))
    for node in nodes[first:]:
        for value in node.outputs:
            value.shape = None


def forget_places(model: Any) -> None:
    """Take away what the exporter notes of each step beside the graph: its place in the code of this machine among it."""
    graphs = [model.graph, *model.functions.values()]
    nodes = [node for graph in graphs for node in graph.all_nodes()]
    values = [value for node in nodes for value in node.outputs]
    values += [value for graph in graphs for value in graph.inputs]
    for thing in (model, *graphs, *nodes, *values, *model.graph.initializers.values()):
        thing.metadata_props.clear()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own messages off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def compare(run: TrainedRun, path: Path) -> Compared:
    """Return how far a graph's outputs are from the run's, for sounds of 0.5 to 20 seconds and a second of silence."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    differences = []
    sounds = [*map(speech_like, LENGTHS), np.zeros(SAMPLE_RATE, dtype=np.float32)]  # and silence, where a norm may divide by 0
    for waveform in sounds:
        (found,) = session.run(None, {"waveform": waveform[None]})
        expected = reference_output(run, waveform)
        differences.append(difference(found, expected, logits=not run.answer.score_names))
    return Compared(tuple(len(sound) / SAMPLE_RATE for sound in sounds), tuple(differences))


def difference(found: np.ndarray, expected: np.ndarray, *, logits: bool) -> float:
    """Return the largest difference of two outputs; of logits, which have no scale, as a share of the largest of them."""
    if found.shape != expected.shape:
        return float("inf")
    largest = max(1.0, float(np.abs(expected).max())) if logits else 1.0
    return float(np.abs(found - expected).max()) / largest


@torch.no_grad()
def reference_output(run: TrainedRun, waveform: np.ndarray) -> np.ndarray:
    """Return the output of the run itself: scores, or where it is a sequence, what the graph's end makes of it."""
    output = run.model.output_of(run.config.only.task, as_batch([waveform]).to(run.device), run.without)
    rows = run.expert.decode(output)
    return (rows if isinstance(rows, Tensor) else run.answer.graph().finish(output.values.float()).cpu()).numpy()


def speech_like(seconds: float) -> np.ndarray:
    """Return a sound with what speech has: a voice whose pitch moves, syllables, pauses, breath; the same at each call."""
    generator = np.random.default_rng(round(seconds * 1000))
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 140 + 30 * np.sin(2 * np.pi * 0.7 * time) + 8 * np.sin(2 * np.pi * 5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = 600 + 250 * np.sin(2 * np.pi * 2.1 * time)
    voice = sum(np.exp(-(((k * pitch - formants) / 400) ** 2)) * np.sin(k * phase) for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3.7 * time), 0, None) ** 0.5
    breath = 0.02 * generator.standard_normal(len(time))
    return (0.15 * voice * syllables + breath).astype(np.float32)


def description(run: TrainedRun, compared: Compared) -> dict[str, Any]:
    """Return what one must know to use a graph without headwater."""
    end, longest = run.answer.graph(), longest_of(run.model.upstream("audio"))
    return {
        "task": run.config.only.task,
        "marks": list(run.marks),
        **end.facts,
        "answer": end.reading,
        "sample_rate": SAMPLE_RATE,
        "input": {
            "name": "waveform",
            "type": "float32, mono, from -1 to 1, not normalised: what is to be done is in the graph",
            "shape": [1, "samples"],
            "fewest_samples": SHORTEST,
            "most_samples": longest,
        },
        "output": {"name": end.output, "shape": list(end.shape)},
        "window_seconds": WINDOW_SECONDS,
        "windows": f"a longer file is cut into the fewest equal windows of at most window_seconds; {end.windows}",
        "compared": {
            "sounds": "made up: a voice with syllables and breath, of each of seconds; the last is silence. A sound that is "
            "constant, or stands far off zero, may differ more: there rounding decides. "
            "Logits are compared as a share of the largest of them",
            "seconds": list(compared.seconds),
            "largest_differences": list(compared.differences),
            "worst_difference": compared.worst,
            "torch": torch.__version__,
            "onnxruntime": version("onnxruntime"),
        },
    }
