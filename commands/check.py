"""Run the contract tests on a task, an upstream or a corpus of one's own."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..own_code import Kind, OwnCode, find, use
from .shell import Parser, TypedPath

if TYPE_CHECKING:
    from ..checks.base import Finding
    from ..corpus.base import Corpus

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
    kind, name = named(flags.what)
    own = find(kind, name)
    found = RUN[kind](name, flags, own.path if own else Path(__file__).parents[1])
    for finding in found:
        print(finding.line)
    failed = sum(1 for finding in found if finding.problem)
    print(
        f"{kind} '{name}': "
        + (f"{failed} of {len(found)} contract tests failed" if failed else f"all {len(found)} contract tests hold")
    )
    return FAILED if failed else 0


def named(word: str) -> tuple[Kind, str]:
    """Return what a word stands for: the code at a path, which is executed, or what is registered under a name."""
    from ..corpus.base import list_corpora
    from ..downstream.base import list_tasks
    from ..upstream.base import list_upstreams

    if "/" in word or word.endswith(".py") or Path(word).is_dir():
        code: OwnCode = use(word)
        return code.kind, code.name
    tables: dict[Kind, list[str]] = {
        "task": list_tasks(),
        "upstream": [row.name for row in list_upstreams(word)],
        "corpus": [*list_corpora()],
    }
    kind = next((kind for kind, names in tables.items() if word in names), None)
    if kind is None:
        raise UserError(
            f"Expected a path (./my_task, ./my_upstream.py) or the name of a task, an upstream or a corpus, found '{word}'. "
            "Check the path."
        )
    return kind, word


def check_task(name: str, flags: Namespace, path: Path) -> list[Finding]:
    """Return the findings of a task, with made-up labels or those of a corpus."""
    from ..checks.base import findings
    from ..checks.task import CHECKS
    from ..checks.trial import on_trial
    from ..downstream.base import load_task
    from ..training.config import merge, parse_override, task_default
    from ..training.strict import bind

    task, values, errors = load_task(name), task_default(name), list[str]()
    for override in flags.override:
        values = merge(values, parse_override(override))
    options = bind(task.options, values.get(name) or {}, name, errors)
    errors += [
        f"Expected options of the task in -o {name}.KEY=VALUE, found '{key}'." for key in values_given(flags) if key != name
    ]
    if errors:
        raise UserError("\n".join(errors))
    return findings(CHECKS, on_trial(task, corpus_of(flags, label=task.question(options).label), options), path)


def values_given(flags: Namespace) -> list[str]:
    """Return the sections that -o names."""
    return [override.partition("=")[0].partition(".")[0].strip() for override in flags.override]


def corpus_of(flags: Namespace, *, label: bool) -> Corpus | None:
    """Return the corpus that the flags name, if they name one; `label`: whether a table needs a column of classes."""
    if not (flags.corpus or flags.data):
        return None
    from ..corpus.base import get_reader
    from ..training.config import CorpusConfig, complete_corpus
    from ..training.prepare import read_corpus

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
    from ..checks.base import findings
    from ..checks.upstream import CHECKS, listener

    refuse(flags, "upstream", "--corpus" if flags.corpus else "--data" if flags.data or flags.demo else "")
    return findings(CHECKS, listener(name), path)


def check_corpus(name: str, flags: Namespace, path: Path) -> list[Finding]:
    """Return the findings of a corpus, on its data or its miniature."""
    from ..checks.base import findings
    from ..checks.corpus import CHECKS, reading
    from ..corpus.base import get_reader

    refuse(flags, "corpus", "--corpus" if flags.corpus else "")
    return findings(CHECKS, reading(get_reader(name), flags.data), path)


def refuse(flags: Namespace, kind: str, idle: str) -> None:
    """Refuse a flag that the check of this kind would pass over in silence."""
    idle = idle or "-o" * bool(flags.override)
    if idle:
        raise UserError(f"Expected no {idle} for the check of one {kind}, found it. Leave it out.")


RUN = {"task": check_task, "upstream": check_upstream, "corpus": check_corpus}
