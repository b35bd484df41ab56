"""Every option of a recipe: its type, default, range and meaning, from the dataclasses and the comments beside their fields."""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

import yaml

from headwater.core.options import Range, plain
from headwater.downstream.base import TASKS
from headwater.downstream.load import load_task
from headwater.runs.config.schema import ONE_ONLY, SEVERAL_ONLY, TASK_KEYS, RunConfig, TaskConfig

from .markdown import code, table

INTRODUCTION = """\
# Every option

An option is a line of a recipe (`training: {steps: 2000}`), or `-o training.steps=2000` on the command line. `config.yaml` in a
run folder holds all of them as the run had them. An unknown option is refused with the nearest name, a value out of range with
the range.
"""
WORDS = {bool: "true or false", str: "word", int: "whole number", float: "number", Any: "anything", type(None): "null"}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option as a user types it."""

    name: str
    kind: str
    default: str
    range: str
    about: str


def page() -> str:
    """Return the page of all options."""
    lines = [INTRODUCTION]
    for title, about, options in sections():
        cells = [(code(option.name), option.kind, code(option.default), option.range, option.about) for option in options]
        lines += [f"## {title}", "", about, "", *table(("option", "type", "default", "range", "what it does"), cells), ""]
    return "\n".join(lines)


def sections() -> Iterator[tuple[str, str, list[Option]]]:
    """Yield the sections of a recipe: title, a sentence, and the options with their full names."""
    run, tasks, shared = RunConfig(), TaskConfig(), comments_of(RunConfig)
    hints = get_type_hints(RunConfig, include_extras=True)
    nested = {name: kind for name, kind in hints.items() if is_section(kind)}
    own = [option for option in options_of(TaskConfig, tasks) if option.name in ("task", *TASK_KEYS) and option.kind != "section"]
    at_top = [option for option in options_of(RunConfig, run) if option.name not in {*nested, *SEVERAL_ONLY}]
    yield "A recipe", "What stands at the top. Options of one task stand here too, where a recipe has one.", own + at_top
    for name in ("corpus", "labels"):
        kind = get_type_hints(TaskConfig, include_extras=True)[name]
        yield f"{name}:", sentence_of(kind), options_of(kind, kind(), f"{name}.")
    for name, kind in nested.items():
        if name not in SEVERAL_ONLY:
            about = " ".join(filter(None, (sentence_of(kind), shared.get(name) and f"Here: {shared[name]}.")))
            yield f"{name}:", about, options_of(kind, kind(), f"{name}.")
    for name in TASKS.built_in():
        options = load_task(name).options()
        about = f"The section of [`-d {name}`](../../downstream/{name}/README.md)."
        yield f"{name}:", about, options_of(type(options), options, f"{name}.")
    several = [option for option in options_of(RunConfig, run) if option.name in SEVERAL_ONLY and option.name not in nested]
    text = "What a recipe of several tasks has instead of one task's options; `tasks.NAME.` stands before those of each."
    of_each = options_of(TaskConfig, tasks, "tasks.NAME.")
    several += [option for option in of_each if option.name.endswith((".roles", ".batch_size"))]
    yield "Several tasks", text, several
    for name in ("sampling", "balance"):
        yield f"{name}:", sentence_of(nested[name]), options_of(nested[name], nested[name](), f"{name}.")


def names() -> set[str]:
    """Return the full name of every option."""
    return {option.name for _, _, options in sections() for option in options} - {*ONE_ONLY}


def options_of(config: type, values: Any, prefix: str = "") -> list[Option]:
    """Return the options of a dataclass, those of dataclasses within it by their full names."""
    hints, about, found = get_type_hints(config, include_extras=True), comments_of(config), []
    for field in dataclasses.fields(config):
        kind, value, name = hints[field.name], getattr(values, field.name), f"{prefix}{field.name}"
        parts = [part for part in (kind, *get_args(kind)) if is_section(part)]
        if parts[:1] != [kind] or not prefix:
            found.append(Option(name, words_of(kind), default_of(value), range_of(kind), about.get(field.name, "")))
        if parts and prefix:  # a section, or one that may be left out
            found += options_of(parts[0], value or parts[0](), f"{name}.")
    return found


def is_section(kind: Any) -> TypeGuard[type]:
    """Tell whether a type is a dataclass: a section of a recipe."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def words_of(kind: Any) -> str:
    """Return a type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words_of(arguments[0])
    if origin is Literal:
        return ", ".join(code(value) for value in arguments if value != "") + ' or `""`' * ("" in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(words_of(argument) for argument in arguments)
    if origin in (list, tuple):
        return f"list of {words_of(arguments[0])}{'s' * (arguments[0] in WORDS)}"
    if origin in (dict, collections.abc.Mapping):
        return "mapping"
    return WORDS.get(kind, "section" if is_section(kind) else "mapping")


def range_of(kind: Any) -> str:
    """Return the range of a number, wherever in its type it stands."""
    if get_origin(kind) is Annotated:
        return " ".join(item.words for item in get_args(kind)[1:] if isinstance(item, Range))
    return " ".join(filter(None, map(range_of, get_args(kind))))


def default_of(value: Any) -> str:
    """Return a default as yaml writes it."""
    if dataclasses.is_dataclass(value):
        return ""
    return yaml.safe_dump(plain(value), default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def sentence_of(config: type) -> str:
    """Return what a section's docstring says."""
    return " ".join((inspect.getdoc(config) or "").split())


def comments_of(config: type) -> Mapping[str, str]:
    """Return what stands in a comment beside or above each field, of the classes that a config is made of too."""
    found: dict[str, str] = {}
    for part in reversed(config.__mro__):
        if dataclasses.is_dataclass(part):
            found |= own_comments(part)
    return found


def own_comments(config: type) -> Iterator[tuple[str, str]]:
    """Yield each field of a class with its comment."""
    source = textwrap.dedent(inspect.getsource(config))
    lines, tree = source.splitlines(), ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef), f"expected the source of a class, found {type(tree).__name__}"
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above: list[str] = []
            row = node.lineno - 2
            while lines[row].strip().startswith("#"):
                above.insert(0, lines[row].strip("# "))
                row -= 1
            beside = [line.partition("  # ")[2] for line in lines[node.lineno - 1 : node.end_lineno]]
            yield node.target.id, in_markdown(" ".join(filter(None, [*above, *beside])))


def in_markdown(comment: str) -> str:
    """Return a comment as a page has it: yaml's word for nothing, and no tags."""
    return re.sub(r"\bNone\b", "null", comment).replace("<", "&lt;")
