"""A run's config from mappings; every mistake is reported at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from ...core.errors import UserError, nearest
from ...core.options import bind, convert, merge, options_of_sections, plain
from ...core.run_folder import RunFolder
from ...corpus.base import CORPORA, Reader
from ...corpus.load import default_corpus, get_reader
from ...corpus.locate import recognise
from ...downstream.base import Task
from ...downstream.load import built_in_tasks, load_task
from ...plugins.code import known_as
from ...plugins.provenance import refuse_other_code
from ...plugins.registry import FLAGS, SECTIONS, Kind
from .recipes import demo_recipe, task_default
from .schema import MODES, TASK_KEYS, CorpusConfig, MtlConfig, RunConfig, roles_of


def resolve(layers: Sequence[Mapping[str, Any]], *, heard: bool = True) -> RunConfig:
    """Return the run's config from mappings in rising precedence; every mistake is reported at once.

    Where nothing of the corpus will be heard, one whose reader is not here is taken as it is told.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    name = values.get("task") or ""
    if not name:
        raise UserError("Expected a task, found none. Add `-d emotion` (or `task: emotion` to the recipe).")
    errors: list[str] = []
    values = named(values)
    task = load_task(values["task"])
    if "expert" in values:
        errors.append(f"Unknown option 'expert'. The task's own section is called '{task.name}'.")
        values.pop("expert")
    values["reference"] = values.get("reference") or []
    config = bind(RunConfig, values, "", errors, spelled={"expert": task.name})
    section = {} if config.expert is None else config.expert
    config = dataclasses.replace(
        config, expert=bind(task.options, section, task.name, errors, elsewhere=options_of_sections(RunConfig))
    )
    if heard or config.corpus.name in CORPORA.loaded():
        config = _complete(config, task, errors)
    if errors:
        raise UserError("\n".join(errors))
    return config


def named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in which paths to one's own code, all of them typed too, gave way to the names behind them."""
    told = dict(values, task=known_as(str(values["task"]), "task"))
    kinds: dict[str, tuple[Kind, str]] = {key: ("upstream", FLAGS[role]) for role, key in SECTIONS.items()}
    for key, (kind, flag) in {**kinds, "corpus": ("corpus", FLAGS["corpus"])}.items():
        section = told.get(key)
        if isinstance(section, Mapping) and isinstance(section.get("name"), str):
            told[key] = {**section, "name": known_as(section["name"], kind, flag)}
    return told


def _complete(config: RunConfig, task: Task, errors: list[str]) -> RunConfig:
    """Fill in what depends on other fields: the corpus, its protocol, the metric that selects."""
    corpus = config.corpus
    is_manifest = corpus.data is not None and not corpus.name and Path(corpus.data).suffix in {".csv", ".tsv", ".jsonl"}
    try:
        question = task.question(config.expert)
        reader = get_reader(corpus.name or ("manifest" if is_manifest else default_corpus(question.name)))
    except UserError as problem:
        errors.append(str(problem))
        return config
    # of a question of the user's own no reader knows whether it serves it: the labels that it asks for decide
    if question.name not in reader.tasks and question.name in built_in_tasks():
        errors.append(f"Corpus '{reader.name}' does not serve task '{question.name}' (it serves: {', '.join(reader.tasks)}).")
    if not question.label and "label_required" in reader.options:
        corpus = dataclasses.replace(corpus, options={"label_required": False, **corpus.options})
    errors += [*idle_options(config), *final_mistakes(config), *schedule_mistakes(config)]
    if config.split:  # one run on all of it: folds are no more
        config = dataclasses.replace(config, folds=[], steps_from=_absolute(config.steps_from))
    if reader.has_layout and not corpus.name and corpus.data:
        errors += other_layouts(reader, Path(corpus.data).expanduser(), question.name)
    mode = config.store.mode
    if mode not in MODES and os.sep not in mode and not Path(mode).is_dir():
        folder = f"For a folder of that name write ./{mode}."
        errors.append(f"Expected --store {', '.join(MODES)} or a folder, found '{mode}'.{nearest(mode, MODES)} {folder}")
    select_by = config.select_by or reader.select_by.get(question.name, question.primary_metric)
    if select_by not in question.metrics:
        errors.append(f"Expected 'select_by' to be one of {', '.join(question.metrics)}, found {select_by!r}.")
    return dataclasses.replace(config, corpus=complete_corpus(corpus, reader, errors), select_by=select_by)


