"""A run's config from mappings; every mistake is reported at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from ...core.errors import UserError, nearest
from ...core.files import parse_size
from ...core.options import bind, convert, merge, options_of_sections, shortened
from ...core.run_folder import RunFolder
from ...corpus.base import CORPORA, Reader
from ...corpus.load import default_corpus, get_reader, list_corpora
from ...corpus.locate import recognise
from ...downstream.base import Task, takes_teacher
from ...downstream.load import built_in_tasks, load_task
from ...plugins.code import name_behind
from ...plugins.provenance import refuse_other_code
from ...plugins.registry import FLAGS, SECTIONS
from ...upstream import adapters
from ...upstream.base import TEACHER, UpstreamConfig
from .recipes import demo_recipe, task_default
from .schema import (
    MODES,
    ONE_ONLY,
    SEVERAL_ONLY,
    TASK_KEYS,
    CorpusConfig,
    RunConfig,
    TaskConfig,
    alone,
    batch_size_of,
    roles_of,
)
from .solver import with_solver

SELECTS = ("last", "gain")  # of several tasks


def resolve(layers: Sequence[Mapping[str, Any]], *, reads_corpus: bool = True) -> RunConfig:
    """Return the run's config from mappings in rising precedence; every mistake is reported at once.

    Where nothing of a corpus will be read, one whose reader is not here is taken as it stands.
    """
    values: dict[str, Any] = {}
    for layer in with_solver(layers):
        values = merge(values, layer)
    errors: list[str] = []
    bind_all = bind_several if "tasks" in values else bind_one
    config = bind_all(with_names(values), errors, reads_corpus=reads_corpus)
    errors += [*idle_options(config), *final_mistakes(config), *schedule_mistakes(config), *store_mistakes(config)]
    errors += adapter_mistakes(config)
    if config.split:  # one run on all of it: folds are no more
        config = replace(config, folds=[], steps_from=_absolute(config.steps_from))
    if errors:
        raise UserError("\n".join(errors))
    return config


ELSEWHERE = options_of_sections(RunConfig, TaskConfig)  # where an option is that was typed into another section


def bind_one(values: Mapping[str, Any], errors: list[str], *, reads_corpus: bool) -> RunConfig:
    """Return the config of a run of one task, whose options stand beside those of the run."""
    if not values.get("task"):
        raise UserError("Expected a task, found none. Add `-d emotion` (or `task: emotion` to the recipe).")
    values = {**values, "task": name_behind(str(values["task"]), "task"), "reference": values.get("reference") or []}
    own = ["task", values["task"], *TASK_KEYS]
    task = bind_task({key: value for key, value in values.items() if key in own}, errors, reads_corpus=reads_corpus)
    shared = {key: value for key, value in values.items() if key not in own}
    if shared.pop("expert", None) is not None:
        errors.append(f"Unknown option 'expert'. The task's own section is called '{task.task}'.")
    known = [field.name for field in dataclasses.fields(RunConfig) if field.name not in SEVERAL_ONLY]
    for key in (key for key in shared if key not in known):
        words = [*own, *known]
        close = f" Did you mean '{ELSEWHERE[key]}'?" if key in ELSEWHERE else nearest(str(key), words)
        errors.append(f"Unknown option '{shortened(str(key))}'.{close} Known here: {', '.join(words)}.")
    values = {key: value for key, value in shared.items() if key in known}
    config = bind(RunConfig, values, "", errors, elsewhere=ELSEWHERE)
    return replace(config, tasks={task.task: task})


def bind_several(values: Mapping[str, Any], errors: list[str], *, reads_corpus: bool) -> RunConfig:
    """Return the config of a run of several tasks."""
    sections = values["tasks"]
    if not isinstance(sections, Mapping) or not sections:
        raise UserError("Expected tasks, found none. Add --tasks emotion,ks (or a mapping `tasks:` to the recipe).")
    select = values.get("select", "last")
    if select not in SELECTS:
        errors.append(f"Expected 'select' to be one of {', '.join(SELECTS)}, found {select!r}.")
        select = "last"
    config = bind(RunConfig, {**values, "tasks": {}, "select": select}, "", errors, without=ONE_ONLY)
    if config.solver == "exact":
        errors.append("Expected solver=adam of several tasks, found exact, which computes the head of one. Leave it out.")
    tasks: dict[str, TaskConfig] = {}
    for name, section in sections.items():
        wrong: list[str] = []
        try:
            tasks[name] = bind_section(name, section or {}, wrong, reads_corpus=reads_corpus)
            tasks[name] = replace(tasks[name], batch_size=batch_size_of(config, tasks[name]))
        except UserError as problem:
            wrong += str(problem).splitlines()
        errors += [f"{name}: {line}" for line in wrong]
    config = replace(config, tasks=tasks)
    errors += [*role_mistakes(config), *baseline_mistakes(config, [*sections])]
    return config


def bind_section(name: str, section: Mapping[str, Any], errors: list[str], *, reads_corpus: bool) -> TaskConfig:
    """Return one of several tasks from its section, above what the task's folder and its demo set."""
    if not isinstance(section, Mapping):
        raise UserError(f"Expected a mapping at 'tasks.{name}', found {section!r}. Write `tasks: {{{name}: {{}}}}`.")
    section = {**section, "task": name_behind(str(section.get("task", name)), "task", "--tasks")}
    task = section["task"]
    demo = demo_recipe(task) if (section.get("corpus") or {}).get("demo") else {}
    known = {*TASK_KEYS, "roles", task}
    strange = sorted({*section} - known - {"task", "batch_size"})
    if strange:
        raise UserError(f"Unknown option 'tasks.{name}.{strange[0]}'. A task has: batch_size, task, {', '.join(sorted(known))}.")
    below = {key: value for key, value in merge(task_default(task), demo).items() if key in known}
    return bind_task(merge(below, section), errors, reads_corpus=reads_corpus)


