"""One search from recordings to a result: the frames, the layer that dev chooses, the scores, and the folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from ..core.errors import UserError
from ..core.files import cache_folder, write_json
from ..core.options import plain
from ..core.run_folder import RunFolder
from ..corpus.audio import check_files
from ..corpus.base import Corpus, Utterance
from ..inference.waveforms import WINDOW_SECONDS
from ..runs.config.schema import RunConfig
from ..runs.prepare import marks_of
from ..runs.results import environment, finite
from ..runs.runtime import Runtime, make_accelerator, print_progress
from ..upstream.base import Upstream, UpstreamConfig
from ..upstream.load import load_upstream
from .config import SearchConfig
from .features import Recordings, compute_frames
from .memory import Memory
from .output import write_detections, write_layers, write_stdlist
from .scoring import Trials
from .search import (
    DOCUMENTS,
    Detection,
    Found,
    Searcher,
    choose_layer,
    detections,
    search_split,
    split_intervals,
    threshold_of,
    whole_truth,
    with_dev,
)
from .tables import other_speakers, target_matrix

OVERLAP_SECONDS = 2.0  # of the windows of a long file: no query that is shorter is cut


@dataclass(frozen=True)
class Place:
    """With what a search computes, and where it keeps the features."""

    runtime: Runtime
    store: str | None = None  # folder; None: that of the cache
    store_limit: str | None = None

    @property
    def root(self) -> Path:
        """The folder of the store."""
        return Path(self.store).expanduser().absolute() if self.store else cache_folder() / "store"


def evaluate(
    corpus: Corpus, section: UpstreamConfig, layers: str, config: SearchConfig, place: Place, folder: Path
) -> dict[str, Any]:
    """Search the documents of a corpus for the queries of its splits, write the result to a folder, and return it."""
    began = time.monotonic()
    accelerator, upstream = _ready(section, place)
    chosen_from = layers_of(layers, upstream)
    if "dev" not in corpus.splits and len(chosen_from) > 1:
        raise UserError(
            f"Expected queries of a split dev to choose one of {len(chosen_from)} layers, found none. Name a layer: -l 9"
        )
    for split in corpus.splits.keys() & {"dev", "test"}:
        refuse_unscorable(corpus, split)
    run, splits = RunFolder(folder), [split for split in ("dev", "test") if split in corpus.splits]
    with run.locked():
        print_progress(place.runtime, f"writing to {folder}")
        recordings = _frames(upstream, section, chosen_from, corpus.splits, place, accelerator)
        memory = Memory(run.path / "scores", config)
        found: dict[int, dict[str, Found]] = {}
        for layer in chosen_from:
            found[layer] = {
                split: search_split(corpus, split, recordings, layer, config, memory, accelerator.device) for split in splits
            }
            scores = ", ".join(f"{split} MTWV {of.scores['mtwv']:.3f}" for split, of in found[layer].items())
            print_progress(place.runtime, f"layer {layer}: {scores}")
        layer, marks = choose_layer(found) if "dev" in splits else chosen_from[0], marks_of([corpus.demo], {"audio": upstream})
        result = {"task": "qbe", "upstream": section.name, "upstream_options": plain(section)}
        result |= {"layer": layer, "marks": list(marks)}
        result |= _result(corpus, splits, found[layer], recordings, config)
        result["layers"] = {number: {split: finite(one.scores) for split, one in of.items()} for number, of in found.items()}
        write_layers(run.plots, found, f"Query by example: {section.name} on {corpus.name}", layer, marks)
        for split in splits:
            _write_split(run.path, split, recordings, layer, found[layer], config, accelerator, marks)
        result["environment"] = environment(accelerator.device, time.monotonic() - began)
        write_json(run.result, result)
    return result


def refuse_unscorable(corpus: Corpus, split: str) -> None:
    """Refuse queries none of which has a document to find and another to pass over, before anything is computed."""
    queries, documents = corpus.splits[split], corpus.splits[DOCUMENTS]
    targets = target_matrix([row.id for row in queries], [row.id for row in documents], corpus.split_tables[split]["targets"])
    counted = other_speakers(queries, documents)
    if not len(Trials(targets.astype(float), targets, counted).seen().scores):
        raise UserError(
            f"Expected {split} queries that some documents hold and others do not, found none among {len(queries)}. "
            "Compare the terms of both tables."
        )


def _ready(section: UpstreamConfig, place: Place) -> tuple[Accelerator, Upstream]:
    return make_accelerator(RunConfig(), place.runtime), load_upstream(section, "audio")


def _frames(
    upstream: Upstream,
    section: UpstreamConfig,
    layers: Sequence[int],
    groups: Mapping[str, Sequence[Utterance]],
    place: Place,
    accelerator: Accelerator,
) -> dict[str, Recordings]:
    def show(line: str) -> None:
        print_progress(place.runtime, line)

    return compute_frames(upstream, section, layers, groups, place.root, place.store_limit, accelerator, show)


def _result(
    corpus: Corpus, splits: Sequence[str], found: Mapping[str, Found], recordings: Mapping[str, Recordings], config: SearchConfig
) -> dict[str, Any]:
    """Return the numbers of the chosen layer."""
    dev, documents = found[splits[0]], recordings[DOCUMENTS].ids
    notes = list(corpus.notes)
    if "dev" not in splits and config.threshold is None:
        notes.append("there are no dev queries: ATWV and calibration are those of the test's own best")
    for split in splits:
        queries, seen = len(recordings[split].ids), len(found[split].trials.seen().scores)
        if seen < queries:
            notes.append(f"{queries - seen} of the {queries} {split} queries are in no document, or in all: they are not scored")
        short = sum(length < config.min_frames for length in recordings[split].lengths)
        if short:
            notes.append(
                f"{short} of the {queries} {split} queries have fewer than {config.min_frames} frames: they find nothing"
            )
        left_out = int((~found[split].trials.counted).sum())
        if left_out:
            notes.append(f"{left_out} {split} trials are left out: the query's own speaker speaks in the document")
    whole = {split: whole_truth(corpus, split, found[split], dev, (recordings[split].ids, documents), config) for split in splits}
    return {
        "corpus": corpus.name,
        "protocol": corpus.protocol,
        "threshold": threshold_of(dev, config),
        "scores": {split: finite(with_dev(found[split], dev, config)) for split in splits},
        "intervals": {split: split_intervals(found[split], dev, config) for split in splits if split == "test"},
        "num_documents": len(documents),
        "num_queries": {split: len(recordings[split].ids) for split in splits},
        "whole_ground_truth": {split: finite(scores) for split, scores in whole.items() if scores is not None},
        "search": plain(config),
        "notes": notes,
    }


def _write_split(
    folder: Path,
    split: str,
    recordings: Mapping[str, Recordings],
    layer: int,
    found: Mapping[str, Found],
    config: SearchConfig,
    accelerator: Accelerator,
    marks: Sequence[str],
) -> None:
    """Write the detections of a split, and all of its trials for the official scorer."""
    queries, documents = recordings[split], recordings[DOCUMENTS]
    trials, threshold = found[split].trials, threshold_of(next(iter(found.values())), config)
    searcher = Searcher(queries.frames(layer), documents.frames(layer), config, accelerator.device)
    chosen = (trials.scores > threshold) & trials.counted
    listed = detections(searcher, trials.scores, chosen, documents)
    write_detections(folder / f"detections-{split}.csv", listed, queries.utterances, documents.utterances, marks, trials)
    # the scorer takes the folder of a list
    write_stdlist(folder / f"stdlist-{split}" / "benchmark.stdlist.xml", trials, queries.ids, documents.ids, threshold)


def find(
    queries: Sequence[Utterance],
    documents: Sequence[Utterance],
    section: UpstreamConfig,
    layer: str,
    config: SearchConfig,
    place: Place,
    top: int,
) -> tuple[list[Detection], list[Utterance], tuple[str, ...]]:
    """Return the best stretches for each query, the windows of the documents that they are in, and the marks of the result.

    A document that is longer than a window is searched in windows that overlap; a score is minus the mean distance.
    """
    accelerator, upstream = _ready(section, place)
    layers = layers_of(layer, upstream)
    if len(layers) > 1:
        raise UserError(
            f"Expected one layer to search with, found {len(layers)} of '{section.name}'. Name one (-l 9); a search with terms "
            "says which is best."
        )
    windows = [window for document in documents for window in windows_of(document)]
    groups = {"queries": queries, DOCUMENTS: windows}
    recordings = _frames(upstream, section, layers, groups, place, accelerator)
    frames = {name: group.frames(layers[0]) for name, group in recordings.items()}
    searcher = Searcher(frames["queries"], frames[DOCUMENTS], config, accelerator.device)
    scores = -searcher.costs()
    chosen = np.zeros(scores.shape, dtype=bool)
    for row, best in enumerate(np.argsort(-scores, axis=1, kind="stable")[:, :top]):
        chosen[row, best] = True
    found = detections(searcher, scores, chosen, recordings[DOCUMENTS])
    return found, windows, marks_of([], {"audio": upstream})


def windows_of(document: Utterance) -> list[Utterance]:
    """Return a long document in overlapping windows, each with the document's id."""
    seconds = check_files([document])[0].get(document.id)
    if seconds is None or seconds <= WINDOW_SECONDS:  # what is broken is reported with the others
        return [document]
    step = WINDOW_SECONDS - OVERLAP_SECONDS
    starts = np.arange(0.0, max(step, seconds - OVERLAP_SECONDS), step)
    return [
        replace(document, start=document.start + float(start), duration=min(WINDOW_SECONDS, seconds - float(start)))
        for start in starts
    ]


def layers_of(words: str, upstream: Upstream) -> list[int]:
    """Return `all`, `9` or `0,4,8` as layers of an upstream."""
    count = upstream.spec.num_layers
    if words == "all":
        return list(range(count))
    try:
        layers = [int(word) for word in words.split(",")]
    except ValueError:
        raise UserError(f"Expected layers after -l, as in `-l 9`, `-l 0,4,8` or `-l all`, found '{words}'.") from None
    outside = [layer for layer in layers if not -count <= layer < count]
    if outside:
        raise UserError(f"Expected layers between 0 and {count - 1} after -l, found {outside[0]}.")
    return list(dict.fromkeys(layer % count for layer in layers))