def other_layouts(usual: Reader, folder: Path, question: str) -> list[str]:
    """Return what is wrong with a folder without --corpus: it has the layout of another corpus than the task's usual one."""
    found = recognise(folder) if folder.is_dir() else []
    if not found or usual.name in found:
        return []
    serving = [name for name in found if question in get_reader(name).tasks]
    advice = f"Add --corpus {' or --corpus '.join(serving)}." if serving else f"It does not serve task '{question}'."
    return [
        f"Expected the folder of {usual.name}, the usual corpus of '{question}', at {folder}, found the layout of "
        f"{' and '.join(found)}. {advice}"
    ]


def idle_options(config: RunConfig) -> list[str]:
    """Return what is said of the options of an upstream that a run does not have: none may be passed over in silence."""
    sections, there = {"upstream": config.upstream, "text_upstream": config.text_upstream}, roles_of(config)
    if not there:  # told where it is asked for
        return []
    idle = []
    for name, section in sections.items():
        told = [field.name for field in dataclasses.fields(section) if getattr(section, field.name) != field.default]
        if not section.name and told:
            other = next(key for key in sections if key != name)
            flag = {"upstream": "-u", "text_upstream": "--text-upstream"}[name]
            idle.append(
                f"Expected {flag} beside '{name}.{told[0]}' (-k, -l and -s are of -u), found a run without. "
                f"Name that upstream, or write -o {other}.{told[0]}=…"
            )
    return idle


def complete_corpus(corpus: CorpusConfig, reader: Reader, errors: list[str]) -> CorpusConfig:
    """Return a corpus' section with its protocol and its reader's options checked against what the reader knows."""
    protocol = corpus.protocol or reader.default_protocol
    if protocol not in reader.protocols:
        close, known = nearest(protocol, reader.protocols), ", ".join(reader.protocols)
        errors.append(f"Expected 'corpus.protocol' of {reader.name} to be one of {known}, found '{protocol}'.{close}")
    elif not 1 <= corpus.fold <= reader.protocols[protocol]:
        folds = reader.protocols[protocol]
        errors.append(f"Expected 'corpus.fold' between 1 and {folds} (protocol {protocol}), found {corpus.fold}.")
    if corpus.demo and reader.make_demo is None:
        with_demo = "Leave out --demo, or choose a corpus that has one: `headwater list corpora`."
        errors.append(f"Corpus '{reader.name}' has no demo. {with_demo}")
    options, hints = {}, get_type_hints(reader.read)
    for key, value in corpus.options.items():
        place = f"corpus.options.{key}"
        if key not in reader.options:
            known = ", ".join(reader.options) or "none"
            errors.append(f"Unknown option '{place}'.{nearest(key, reader.options)} {reader.name} has: {known}.")
            continue
        try:
            options[key] = convert(hints[key], value, place, errors)
        except ValueError as problem:
            errors.append(str(problem))
    data = _absolute(corpus.data)
    told = corpus.transcripts
    if told and os.path.exists(os.path.expanduser(told)):  # a table; a model's name otherwise
        told = os.path.abspath(os.path.expanduser(told))
    return dataclasses.replace(corpus, name=reader.name, data=data, protocol=protocol, options=options, transcripts=told)


