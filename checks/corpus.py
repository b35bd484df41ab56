"""The contract tests of a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..core.errors import UserError
from ..corpus.audio import check_files
from ..corpus.base import Corpus, Reader, Utterance
from ..corpus.demo.make import demo_root
from ..corpus.locate import find_root
from ..downstream.labels import LabelsConfig
from ..downstream.load import list_tasks, load_task
from .base import Failed


@dataclass(frozen=True)
class Reading:
    """A corpus with how it was read."""

    reader: Reader
    read: Callable[..., Corpus]  # of protocol and fold
    corpus: Corpus

    @property
    def rows(self) -> list[Utterance]:
        """All utterances."""
        return [row for rows in self.corpus.splits.values() for row in rows]


def reading(reader: Reader, data: str | None = None, options: dict[str, Any] | None = None) -> Reading:
    """Return a corpus with what its contract tests need: its data, or its miniature where it has one and none are named."""
    if data is None and reader.make_demo is None:
        raise UserError(f"Expected data for the corpus '{reader.name}', found none. Add --data FOLDER.")
    root = demo_root(reader, scale=1.0) if data is None else find_root(reader, data)
    read = partial(reader.read, root, **(options or {}))
    return Reading(reader, read, read(protocol=reader.default_protocol, fold=1))


def splits_are_there(subject: Reading) -> None:
    """There are splits train (of a corpus to search: documents) and dev with utterances in them, and one to test."""
    counts, train = {name: len(rows) for name, rows in subject.corpus.splits.items()}, subject.reader.train
    others = [name for name, count in counts.items() if name not in (train, "dev") and count]
    if not (counts.get(train) and counts.get("dev") and others):
        raise Failed(
            f"Expected utterances in {train}, dev and test, found {counts}. See headwater.corpus.folds for ways to split."
        )


def ids_are_unique(subject: Reading) -> None:
    """No two utterances have the same id, and each is in one split."""
    twins = [name for name, count in Counter(row.id for row in subject.rows).items() if count > 1]
    if twins:
        raise Failed(
            f"Expected an id for each utterance, found {len(twins)} used twice ('{twins[0]}'). Put the folder into the id."
        )


def speakers_are_apart(subject: Reading) -> None:
    """No speaker is in two splits, unless speakers are the labels."""
    if "sid" in subject.reader.tasks:
        return
    split_of: dict[str, str] = {}
    for split, rows in subject.corpus.splits.items():
        for row in (row for row in rows if row.speaker):
            if split_of.setdefault(str(row.speaker), split) != split:
                raise Failed(
                    f"Expected each speaker in one split, found '{row.speaker}' in {split_of[str(row.speaker)]} and {split}: "
                    "scores would flatter. Use split_by_speaker of headwater.corpus.folds."
                )


def files_can_be_read(subject: Reading) -> None:
    """Every file is there, and the stretch of it can be read."""
    _, broken = check_files(subject.rows)
    if broken:
        raise Failed(f"Expected audio for all {len(subject.rows)} utterances, found {len(broken)} without ({broken[0]}).")


def labels_are_there(subject: Reading) -> None:
    """Every task that it serves finds its labels."""
    known = list_tasks()
    for name in (name for name in subject.reader.tasks if name in known):
        task = load_task(name)
        options = task.options()
        question = task.question(options)
        vocabulary = question.make_vocabulary(options, LabelsConfig(), subject.corpus)
        for split in ("train", "dev"):
            if not question.select(vocabulary, subject.corpus.splits[split]):
                raise Failed(
                    f"Expected utterances with a target of {name} in {split}, found none. Set Utterance.labels in read()."
                )


def folds_can_be_read(subject: Reading) -> None:
    """Every protocol can be read, its last fold too, and is not the first one."""
    for protocol, folds in subject.reader.protocols.items():
        first, last = (subject.read(protocol=protocol, fold=fold) for fold in (1, folds))
        if folds > 1 and [row.id for row in first.splits["test"]] == [row.id for row in last.splits["test"]]:
            raise Failed(
                f"Expected other test utterances in fold {folds} of {protocol} than in fold 1, found the same. Use `fold`."
            )


def read_twice_it_is_the_same(subject: Reading) -> None:
    """Read twice it is the same, in the same order."""
    again = subject.read(protocol=subject.reader.default_protocol, fold=1)
    if again.splits != subject.corpus.splits:
        raise Failed("Expected the same utterances in the same order, found others. Sort the files, draw nothing without a seed.")


def it_has_its_name(subject: Reading) -> None:
    """It says its name, its protocol, and what it is."""
    found = (subject.corpus.name, subject.corpus.protocol)
    wanted = (subject.reader.name, subject.reader.default_protocol)
    if found != wanted or not subject.reader.description:
        raise Failed(f"Expected name and protocol {wanted} in the Corpus, and Reader(description=…), found {found}.")


CHECKS: Sequence[Callable[[Reading], None]] = (
    it_has_its_name,
    splits_are_there,
    ids_are_unique,
    speakers_are_apart,
    files_can_be_read,
    labels_are_there,
    folds_can_be_read,
    read_twice_it_is_the_same,
)
