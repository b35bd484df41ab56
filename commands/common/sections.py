"""The sections of a recipe that verbs beside `downstream` take: -o corpus.protocol=…, -o text_upstream.path=…"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError, nearest

if TYPE_CHECKING:
    from ...corpus.base import Corpus
    from ...runs.config.schema import TaskConfig


def sections_of(overrides: Sequence[str], known: Sequence[str]) -> Mapping[str, Any]:
    """Return the options behind -o by section, and refuse sections that a verb does not read."""
    from ...core.options import merge, parse_override

    sections: Mapping[str, Any] = reduce(merge, map(parse_override, overrides), dict[str, Any]())
    unknown = next((name for name in sections if name not in known), None)
    if unknown is not None:
        listed = " or ".join(f"{name}.KEY=VALUE" for name in known)
        raise UserError(f"Expected -o {listed}, found '{unknown}'.{nearest(unknown, known)} Leave out other options.")
    return sections


def read_corpus_of(flags: Mapping[str, Any], section: Mapping[str, Any]) -> Corpus:
    """Return the corpus that a verb's flags name, with the options of -o corpus.KEY=VALUE."""
    from ...core.options import bind, merge
    from ...corpus.load import get_reader
    from ...runs.config.resolve import complete_corpus
    from ...runs.config.schema import CorpusConfig
    from ...runs.prepare import read_corpus

    errors: list[str] = []
    config: CorpusConfig = bind(CorpusConfig, merge(flags, section), "corpus", errors)
    config = complete_corpus(config, get_reader(config.name), errors)
    if errors:
        raise UserError("\n".join(errors))
    return read_corpus(config)


def text_weights_of(sections: Mapping[str, Any]) -> str | None:
    """Return the folder behind -o text_upstream.path=DIR; a finished run has its other options already."""
    section = sections.get("text_upstream") or {}
    other = next((key for key in section if key != "path"), None) if isinstance(section, Mapping) else str(section)
    if other is not None:
        raise UserError(f"Expected -o text_upstream.path=DIR of a finished run, found '{other}'. Leave it out.")
    return str(section["path"]) if "path" in section else None


def changed_afterwards(task: TaskConfig) -> dict[str, Any]:
    """Return a task's options that a finished run can change, as they were typed or are."""
    from ...core.options import plain
    from ...downstream.load import load_task

    names = load_task(task.task).afterwards
    return {task.task: {name: plain(getattr(task.expert, name)) for name in names}} if names else {}
