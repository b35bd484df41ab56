"""Utterances, corpora, and the readers that know a corpus' layout, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..plugins.registry import Registry


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
    release: str = ""  # by its counts: 1.10, or `unknown` where they are those of no release that the reader knows; "": one only
    tables: Mapping[str, Any] = field(default_factory=dict)  # of the whole corpus: a lexicon …
    scale: tuple[float, float] | None = None  # of ratings
    demo: bool = False  # a miniature, however it was named
    split_tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # split -> its own: trial lists, rttm …

    def tables_of(self, split: str) -> dict[str, Any]:
        """Return the tables that hold for a split: its own, and those of the whole corpus."""
        return {**self.tables, **self.split_tables.get(split, {})}


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
    protocol_of: Mapping[str, str] = field(default_factory=dict)  # task -> its protocol, where that is not the first one
    make_demo: Callable[..., None] | None = None  # make_demo(folder, *, seed, scale): a miniature in the official layout
    where: str = ""  # where the data come from, and what to do to get them
    has_layout: Callable[[Path], bool] | None = None  # whether a folder looks like this corpus
    is_file: bool = False  # the root is a file (a manifest), not a folder
    test: str = "test"  # the split that a table of several tasks is about
    train: str = "train"  # the split that is learned from; of a corpus to search, its documents

    @property
    def default_protocol(self) -> str:
        """The protocol of the bare command."""
        return next(iter(self.protocols))

    @property
    def options(self) -> dict[str, inspect.Parameter]:
        """The reader's own options: keywords of its function beside protocol and fold."""
        parameters = inspect.signature(self.read).parameters
        return {name: parameter for name, parameter in parameters.items() if name not in {"root", "protocol", "fold"}}


CORPORA: Registry[Reader] = Registry("corpus", "headwater.corpus.readers")


def register_corpus(reader: Reader) -> Reader:
    """Register a reader; a corpus file calls it once at its end."""
    return CORPORA.register(reader, reader.read.__module__, replaces=True)