def final_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the options of a final model: how long it is trained has to be tried before, on held-out data."""
    if config.split and not config.steps_from:
        return [
            "Expected 'steps_from' beside split=all, found none: with nothing held out, no step can be chosen. Add "
            "-o split=all steps_from=RUN, a run or plan with the same options that chose its step on dev."
        ]
    if config.steps_from and not config.split:
        return ["Expected split=all beside 'steps_from', found a run with a dev split, which chooses its own. Leave it out."]
    return []


def schedule_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the end of a schedule: behind it there is no rate."""
    end, steps = config.optimizer.schedule_steps, config.training.steps
    if end is None or config.split or end >= steps:  # a final model's are those of the earlier run
        return []
    return [
        f"Expected optimizer.schedule_steps of at least training.steps ({steps}), found {end}. "
        "Raise it, or leave it out: the schedule then ends with the last step."
    ]


def _absolute(place: str | None) -> str | None:
    return place and os.path.abspath(os.path.expanduser(place))


def resolve_mtl(layers: Sequence[Mapping[str, Any]], *, heard: bool = True) -> MtlConfig:
    """Return the config from mappings in rising precedence; every mistake is reported at once.

    Where nothing of the corpora will be heard, those whose readers are not here are taken as they are told.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, layer)
    errors: list[str] = []
    sections = values.get("tasks") or {}
    if not isinstance(sections, Mapping) or not sections:
        raise UserError("Expected tasks, found none. Add --tasks emotion,ks (or a mapping `tasks:` to the recipe).")
    config = bind(MtlConfig, {**values, "tasks": {}}, "", errors)
    shared: dict[str, Any] = {key: values[key] for key in ("upstream", "seed") if key in values}
    shared |= {key: plain(getattr(config, key)) for key in ("optimizer", "training")}
    runs = {}
    for name, section in sections.items():
        try:
            runs[name] = task_config(name, dict(section or {}), shared, heard=heard)
        except UserError as problem:
            errors += [f"{name}: {line}" for line in str(problem).splitlines()]
    unknown = [name for name in config.baselines if name not in sections]
    errors += [f"Expected a task of the run in 'baselines', found '{name}'." for name in unknown]
    if config.select == "gain" and {*sections} - {*config.baselines}:
        missing = ", ".join(name for name in sections if name not in config.baselines)
        errors.append(f"Expected baselines of all tasks for select=gain, found none of {missing}. Run --scenario single first.")
    if errors:
        raise UserError("\n".join(errors))
    return replace(config, tasks=runs)


def task_config(name: str, section: dict[str, Any], shared: Mapping[str, Any], *, heard: bool = True) -> RunConfig:
    """Return one task as a run of its own would have it, on the run's upstream, optimizer and steps."""
    task = known_as(str(section.pop("task", name)), "task", "--tasks")
    size = section.pop("batch_size", None)
    demo = demo_recipe(task) if (section.get("corpus") or {}).get("demo") else {}
    known = {*TASK_KEYS, task}
    strange = sorted({*section} - known)
    if strange:
        raise UserError(f"Unknown option 'tasks.{name}.{strange[0]}'. A task has: batch_size, task, {', '.join(sorted(known))}.")
    below = {key: value for key, value in merge(task_default(task), demo).items() if key in known}
    batch = {} if size is None else {"training": {"batch_size": size}}
    return resolve([below, shared, {"task": task, **section}, batch], heard=heard)


def config_of(folder: Path, task: str | None, *, only_task: bool = False) -> tuple[RunConfig, str, bool]:
    """Return a run's config, what its task is called there, and whether its weighted sum is that of several tasks.

    `only_task`: nothing will be computed, so that of own code none but the task's is needed, after --use.
    """
    mapping = RunFolder(folder).read().config()
    if only_task:
        refuse_other_code(folder, mapping, flags={}, keys={"task"})
    else:
        refuse_other_code(folder, mapping)
    if "tasks" not in mapping:
        config = resolve([mapping], heard=False)
        if task not in (None, config.task):
            raise UserError(f"Expected task '{config.task}' of '{folder}', found '{task}'. Leave --task out.")
        return config, config.task, False
    joint = resolve_mtl([mapping], heard=False)
    if task is None or task not in joint.runs:
        found = f"found '{task}'" if task else "found none"
        raise UserError(f"Expected one task of the run '{folder}', {found}. Add --task {' or '.join(joint.runs)}.")
    return joint.runs[task], str(task), joint.shared_weights