def bind_task(values: Mapping[str, Any], errors: list[str], *, reads_corpus: bool) -> TaskConfig:
    """Return a task's config with its own section, its corpus and its metric."""
    task = load_task(values["task"])
    corpus = values.get("corpus")
    if isinstance(corpus, Mapping) and isinstance(corpus.get("name"), str):
        values = {**values, "corpus": {**corpus, "name": name_behind(corpus["name"], "corpus", FLAGS["corpus"])}}
    config = bind(TaskConfig, values, "", errors, spelled={"expert": task.name}, elsewhere=ELSEWHERE)
    section = {} if config.expert is None else config.expert
    options = bind(task.options, section, task.name, errors, elsewhere=ELSEWHERE)
    config = replace(config, expert=options)
    if reads_corpus or config.corpus.name in CORPORA.loaded():
        return complete_task(config, task, errors)
    return config


def with_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in which paths to one's own upstreams, all of them typed too, gave way to the names behind them."""
    named = dict(values)
    for role, key in SECTIONS.items():
        section = named.get(key)
        if isinstance(section, Mapping) and isinstance(section.get("name"), str):
            named[key] = {**section, "name": name_behind(section["name"], "upstream", FLAGS[role])}
    return named


def complete_task(config: TaskConfig, task: Task, errors: list[str]) -> TaskConfig:
    """Fill in what depends on other fields: the corpus, its protocol, the metric that selects."""
    corpus = config.corpus
    is_manifest = corpus.data is not None and not corpus.name and Path(corpus.data).suffix in {".csv", ".tsv", ".jsonl"}
    try:
        question = task.question(config.expert)
        reader = get_reader(corpus.name or ("manifest" if is_manifest else default_corpus(question.name)))
    except UserError as problem:
        errors.append(str(problem))
        return config
    # of a question of the user's own no reader knows whether it serves it: the labels that it needs decide
    if question.needs_labels and question.name not in reader.tasks and question.name in built_in_tasks():
        serving = [name for name, other in list_corpora().items() if question.name in other.tasks]
        errors.append(
            f"Corpus '{reader.name}' does not serve task '{question.name}' (it serves: {', '.join(reader.tasks)}). "
            f"Choose one that does: --corpus {' or '.join(serving)}."
        )
    if not question.label and "label_required" in reader.options:
        corpus = replace(corpus, options={"label_required": False, **corpus.options})
    if not question.needs_labels and "splits_required" in reader.options:  # what is only listened to needs no test
        corpus = replace(corpus, options={"splits_required": False, **corpus.options})
    if reader.has_layout and not corpus.name and corpus.data:
        errors += other_layouts(reader, Path(corpus.data).expanduser(), question.name)
    select_by = config.select_by or reader.select_by.get(question.name, question.primary_metric)
    choosing = [name for name in question.metrics if name not in question.final]
    if select_by not in choosing:
        errors.append(f"Expected 'select_by' to be one of {', '.join(choosing)}, found {select_by!r}.")
    if config.report_by and config.report_by not in question.metrics:
        errors.append(f"Expected 'report_by' to be one of {', '.join(question.metrics)}, found {config.report_by!r}.")
    corpus = replace(corpus, protocol=corpus.protocol or reader.protocol_of.get(question.name, ""))
    return replace(config, corpus=complete_corpus(corpus, reader, errors), select_by=select_by)


