"""Run the contract tests on a task, an upstream or a corpus of one's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from ..plugins.code import OwnCode, find, use
from ..plugins.registry import Kind, Registry
from .common.shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..checks.base import Finding
    from ..checks.trial import Trial
    from ..corpus.base import Corpus
    from ..downstream.base import Task


HELP = "contract tests of a task, an upstream or a corpus of your own, a line each"
EXAMPLE = "headwater check ./my_task"
FAILED = 1  # exit code where something does not hold


def main(arguments: Sequence[str]) -> int:
    """Print a line for each contract test; what does not hold says what to do."""
    parser = Parser("headwater check", "What must hold, a line each: ok, or what failed and what to do.", EXAMPLE)
    add = parser.add_argument
    add("what", help="the folder of a task, the .py file of an upstream or a corpus, or a name of one that is registered")
    add("--corpus", action=TypedPath, kind="corpus", help="check the task with this corpus' labels instead of made-up ones")
    add("--data", help="the corpus' folder, or a csv / tsv / jsonl")
    add("--demo", action="store_true", help="the corpus' miniature")
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options of the task")
    flags = parser.parse_args(arguments)
    if flags.data and flags.demo:
        raise UserError("Expected one of --data and --demo, found both. Leave one out.")
    kind, name = named(flags.what)
    own, heard = find(kind, name), flags.corpus or flags.data
    found = RUN[kind](name, flags, own.path if own else Path(__file__).parents[1])
    for finding in found:
        print(finding.line)
    failed = sum(1 for finding in found if finding.problem)
    print(
        f"{kind} '{name}': "
        + (f"{failed} of {len(found)} contract tests failed" if failed else f"all {len(found)} contract tests hold")
        + (", with made-up labels: add --data my.csv for yours" if failed and kind == "task" and not heard else "")
    )
    return FAILED if failed else 0


def named(word: str) -> tuple[Kind, str]:
    """Return what a word stands for: the code at a path, which is executed, or what is registered under a name."""
    from ..corpus.base import CORPORA
    from ..downstream.base import TASKS
    from ..upstream.base import UPSTREAMS

    if "/" in word or word.endswith(".py"):
        code: OwnCode = use(word)
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
        f"Expected options of the task in -o {name}.KEY=VALUE, found '{key}'." for key in values_given(flags) if key != name
    ]
    if errors:
        raise UserError("\n".join(errors))
    return on_trial(task, corpus_of(flags, label=question_of(task, options).label), options)


def values_given(flags: Namespace) -> list[str]:
    """Return the sections that -o names."""
    return [override.partition("=")[0].partition(".")[0].strip() for override in flags.override]


def corpus_of(flags: Namespace, *, label: bool) -> Corpus | None:
    """Return the corpus that the flags name, if they name one; `label`: whether a table needs a column of classes."""
    if not (flags.corpus or flags.data):
        if flags.demo:
            raise UserError("Expected --corpus NAME beside --demo, the miniature of that corpus, found none. Add it.")
        return None
    from ..corpus.load import get_reader
    from ..runs.config.resolve import complete_corpus
    from ..runs.config.schema import CorpusConfig
    from ..runs.prepare import read_corpus

    errors: list[str] = []
    name = flags.corpus or "manifest"
    reader = get_reader(name)
    options = {"label_required": False} if not label and "label_required" in reader.options else {}
    config = complete_corpus(CorpusConfig(name, flags.data, demo=flags.demo, options=options), reader, errors)
    if errors:
        raise UserError("\n".join(errors))
    return read_corpus(config)


def check_upstream(name: str, flags: Namespace, path: Path) -> list[Finding]:
    """Return the findings of an upstream."""
    from ..checks.base import checked
    from ..checks.upstream import CHECKS, listener

    refuse(flags, "upstream", "corpus", "data", "demo")
    return checked(lambda: listener(name), CHECKS, path)


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
