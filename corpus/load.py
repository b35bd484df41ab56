"""A corpus by its name."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.errors import UserError, nearest
from ..plugins.code import name_behind
from .base import CORPORA, Reader


def list_corpora() -> dict[str, Reader]:
    """Return every reader by name."""
    CORPORA.broken()  # loads what packages offer; what is broken is shown where corpora are listed
    return dict(sorted(CORPORA.loaded().items()))


def get_reader(name: str) -> Reader:
    """Return the reader of a name, or an error that lists those that exist."""
    name = name_behind(name, "corpus")
    reader = CORPORA.get(name)
    if reader is None:
        known = sorted(CORPORA.loaded())
        raise UserError(f"There is no corpus '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    return reader


def claimants(task: str) -> list[str]:
    """Return the corpora that are a task's usual one: ours, or else those of the user and of installed packages.

    What a package says changes no bare command of ours, and nothing of it is loaded for one.
    """
    ours = {name: reader for name, reader in CORPORA.loaded().items() if not place_of(name)}
    return _claiming(task, ours) or _claiming(task, list_corpora())


def _claiming(task: str, readers: Mapping[str, Reader]) -> list[str]:
    return sorted(name for name, reader in readers.items() if task in reader.default_for)


def place_of(name: str) -> str:
    """Return the path or the package that a corpus comes from; nothing of one of ours."""
    origin = CORPORA.origin(name)
    return "" if origin is None else origin.place


def usual_corpus(task: str) -> str:
    """Return the name of a task's usual corpus; nothing where it has none."""
    names = claimants(task)
    if len(names) > 1:
        places = " and ".join(f"'{name}' ({place_of(name) or 'typed'})" for name in names)
        raise UserError(f"Expected one usual corpus of task '{task}', found {places}. Choose one with --corpus.")
    return names[0] if names else ""


def default_corpus(task: str) -> str:
    """Return the name of a task's usual corpus, which it must have."""
    name = usual_corpus(task)
    if name:
        return name
    raise UserError(f"Task '{task}' has no usual corpus: choose one with --corpus ({', '.join(list_corpora())}).")