def store_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the way to use the store."""
    mistakes = []
    for size in filter(None, (config.store.limit, config.store.memory)):
        try:
            parse_size(size)
        except UserError as problem:
            mistakes.append(str(problem))
    mode = config.store.mode
    if mode in MODES or os.sep in mode or Path(mode).is_dir():
        return mistakes
    folder = f"For a folder of that name write ./{mode}."
    return [*mistakes, f"Expected --store {', '.join(MODES)} or a folder, found '{mode}'.{nearest(mode, MODES)} {folder}"]


def role_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the upstreams that tasks use: a task needs one, and an upstream a task."""
    there = [*roles_of(config)]
    if not there:  # reported where an upstream is used
        return []
    lacking = [(name, role) for name, task in config.tasks.items() for role in task.roles if role not in there]
    mistakes = [
        f"Expected 'tasks.{name}.roles' among the upstreams of the run ({', '.join(there)}), found {role}. "
        f"Leave it out, or name that upstream: -o {SECTIONS[role]}.name=…"
        for name, role in lacking
    ]
    used = {role for task in config.tasks.values() for role in roles_of(config, task)}
    return mistakes or [
        f"Expected a task that uses '{SECTIONS[role]}', found none. Leave that upstream out, or mend the tasks' roles."
        for role in there
        if config.tasks and role not in used
    ]


