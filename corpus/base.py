"""Utterances, corpora, and the table of the readers that know a corpus' layout."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError, nearest
from ..installed import load_all, load_offered, loaded_from
from ..own_code import find, known_as, use


@dataclass(frozen=True)
class Utterance:
    """One line of a manifest: a stretch of an audio file with what is known about it."""

    id: str
    audio: str  # path of the file
    start: float = 0.0  # seconds into the file
    duration: float | None = None  # seconds; None: to the end of the file
    text: str | None = None
    speaker: str | None = None
    session: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """What a reader found: splits by name, and the protocol that made them."""

    name: str
    protocol: str
    fold: int | None  # None: the protocol has one fixed split
    splits: Mapping[str, tuple[Utterance, ...]]  # train, dev, test (a corpus may have more)
    label_order: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # label key -> its classes in fixed order
    label_defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # label key -> the protocol's merge and keep
    notes: tuple[str, ...] = ()  # what a user should know: counts that differ, lines passed over
    tables: Mapping[str, Any] = field(default_factory=dict)  # trial lists, lexicon, rttm …
    scale: tuple[float, float] | None = None  # of ratings
    demo: bool = False  # a miniature, however it was named


@dataclass(frozen=True)
class Reader:
    """How one corpus is read: its function, its protocols with their folds, the tasks it serves."""

    name: str
    read: Callable[..., Corpus]  # read(root, *, protocol, fold, **options): options are the function's own keywords
    tasks: tuple[str, ...]
    protocols: Mapping[str, int]  # protocol -> number of folds (1: a fixed split); the first one is the default
    description: str
    default_for: tuple[str, ...] = ()  # tasks whose usual corpus this is
    select_by: Mapping[str, str] = field(default_factory=dict)  # task -> metric that chooses the best step
    make_demo: Callable[..., None] | None = None  # make_demo(folder, *, seed, scale): a miniature in the official layout
    where: str = ""  # where the data come from, and what to do to get them
    is_file: bool = False  # the root is a file (a manifest), not a folder
    test: str = "test"  # the split that a table of several tasks is about

    @property
    def default_protocol(self) -> str:
        """The protocol of the bare command."""
        return next(iter(self.protocols))

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The reader's own options: keywords of its function beside protocol and fold."""
        parameters = inspect.signature(self.read).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in {"root", "protocol", "fold"}}


_READERS: dict[str, Reader] = {}  # corpus name -> reader
_MECHANISM = {
    "base",
    "batch",
    "audio",
    "check",
    "demo",
    "folds",
    "locate",
    "memory",
    "superb_order",
    "table",
    "transcripts",
}  # files of this folder that are no corpus


def register_corpus(reader: Reader) -> Reader:
    """Add a reader to the table; a corpus file calls it once at its end."""
    known = _READERS.get(reader.name)
    if known is not None and known.read.__module__ != reader.read.__module__:
        places = f"{known.read.__module__} and in {reader.read.__module__}"
        raise UserError(f"Expected another name for a corpus than '{reader.name}', found it in {places}. Rename one.")
    _READERS[reader.name] = reader
    return reader


def registered_corpora() -> dict[str, Reader]:
    """Return the table of readers by name: each file of this folder that is not mechanism holds one, and others were typed."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in _MECHANISM:
            importlib.import_module(f"headwater.corpus.{module.name}")
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
