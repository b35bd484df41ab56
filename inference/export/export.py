"""Export a finished run as a folder that contains all that it needs to predict: no network, no cache, no other folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import folder_aside, hash_file, plain_disk_errors, write_text
from ...core.options import without_folders
from ...core.run_folder import RunFolder
from ...core.sharing.checksums import write_checksums
from ...core.sharing.fetch import run_place
from ...core.tensors import save_tensors
from ...core.text import without_folders as plain_text
from ...downstream.load import load_task
from ...plugins.code import find
from ...plugins.provenance import identity_of_code, refuse_other_code
from ...plugins.registry import SECTIONS
from ...runs.config.resolve import config_of
from ...runs.config.schema import RunConfig, StoreConfig, roles_of, to_mapping
from ...runs.evaluation import task_result
from ...training.model import SHARED
from ...upstream.base import Role, UpstreamConfig
from ...upstream.load import find_upstream
from ...upstream.run_folder import folder_of, section_of
from ..load import load_run
from ..trained_run import TrainedRun
from . import onnx as onnx_export
from .adapter import adapters_of, without_adapters, write_adapter
from .code import copy_user_code, needed_package, try_out, typed_code, user_code_files
from .names import plain_name, plain_source
from .page.page import FOLDER as PAGE
from .page.page import NoPage, refuse_answer, write_page
from .page.runtime import runtime_files
from .readme import Exported, readme


def export_run(
    run: str | Path,
    target: str | Path,
    *,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    fold: int | None = None,
    onnx: bool = False,
    extra: Sequence[str | Path] = (),
    keep_adapter: bool = False,
    page: bool = False,
    ort: str | Path | None = None,
) -> Exported:
    """Write a run (of a plan: one fold; of several tasks: one) as a whole folder, and return a description of it.

    `extra` are files and folders that the user's own code reads. An adapter is merged into its model's weights; with
    `keep_adapter` it stands beside them, too, as peft writes it. `page` adds a folder that runs the graph in a browser; `ort` is
    where onnxruntime-web lies, which is fetched otherwise.
    """
    source, place = run_place(run), Path(os.path.realpath(Path(target).expanduser()))
    refuse_place(source, place)
    chosen, fold = one_of(source, fold)
    if page and not onnx:
        raise UserError("Expected --onnx beside --page, which shows the graph, found none. Add it.")
    if onnx:
        onnx_export.require()
    # what its own code is typed after: --use alone, here
    refuse_other_code(chosen, RunFolder.open(chosen).read().config(), flags={})
    left_out = elsewhere_options(chosen, task)
    trained = load_run(chosen, weights, text_weights, task, fold, left_out)
    assert isinstance(trained, TrainedRun), f"'{chosen}' is one run"
    adapters = adapters_of(trained) if keep_adapter else {}
    trained = without_adapters(trained)
    sections = {role: portable_section(trained, role, section) for role, section in roles_of(trained.config).items()}
    if onnx:
        trained = onnx_export.audio_only(trained)
    if page:
        refuse_answer(trained.answer)
    runtime = runtime_files(ort) if page else {}
    with folder_aside(place, fills_empty=True) as aside:
        names = write_whole(trained, aside, sections, extra)
        for name, files in adapters.items():
            write_adapter(files, aside / name)
        elsewhere = try_out(aside)
        graph_facts, no_graph = graph_of(trained, aside) if onnx else ({}, "")
        no_page = page_of(trained, aside, graph_facts, runtime) if page and graph_facts else ""
        needed, without = [*needed_package(names), *elsewhere], [f"{name}.{key}" for name in left_out for key in left_out[name]]
        exported = Exported(graph_facts, no_graph, needed, user_code_files(aside), without, no_page)
        write_text(aside / "README.md", readme(trained, RunFolder(aside).read().result(), exported))
        write_checksums(aside)
    return exported


def elsewhere_options(run: Path, task: str | None) -> dict[str, dict[str, Any]]:
    """Return how a run's outputs are read as its task has it by itself, where the run takes files for it: an n-gram model."""
    config, _, _ = config_of(RunFolder.open(run).path, task)
    kind = load_task(config.only.task)
    own = {name: getattr(kind.options(), name) for name in kind.afterwards}
    changed = {name: value for name, value in own.items() if getattr(config.only.expert, name) != value}
    return {kind.name: changed} if changed else {}


def graph_of(run: TrainedRun, folder: Path) -> tuple[Mapping[str, Any], str]:
    """Return the description of a run's graph, or why it has none: the folder works without one too."""
    try:
        return onnx_export.write(run, folder), ""
    except onnx_export.NoGraph as problem:
        return {}, str(problem)


def page_of(run: TrainedRun, folder: Path, graph: Mapping[str, Any], runtime: Mapping[str, bytes]) -> str:
    """Write the page of a run's graph, or return why it has none: the folder works without one too."""
    try:
        write_page(run, folder / PAGE, folder / onnx_export.FILE, graph, runtime)
    except NoPage as problem:
        return str(problem)
    return ""


def refuse_place(run: Path, place: Path) -> None:
    """Refuse a place where something stands, or one inside the run."""
    if place.is_relative_to(os.path.realpath(run)):
        raise UserError(f"Expected a folder outside the run '{run}' to export to, found '{place}'. Choose another place.")
    with plain_disk_errors(place):
        taken = os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir()))
    if taken:
        found = "one that is not empty" if place.is_dir() else "a file"
        raise UserError(f"Expected a new folder to export to, found {found}: '{place}'. Choose another name, or remove it.")