def baseline_mistakes(config: RunConfig, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the scores that a joint run's gain is counted from."""
    unknown = [name for name in config.baselines if name not in names]
    mistakes = [f"Expected a task of the run in 'baselines', found '{name}'." for name in unknown]
    missing = ", ".join(name for name in names if name not in config.baselines)
    if config.select == "gain" and missing:
        mistakes.append(f"Expected baselines of all tasks for select=gain, found none of {missing}. Run --scenario single first.")
    return mistakes


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
    """Return the error about options of an upstream that a run does not have: none may be ignored in silence."""
    sections, there = {key: getattr(config, key) for key in SECTIONS.values()}, roles_of(config)
    if not there:  # reported where it is used
        return []
    idle = []
    if config.masks.is_on and "audio" not in there:
        idle.append("Expected -u beside 'masks', which are over the frames of audio, found a run without. Leave them out.")
    idle += [
        f"Expected --text-upstream beside '{name}.text_pooling', which is over a text's tokens, found none. Leave it out."
        for name, task in config.tasks.items()
        if getattr(task.expert, "text_pooling", None) is not None and "text" not in roles_of(config, task)
    ]
    idle += teacher_mistakes(config)
    for name, section in sections.items():
        keys = [field.name for field in dataclasses.fields(section) if getattr(section, field.name) != field.default]
        if not section.name and keys:
            other = next(key for key in sections if key != name)
            flag = {key: FLAGS[role] for role, key in SECTIONS.items()}[name]
            idle.append(
                f"Expected {flag} beside '{name}.{keys[0]}' (-k, -l and -s are of -u), found a run without. "
                f"Name that upstream, or write -o {other}.{keys[0]}=…"
            )
    return idle


def teacher_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with a teacher, and with options that a task which takes layers as they are would pass over."""
    taught = {name: task for name, task in config.tasks.items() if takes_teacher(task.expert)}
    others = [name for name in config.tasks if name not in taught]
    mistakes = [
        f"Expected '{TEACHER}' in 'tasks.{name}.roles' of a task that a teacher gives (pretrain, distil), found it in {name}'s. "
        "Leave it out."
        for name in others
        if TEACHER in config.tasks[name].roles
    ]
    if config.teacher.name and not taught:
        found = " and ".join(others)
        mistakes.append(f"Expected a task that a teacher gives (pretrain, distil) beside 'teacher', found {found}. Leave it out.")
    elif taught and not config.teacher.name:
        name, need = next(iter(taught)), "mfcc_no_cmvn, a model, or a run's folder"
        mistakes.append(f"Expected a teacher for {name}, found none. Add --teacher NAME ({need}).")
    passed_over = [f"teacher.{key}" for key in ("layer", "normalize_layers") if given(config.teacher, key)]
    if taught and not others:
        passed_over += [f"upstream.{key}" for key in ("layer", "normalize_layers") if given(config.upstream, key)]
        passed_over += ["masks"] * config.masks.is_on
    where = "the task's own options choose the teacher's layers, and its head is on the upstream's last layer"
    return mistakes + [f"Expected no '{key}' for {' and '.join(taught)}, found it: {where}. Leave it out." for key in passed_over]


def given(section: UpstreamConfig, key: str) -> bool:
    """Return whether an option is not what it is by default."""
    return getattr(section, key) != getattr(UpstreamConfig(), key)


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
            others = "".join(f" --corpus {name} has it." for name, other in list_corpora().items() if key in other.options)
            errors.append(f"Unknown option '{place}'.{nearest(key, reader.options)} {reader.name} has: {known}.{others}")
            continue
        try:
            options[key] = convert(hints[key], value, place, errors)
        except ValueError as problem:
            errors.append(str(problem))
    data = _absolute(corpus.data)
    texts = corpus.transcripts
    if texts and os.path.exists(os.path.expanduser(texts)):  # a table; a model's name otherwise
        texts = os.path.abspath(os.path.expanduser(texts))
    return replace(corpus, name=reader.name, data=data, protocol=protocol, options=options, transcripts=texts)


def final_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the options of a final model: how long it is trained has to be tried before, on held-out data."""
    if config.split and config.select == "gain":
        return ["Expected select=last beside split=all, which holds out no dev split to gain on, found gain. Leave it out."]
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


def adapter_mistakes(config: RunConfig) -> list[str]:
    """Return what is wrong with the options of the upstreams' adapters."""
    lines = [line for role, section in roles_of(config).items() for line in adapters.mistakes(section, SECTIONS[role])]
    kinds = {section.adapter for section in roles_of(config).values()}
    if config.own_adapters and kinds <= {adapters.WITHOUT}:
        lines.append("Expected an adapter beside own_adapters, found none. Add -o upstream.adapter=lora, or leave it out.")
    return lines


def _absolute(place: str | None) -> str | None:
    return place and os.path.abspath(os.path.expanduser(place))


def config_of(folder: Path, task: str | None, *, only_task: bool = False) -> tuple[RunConfig, str, bool]:
    """Return a task of a run as a run of its own, what it is called there, and whether its weighted sum is that of several.

    `only_task`: nothing will be computed, so that of own code none but the task's is needed, after --use.
    """
    mapping = RunFolder(folder).read().config()
    if only_task:
        refuse_other_code(folder, mapping, flags={}, keys={"task"})
    else:
        refuse_other_code(folder, mapping)
    config = resolve([mapping], reads_corpus=False)
    name = task_in(config, folder, task)
    return alone(config, name), name, config.shared_weights


def task_in(config: RunConfig, folder: Path, task: str | None) -> str:
    """Return the name of the one task of a run that is meant: the only one there is, or that which is named."""
    names = [*config.tasks]
    name = names[0] if task is None and len(names) == 1 else task
    if name in names:
        return name
    if not config.is_joint:
        raise UserError(f"Expected task '{names[0]}' of '{folder}', found '{task}'. Leave --task out.")
    found = f"found '{task}'" if task else "found none"
    raise UserError(f"Expected one task of the run '{folder}', {found}. Add --task {' or '.join(names)}.")
