"""Mappings to dataclasses, strictly: every unknown key and wrong type is found, and all are reported together."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import math
import shlex
import types
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from .errors import UserError, nearest
from .files import NO_FILE, obstacle, write_text
from .trust import CHECKPOINTS


@dataclasses.dataclass(frozen=True)
class Range:
    """Which numbers an option may be: stands in its annotation, `Annotated[int, ABOVE_0]`."""

    words: str
    holds: Callable[[float], bool]


ABOVE_0 = Range("above 0", lambda number: number > 0)
AT_LEAST_0 = Range("of 0 or more", lambda number: number >= 0)
SHARE = Range("from 0 to below 1", lambda number: 0 <= number < 1)
BETWEEN_0_AND_1 = Range("between 0 and 1", lambda number: 0 < number < 1)
SHARE_OR_1 = Range("from 0 to 1", lambda number: 0 <= number <= 1)
PATHS = {"paths": True}  # of a field's metadata: it holds paths, of which the names of the files alone tell a run from others
SEED = Range("from 0 to 2^63 - 1", lambda number: 0 <= number < 2**63)  # torch takes no more
MASKS = Range("from 0 to 1,000", lambda number: 0 <= number <= 1000)  # drawn for every utterance of a step
MILLIONS = Range("from 0 to 1,000,000", lambda number: 0 <= number <= 10**6)
UP_TO_MILLIONS = Range("above 0 and at most 1,000,000", lambda number: 0 < number <= 10**6)  # drawn before the first step
DECAY = Range("above 0 and at most 1", lambda number: 0 < number <= 1)


def bind(
    cls: type,
    values: Any,
    where: str,
    errors: list[str],
    spelled: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> Any:
    """Return an instance of a dataclass; what is wrong goes into `errors` and leaves the default in place.

    `spelled` gives fields that a user knows by another word, `without` those that have no word here, `elsewhere` the full
    names of options in other sections.
    """
    if not isinstance(values, Mapping):
        errors.append(f"Expected a mapping at '{where}', found {values!r}. Write `key: value` lines below it, or leave it out.")
        return cls()
    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls) if field.name not in without]
    fields = {(spelled or {}).get(name, name): name for name in names}
    elsewhere = elsewhere or options_of_sections(cls)
    bound = {}
    for key, value in values.items():
        place = f"{where}.{key}" if where else str(key)
        if key not in fields:
            other = f" Did you mean '{elsewhere[key]}'?" if key in elsewhere else nearest(str(key), fields)
            errors.append(f"Unknown option '{shortened(place)}'.{other} Known here: {', '.join(fields)}.")
            continue
        kind = hints[fields[key]]
        try:
            if dataclasses.is_dataclass(kind) and isinstance(kind, type):
                bound[fields[key]] = bind(kind, value, place, errors, elsewhere=elsewhere)
            else:
                bound[fields[key]] = convert(kind, value, place, errors)
        except ValueError as problem:
            errors.append(str(problem))
    refuse_without_default(cls, bound, where)
    return cls(**bound)


def shortened(word: str) -> str:
    """Return a word as a message has room for it."""
    return word if len(word) <= 100 else f"{word[:100]}…"


def options_of_sections(*configs: type) -> dict[str, str]:
    """Return `lr -> optimizer.lr` for the options of all sections of configs whose names occur once."""
    found: dict[str, list[str]] = {}
    for section, kind in (pair for config in configs for pair in get_type_hints(config).items()):
        if dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                found.setdefault(field.name, []).append(f"{section}.{field.name}")
    return {name: places[0] for name, places in found.items() if len(places) == 1}


def refuse_without_default(cls: type, given: Mapping[str, Any], where: str) -> None:
    """Refuse a dataclass, a user's own say, with a field that has no default and that nobody has given."""
    for field in dataclasses.fields(cls):
        without = field.default is field.default_factory is dataclasses.MISSING
        if without and field.init and field.name not in given:
            raise UserError(
                f"Expected a default for the option '{f'{where}.' * bool(where)}{field.name}', found none. "
                f"Give one to {cls.__name__}: `{field.name}: … = VALUE`."
            )