def one_of(folder: Path, fold: int | None) -> tuple[Path, int | None]:
    """Return the one run to export, and the fold that it is to be checked against; a plan of several is refused."""
    rows = RunFolder(folder).runs()
    if rows is None:
        return folder, fold
    chosen = [row for row in rows if fold in (None, row["fold"])]
    folds = list(dict.fromkeys(row["fold"] for row in rows))
    if not chosen:
        raise UserError(f"Expected a fold of '{folder}' after --fold, found {fold}. There are: {', '.join(map(str, folds))}.")
    if len(chosen) > 1:
        names = f"Name one: {folder / chosen[0]['name']}" if len(folds) == 1 or fold else f"Add --fold {folds[0]}"
        raise UserError(
            f"Expected one run to export, found a plan of {len(chosen)} in '{folder}'. {names}, or train one on all data "
            "with -o split=all, and export that."
        )
    return folder / chosen[0]["name"], None


def portable_section(run: TrainedRun, role: Role, section: UpstreamConfig) -> UpstreamConfig:
    """Return an upstream's section as the exported config has it: by names that mean the same anywhere."""
    if run.model.upstream(role).architecture() is not None:  # which its folder holds, and its weights
        return replace(section, name=plain_name(section.name), path=None)
    inner = innermost(section, role)
    if inner.name.startswith("s3prl/") or not (find_upstream(inner).source == "built in" or find("upstream", inner.name)):
        raise UserError(
            f"Expected an upstream that a folder can hold, found '{inner.name}' in '{run.folder}', which only {made_by(inner)} "
            "can build. Train on a model of `headwater list upstreams`, or predict with the run itself."
        )
    trainable, layer, normed = section.trainable, section.layer, section.normalize_layers
    return replace(inner, path=None, trainable=trainable, layer=layer, normalize_layers=normed)


def made_by(section: UpstreamConfig) -> str:
    """Return who alone can build an upstream."""
    return "s3prl" if section.name.startswith("s3prl/") else find_upstream(section).source


def innermost(section: UpstreamConfig, role: str) -> UpstreamConfig:
    """Return the section of the model itself, where a run stands on another."""
    while RunFolder(folder_of(section)).config.is_file():
        section = section_of(folder_of(section), role)[1]
    return section


def write_whole(
    run: TrainedRun, folder: Path, sections: Mapping[Role, UpstreamConfig], extra: Sequence[str | Path]
) -> dict[str, str]:
    """Write all files of a run folder that predicting needs; return what is named there, by role."""
    config = exported_config(run.config, sections)
    stored, target = RunFolder(run.folder).read(), RunFolder(folder)
    name, identity = config.only.task, stored.identity("upstreams", "marks")
    tensors, architectures = dict(run.model.trained_state()), dict[str, Any]()
    for role in sections:
        upstream, architecture = run.model.upstream(role), run.model.upstream(role).architecture()
        if architecture is not None:
            model = {key: value for key, value in architecture["model"].items() if key != "_name_or_path"}
            architectures[role] = {**architecture, "model": model}
            tensors |= {f"upstreams.{role}.{key}": value for key, value in upstream.state_dict().items()}
    facts = {"identity": identity, "marks": list(run.marks)}
    target.write(config=to_mapping(config), vocabulary={name: run.expert.vocabulary}, architectures=architectures)
    save_tensors(target.best, {alone(key, name): value for key, value in tensors.items()}, facts)
    target.best.chmod(target.config.stat().st_mode)  # safetensors writes for its owner's eyes only
    names: dict[str, str] = {"task": name, **{role: section.name for role, section in sections.items()}}
    code = identity_of_code(names)
    copy_user_code(folder, typed_code(names), extra)
    kept = {key: value for key, value in identity.items() if key != "code"}
    layers = stored.layer_weights("layers")
    own = {key: value for key, value in layers["layers"].items() if key.split("/")[0] in (run.name, SHARED)}
    result = task_result(stored.result(), run.name)
    if "steps_from" in result:
        result = {**result, "steps_from": {**result["steps_from"], "run": Path(result["steps_from"]["run"]).name}}
    if "notes" in result:
        result = {**result, "notes": [plain_text(str(note)) for note in result["notes"]]}
    origin = {"upstream": " + ".join(section.name for section in sections.values())}
    source = " + ".join(plain_source(part) for part in str(result.get("source", "")).split(" + "))
    target.write(
        identity={**kept, **code, "exported": hash_file(target.best)},
        layer_weights={**layers, **origin, "layers": {key: {**row, **origin} for key, row in own.items()}},
        result={**result, **origin, "source": source},
    )
    return names


def exported_config(config: RunConfig, sections: Mapping[Role, UpstreamConfig]) -> RunConfig:
    """Return the config without what only the machine of the training knows."""
    task = config.only
    options = {key: value for key, value in task.corpus.options.items() if key != "audio_root"}
    texts = task.corpus.transcripts
    corpus = replace(task.corpus, data=None, options=options, transcripts=texts and Path(texts).name)
    named: dict[str, Any] = {SECTIONS[role]: section for role, section in sections.items()}
    expert = replace(task.expert, **without_folders(task.expert))
    task = replace(task, corpus=corpus, expert=expert, init_head=task.init_head and Path(task.init_head).name)
    return replace(config.with_only(task), **named, store=StoreConfig(), folds=[], stages={})


def alone(key: str, task: str) -> str:
    """Return a weight's name in a run of one task: a weighted sum that several tasks share is its own."""
    return key.replace(f"sums.{SHARED}.", f"sums.{task}.", 1) if key.startswith(f"sums.{SHARED}.") else key
