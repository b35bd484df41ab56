"""A corpus by its name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from ..core.errors import UserError, nearest
from ..plugins.code import find, known_as, use
from ..plugins.registry import load_all, load_offered, loaded_from
from .base import _READERS, Reader


def registered_corpora() -> dict[str, Reader]:
    """Return the table of readers by name: each file of this folder that is not mechanism holds one, and others were typed."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "readers")]):
        importlib.import_module(f"headwater.corpus.readers.{module.name}")
    return _READERS


def use_corpus(path: str) -> str:
    """Execute a file that the user typed; return the name of the one corpus in it, which is known from now on."""
    return use(path, "corpus").name


def broken_corpora() -> list[str]:
    """Return a line for each corpus of an installed package that cannot be had."""
    return load_all("corpus", registered_corpora())


def list_corpora() -> dict[str, Reader]:
    """Return every reader by name."""
    load_all("corpus", registered_corpora())  # what is broken is told by `broken_corpora`
    return dict(sorted(_READERS.items()))


def get_reader(name: str) -> Reader:
    """Return the reader called so, or say which ones there are."""
    name = known_as(name, "corpus")
    readers = registered_corpora()
    if name not in readers and load_offered("corpus", name, readers) is None:
        known = sorted(readers)
        raise UserError(f"There is no corpus '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    return readers[name]


def claimants(task: str) -> list[str]:
    """Return the corpora that are a task's usual one: ours, or else those of the user and of installed packages.

    What a package says changes no bare command of ours, and nothing of it is loaded for one.
    """
    ours = [name for name in _claiming(task, registered_corpora()) if not (find("corpus", name) or loaded_from("corpus", name))]
    return ours or _claiming(task, list_corpora())


def _claiming(task: str, readers: Mapping[str, Reader]) -> list[str]:
    return sorted(name for name, reader in readers.items() if task in reader.default_for)


def usual_corpus(task: str) -> str:
    """Return the name of a task's usual corpus; nothing where it has none."""
    names = claimants(task)
    if len(names) > 1:
        places = " and ".join(f"'{name}' ({loaded_from('corpus', name) or 'typed'})" for name in names)
        raise UserError(f"Expected one usual corpus of task '{task}', found {places}. Choose one with --corpus.")
    return names[0] if names else ""


def default_corpus(task: str) -> str:
    """Return the name of a task's usual corpus, which it must have."""
    name = usual_corpus(task)
    if name:
        return name
    raise UserError(f"Task '{task}' has no usual corpus: choose one with --corpus ({', '.join(list_corpora())}).")
