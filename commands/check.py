"""Check this machine, or run the contract tests of a task, an upstream or a corpus."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..plugins.code import UserCode, find, use
from ..plugins.registry import Kind, Registry
from .common.console import print_result
from .common.sections import read_corpus_of
from .common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..checks.base import Finding
    from ..checks.trial import Trial
    from ..corpus.base import Corpus
    from ..downstream.base import Task
    from ..upstream.base import Registered


HELP = "check this machine (versions, weights, corpora), or test your own task, upstream or corpus"
EXAMPLE = "headwater check ./my_task"
FAILED = 1  # exit code where something does not hold


def main(arguments: Sequence[str]) -> int:
    """Print what this machine has, or a line for each contract test."""
    words = (
        "Without WHAT: print versions, devices, caches, weights and corpora of this machine, and what to do about what is "
        "missing (a bug report asks for it; it names no user). With WHAT: run its contract tests and print one line for each: "
        "ok, or what failed and what to do. To count what is in a corpus: `headwater corpus check`."
    )
    parser = Parser("headwater check", words, EXAMPLE)
    add = parser.add_argument
    words = "the folder of a task, the .py file of an upstream or a corpus, or the name of one (default: this machine)"
    add("what", nargs="?", metavar="WHAT", help=words)
    add("--json", metavar="FILE", help="write what this machine has as json (-: to stdout, in place of the text)")
    add("--corpus", action=TypedPath, kind="corpus", help="test the task with the labels of this corpus, not with made-up ones")
    add("--data", help="folder of the corpus, or a csv / tsv / jsonl")
    add("--demo", action="store_true", help="use the miniature of the corpus")
    words = "options of the task and of the corpus: emotion.pooling=mean corpus.protocol=…"
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=words)
    flags = parser.parse_args(arguments)
    if not flags.what:
        return check_machine(flags)
    if flags.json:
        raise UserError(f"Expected --json for the check of this machine, found it beside '{flags.what}'. Leave one out.")
    if flags.data and flags.demo:
        raise UserError("Expected one of --data and --demo, found both. Leave one out.")
    kind, name = named(flags.what)
    own, corpus_flag = find(kind, name), flags.corpus or flags.data
    found = RUN[kind](name, flags, own.path if own else Path(__file__).parents[1])
    for finding in found:
        print_result(finding.line)
    failed = sum(1 for finding in found if finding.problem)
    print_result(
        f"{kind} '{name}': "
        + (f"{failed} of {len(found)} contract tests failed" if failed else f"all {len(found)} contract tests hold")
        + (", with made-up labels: add --data my.csv for yours" if failed and kind == "task" and not corpus_flag else "")
    )
    return FAILED if failed else 0


def registered_upstreams() -> Sequence[Registered]:
    """Return the registered upstreams; on a broken installation this import fails, and the check says so."""
    from ..upstream import load

    return load.list_upstreams()


def check_machine(flags: Namespace) -> int:
    """Print what this machine has; what is missing is no mistake."""
    idle = ("corpus", "data", "demo", "override")
    typed = next((f"--{flag}" if flag != "override" else "-o" for flag in idle if vars(flags)[flag]), None)
    if typed:
        raise UserError(f"Expected a task, an upstream or a corpus beside {typed}, found none. Name it: {EXAMPLE}")
    from ..checks.machine import examine

    found = examine(registered_upstreams)
    text = json.dumps(
        {section: [asdict(finding) for finding in findings] for section, findings in found.items()}, indent=2, ensure_ascii=False
    )
    if flags.json == "-":
        print_result(text)
        return 0
    if flags.json:
        # not by what writes results: on a broken installation it could not be imported
        try:
            Path(flags.json).write_text(f"{text}\n", encoding="utf-8")
        except OSError as problem:
            place = f"Expected to write '{flags.json}', found: {problem.strerror}."
            raise UserError(f"{place} Choose another place, or - for the terminal.") from None
    width = max(len(finding.name) for findings in found.values() for finding in findings) + 2
    for section, findings in found.items():
        print_result(section)
        for finding in findings:
            advice = [f"  {'':<{width}}-> {finding.advice}"] if finding.advice else []
            print_result(f"  {finding.name:<{width}}{finding.found}", *advice)
    return 0


def named(word: str) -> tuple[Kind, str]:
    """Return what a word stands for: the code at a path, which is executed, or what is registered under a name."""
    from ..corpus.base import CORPORA
    from ..downstream.base import TASKS
    from ..upstream.base import UPSTREAMS

    if "/" in word or word.endswith(".py"):
        code: UserCode = use(word)
        return code.kind, code.name
    registries: tuple[Registry, ...] = (TASKS, UPSTREAMS, CORPORA)
    kind = next((registry.kind for registry in registries if word in registry.names()), None)
    if kind is None:
        advice = f"The folder there is ./{word}" if Path(word).is_dir() else "Check the word, or type a path"
        raise UserError(
            "Expected a path (./my_task, ./my_upstream.py) or the name of a task, an upstream or a corpus, found the word "
            f"'{word}', which is none. {advice}."
        )
    return kind, word


def check_task(name: str, flags: Namespace, path: Path) -> list[Finding]:
    """Return the findings of a task, with made-up labels or those of a corpus."""
    from ..checks.base import checked
    from ..checks.task import CHECKS
    from ..downstream.load import load_task

    task = load_task(name)
    return checked(lambda: trial_of(task, flags), CHECKS, path)


def trial_of(task: Task, flags: Namespace) -> Trial:
    """Return a task on trial, with the options and the corpus that the flags name."""
    from ..checks.trial import on_trial, question_of, refuse_options
    from ..core.options import bind, merge, parse_override
    from ..runs.config.recipes import task_default

    refuse_options(task.options)
    name, values, errors = task.name, task_default(task.name), list[str]()
    for override in flags.override:
        values = merge(values, parse_override(override))
    options = bind(task.options, values.get(name) or {}, name, errors)
    errors += [
        f"Expected options of the task in -o {name}.KEY=VALUE, found '{key}'."
        for key in values_given(flags)
        if key not in (name, "corpus")
    ]
    if errors:
        raise UserError("\n".join(errors))
    return on_trial(task, corpus_of(flags, values.get("corpus") or {}, label=question_of(task, options).label), options)


def values_given(flags: Namespace) -> list[str]:
    """Return the sections that -o names."""
    return [override.partition("=")[0].partition(".")[0].strip() for override in flags.override]


def corpus_of(flags: Namespace, section: Mapping[str, Any], *, label: bool) -> Corpus | None:
    """Return the corpus that the flags name, if they name one; `label`: whether a table needs a column of classes."""
    if not (flags.corpus or flags.data):
        if flags.demo:
            raise UserError("Expected --corpus NAME beside --demo, the miniature of that corpus, found none. Add it.")
        if section:
            raise UserError(f"Expected --corpus NAME beside -o corpus.{next(iter(section))}, found none. Add it.")
        return None
    from ..corpus.load import get_reader

    name = flags.corpus or "manifest"
    options = {"label_required": False} if not label and "label_required" in get_reader(name).options else {}
    return read_corpus_of({"name": name, "data": flags.data, "demo": flags.demo, "options": options}, section)


def check_upstream(name: str, flags: Namespace, path: Path) -> list[Finding]:
    """Return the findings of an upstream."""
    from ..checks.base import checked
    from ..checks.upstream import CHECKS, upstream_subject

    refuse(flags, "upstream", "corpus", "data", "demo")
    return checked(lambda: upstream_subject(name), CHECKS, path)


def check_corpus(name: str, flags: Namespace, path: Path) -> list[Finding]:
    """Return the findings of a corpus, on its data or its miniature."""
    from ..checks.base import checked
    from ..checks.corpus import CHECKS, reading
    from ..corpus.load import get_reader

    refuse(flags, "corpus", "corpus")
    reader = get_reader(name)
    return checked(lambda: reading(reader, flags.data), CHECKS, path)


def refuse(flags: Namespace, kind: str, *idle: str) -> None:
    """Refuse a flag that the check of this kind would pass over in silence."""
    typed = [f"--{flag}" for flag in idle if vars(flags)[flag]] + ["-o"] * bool(flags.override)
    if typed:
        raise UserError(f"Expected no {typed[0]} for the check of one {kind}, found it. Leave it out.")


RUN = {"task": check_task, "upstream": check_upstream, "corpus": check_corpus}
