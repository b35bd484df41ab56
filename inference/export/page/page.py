"""Write a folder whose index.html predicts in the browser: no server, no connection, opened by a double click."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....core.errors import UserError
from ....core.files import plain_disk_errors, write_text
from ....downstream.answer import Answer
from ...sharing.lineage import licence_line
from ...trained_run import TrainedRun
from ..names import plain_name
from ..readme import LICENCE_NOTE, prediction_text
from . import runtime

FOLDER = "page"
MOST_MB = 500  # of a graph: tried with 480; a browser holds it three times while it loads
_CHUNK = 24 << 20  # bytes in a file: a string of a browser has an end
_TEXTS = {"characters": "", "phones": " "}  # unit of the tokens -> what stands between them
_ASSETS = ("index.html", "page.js", "page.css")


class NoPage(UserError):
    """A graph that no page can hold."""


def refuse_answer(answer: Answer) -> None:
    """Refuse what a page cannot show, before anything is written."""
    facts = answer.graph().facts
    if not {"classes", "slots", "dimensions", *_TEXTS} & {*facts}:
        raise UserError(
            f"Expected a task that predicts classes, slots, ratings, characters or phones for --page, found one that predicts "
            f"{answer.kind}. Leave --page out."
        )


def write_page(run: TrainedRun, folder: Path, graph: Path, described: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write the page of a graph, which `described` describes, with the files of onnxruntime-web."""
    size = graph.stat().st_size
    if size > MOST_MB * 1e6 or graph.with_name(f"{graph.name}.data").exists():
        raise NoPage(
            f"Expected a graph of at most {MOST_MB:g} MB for --page, found {size / 1e6:,.0f} MB. Use the folder without it."
        )
    with plain_disk_errors(folder):
        folder.mkdir()
        names = [
            *chunked(folder, "runtime", files[runtime.SCRIPT]),
            *chunked(folder, "wasm", gzip.compress(files[runtime.WASM], 9, mtime=0)),
            *chunked(folder, "model", graph.read_bytes()),
        ]
        for name in _ASSETS:
            (folder / name).write_bytes(Path(__file__).with_name(name).read_bytes())
        write_text(folder / "LICENSE-onnxruntime-web.txt", runtime.LICENCE)
        facts = json.dumps(page_facts(run, described, names), ensure_ascii=True)
        write_text(folder / "facts.js", f'"use strict";\nconst FACTS = {facts};\n')


def chunked(folder: Path, name: str, content: bytes) -> Iterator[str]:
    """Write bytes as scripts, which a page from the disk may load, and yield their names."""
    for number, begin in enumerate(range(0, len(content), _CHUNK), start=1):
        text = base64.b64encode(content[begin : begin + _CHUNK]).decode()
        file = f"{name}-{number}.js"
        write_text(folder / file, f'headwaterChunk("{name}", "{text}");\n')
        yield file


def page_facts(run: TrainedRun, graph: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Return all that the page's script has to know."""
    unit = next((unit for unit in _TEXTS if unit in graph), None)
    names = list(graph[unit]) if unit else [*run.answer.score_names]
    kind = "text" if unit else "ratings" if "dimensions" in graph else "classes"
    places = graph.get("places", {"": [0, len(names)]})
    if "slots" in graph:
        names = [value for values in graph["slots"].values() for value in values]
    return {
        "title": f"{graph['task']}: {plain_name(run.model.upstream('audio').name)}",
        "about": prediction_text(run).replace("`", ""),
        "marks": graph["marks"],
        "licence": f"{licence_line(run.folder, run.name)}. {LICENCE_NOTE} The page: onnxruntime-web {runtime.VERSION} (MIT).",
        "kind": kind,
        "names": names,
        "groups": [] if unit else [{"name": name, "begin": begin, "end": end} for name, (begin, end) in places.items()],
        "scale": graph.get("scale", [0, 1]),
        "threshold": graph.get("threshold"),
        "joined_by": _TEXTS.get(unit or "", ""),
        "has_silence": any(str(name).strip("_").lower() == "silence" for name in names),
        "graph": {key: graph[key] for key in ("input", "output", "sample_rate", "window_seconds")},
        "files": [*files],
    }