def convert(kind: Any, value: Any, where: str, errors: list[str]) -> Any:
    """Return a value as its annotated type, or raise ValueError with what was expected and found."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        number = convert(arguments[0], value, where, errors)
        if not arguments[1].holds(number):
            raise ValueError(f"Expected '{where}' {arguments[1].words}, found {number}.")
        return number
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return bind(kind, value, where, errors)
    if origin is Literal:
        if value in arguments:
            return value
        raise ValueError(f"Expected '{where}' to be one of {', '.join(map(str, arguments))}, found {value!r}.")
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        rest = [argument for argument in arguments if argument is not type(None)]
        several = isinstance(value, (list, tuple))  # of a word or a list of words
        fitting = [argument for argument in rest if several == (get_origin(argument) in (list, tuple))]
        return convert((fitting or rest)[0], value, where, errors)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"Expected a list at '{where}', found {value!r}. Write it as [a, b].")
        return origin(convert(arguments[0], item, f"{where}[{index}]", errors) for index, item in enumerate(value))
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"Expected a mapping at '{where}', found {value!r}. Write it as {{a: b}}.")
        return {str(key): convert(arguments[1], item, f"{where}.{key}", errors) for key, item in value.items()}
    return _scalar(kind, value, where)


def _scalar(kind: type, value: Any, where: str) -> Any:
    refusal = ValueError(f"Expected '{where}' to be {_TYPE_NAMES[kind]}, found {value!r}.")
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise refusal
    if kind is str and isinstance(value, bool):
        word = "on" if value else "off"
        raise ValueError(
            f"Expected '{where}' to be a word, found {value}: yaml reads on, off, yes and no so. Quote it: '\"{word}\"'."
        )
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        raise refusal
    if kind is str:
        return str(value)
    try:
        number = float(value)  # PyYAML reads 1e-4 as a string
    except (ValueError, TypeError, OverflowError):  # TypeError: a date, which yaml knows
        raise refusal from None
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise refusal
    return kind(number)


_TYPE_NAMES = {bool: "true or false", str: "a word", int: "a whole number", float: "a number"}


def without_folders(config: Any) -> dict[str, Any]:
    """Return the options of a dataclass that are paths (`field(metadata=PATHS)`), each as the file's name alone.

    A section within it that has such options is among them, whole.
    """
    names = [field.name for field in dataclasses.fields(config) if field.metadata.get("paths")]
    given = {name: getattr(config, name) for name in names}
    found: dict[str, Any] = {
        name: [Path(path).name for path in paths] if isinstance(paths, (list, tuple)) else paths and Path(paths).name
        for name, paths in given.items()
    }
    for field in dataclasses.fields(config):
        section = getattr(config, field.name)
        if dataclasses.is_dataclass(section) and not isinstance(section, type):
            within = without_folders(section)
            found |= {field.name: {**plain(section), **within}} if within else {}
    return found


def plain(value: Any) -> Any:
    """Return dataclasses and tuples as the dicts and lists that yaml and json write."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """Return each difference of two plain mappings as a line `key: there -> now`."""
    lines = []
    for key in sorted({*before, *now}):
        place = f"{where}.{key}" if where else key
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, place)
        elif old != new:
            lines.append(f"{place}: {old} -> {new}")
    return lines


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return a recipe's mapping, or say what is wrong with the file."""
    try:
        if obstacle(path) == NO_FILE:
            raise ValueError(NO_FILE)
        if Path(path).stat().st_size > _LARGEST_YAML:
            raise ValueError(f"more than {_LARGEST_YAML:,} bytes")
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        refuse_vast(content)
    except FileNotFoundError:
        raise UserError(f"Expected a recipe (yaml) at '{path}', found no file. Check the path of -c.") from None
    except RecursionError:
        raise UserError(f"Expected yaml in '{path}', found lists or mappings nested too deeply. Mend the file.") from None
    except (yaml.YAMLError, ValueError, OSError) as problem:  # ValueError: also a number of 5,000 digits
        raise UserError(f"Expected yaml in '{path}', found {yaml_mistake(problem)}. Mend the file.") from None
    if not isinstance(content, dict):
        raise UserError(f"Expected a mapping of options in '{path}', found {type(content).__name__}. Write `key: value` lines.")
    CHECKPOINTS.suspect(content)
    return content


def write_yaml(path: Path, mapping: Mapping[str, Any]) -> None:
    """Write a recipe, whole or not at all."""
    write_text(path, yaml.safe_dump(dict(mapping), sort_keys=False, allow_unicode=True))


_LARGEST_YAML = 2**20  # bytes
_MOST_VALUES = 100_000  # of a yaml file, an alias counted as all that it stands for


def refuse_vast(content: Any) -> None:
    """Raise ValueError for yaml whose aliases stand for too many values, or for themselves."""
    counts: dict[int, int | None] = {}  # by id; None: it is being counted, so that it holds itself

    def count(value: Any) -> int:
        """Return how many values one value stands for."""
        if not isinstance(value, (dict, list)):
            return 1
        if id(value) not in counts:
            counts[id(value)] = None
            counts[id(value)] = 1 + sum(map(count, value if isinstance(value, list) else value.values()))
        known = counts[id(value)]
        if known is None:
            raise ValueError("an alias that stands for itself")
        if known > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values")
        return known

    count(content)


def yaml_mistake(problem: Exception) -> str:
    """Return what is wrong with a yaml file, and where."""
    mark = getattr(problem, "problem_mark", None)
    if mark is None:
        return " ".join(str(problem).split())
    return f"in line {mark.line + 1}, column {mark.column + 1}: {getattr(problem, 'problem', '')}"


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping in which the second one's leaves stand over the first one's."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def option_text(key: str, value: Any) -> str:
    """Return `key=value` as a user types it after -o in a shell.

    >>> option_text("labels.keep", ["neu", "hap"])
    "labels.keep='[neu, hap]'"
    """
    if isinstance(value, str):
        text = value if _is_plain(value) else json.dumps(value, ensure_ascii=False)
    else:
        text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return f"{key}={shlex.quote(text.removesuffix('...' + chr(10)).strip())}"


def _is_plain(word: str) -> bool:
    """Return whether yaml reads an unquoted word as the word itself, or as a number."""
    try:
        read = yaml.safe_load(word) if word.strip() else None
    except yaml.YAMLError:
        return False
    return read == word or (isinstance(read, (int, float)) and not isinstance(read, bool))


def parse_override(text: str) -> dict[str, Any]:
    """Return `optimizer.lr=1e-4` as a nested mapping."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"Expected `-o key=value`, found '{text}'. For instance: -o optimizer.lr=1e-4")
    try:
        leaf = yaml.safe_load(value) if value.strip() else ""
        refuse_vast(leaf)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"Expected a yaml value after '{key}=', found '{value[:100]}'. Quote it for the shell.") from None
    nested: Any = leaf
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return nested
