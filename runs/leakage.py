"""Detect leakage: what a run is scored on, and was trained on itself, or in what it starts from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.run_folder import RunFolder
from ..corpus.base import Corpus, Utterance
from ..corpus.batch import Example
from ..corpus.overlap import alike_note, first_names, identical_files, shared_audio, shared_speakers
from ..downstream.base import Question
from ..plugins.registry import SECTIONS
from .config.schema import RunConfig, TaskConfig, roles_of

FLATTERS, SAYS_LITTLE = ": scores flatter", ": their scores say little"


def caveats(notes: Sequence[str]) -> list[str]:
    """Return those of a run's notes without which its scores should not be read."""
    return [note for note in notes if note.endswith((FLATTERS, SAYS_LITTLE))]


def utterance_key(corpus: str, utterance: Utterance) -> str:
    """Return the key of an utterance: its id, which two tables may share; there, the file and its stretch."""
    return f"{os.path.abspath(utterance.audio)} {utterance.start:g}" if corpus == "manifest" else utterance.id


def trained_utterances(trained: Mapping[str, Any], corpus: str) -> set[str]:
    """Return what a run (of one task, or of several) was trained on in a corpus: utterances, or whole sessions."""
    return {
        name for part in parts_of(trained) if part["corpus"] == corpus for name in (*part["heard"], *part.get("sessions", ()))
    }


def parts_of(trained: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what each task of a run was trained on."""
    return [trained] if "heard" in trained else [*trained.values()]


def count_trained(known: set[str], corpus: str, rows: Sequence[Utterance]) -> int:
    """Return how many utterances are among those that were trained on."""
    return sum(utterance_key(corpus, row) in known or row.session in known for row in rows)


def leakage_notes(
    config: RunConfig, task: TaskConfig, corpus: Corpus, splits: Mapping[str, Sequence[Example]]
) -> tuple[str, ...]:
    """Return a note for each part that a task starts from and that was trained on utterances which are to score it."""
    starts: dict[str, list[Path]] = {}
    for role, section in roles_of(config, task).items():
        starts[f"the {'text ' * (role == 'text')}upstream '{section.name}'"] = upstream_runs(section.path or section.name, role)
    if task.init_head:
        starts[f"the head of '{task.init_head}'"] = head_runs(task.init_head)
    notes = []
    for what, folders in starts.items():
        trained = [RunFolder(folder).read().trained_on() for folder in folders if has_comparable_ids(folder, corpus)]
        known = {name for each in trained for name in trained_utterances(each, corpus.name)}
        tested = {split: [row.utterance for row in rows] for split, rows in splits.items() if split != "train"}
        counts = {split: count_trained(known, corpus.name, rows) for split, rows in tested.items()}
        seen = " and ".join(f"{count} of the {len(tested[split])} {split} utterances" for split, count in counts.items() if count)
        notes += [f"{what} was trained on {seen}{SAYS_LITTLE}"] * bool(seen)
    return tuple(notes)


def sharing_notes(question: Question, splits: Mapping[str, Sequence[Example]], *, opens_audio: bool) -> tuple[str, ...]:
    """Return a note for each split to test whose speakers or files are in train or dev, unless the question is about that."""
    rows = {split: [example.utterance for example in examples] for split, examples in splits.items()}
    chosen = [row for split in ("train", "dev") for row in rows.get(split, ())]
    tested = {split: found for split, found in rows.items() if split not in ("train", "dev")}
    every = [row.audio for found in rows.values() for row in found] if opens_audio and tested else []
    names, notes = first_names(identical_files(every)), list[str]()
    for split, found in tested.items():
        speakers = set() if "speakers" in question.shares else shared_speakers(found, chosen)
        spoken = [row for row in found if row.speaker in speakers]
        if spoken:
            some = ", ".join(sorted(speakers)[:3]) + ", …" * (len(speakers) > 3)
            notes.append(
                f"{len(spoken)} of the {len(found)} {split} utterances are by speakers of train or dev ({some}){FLATTERS}"
            )
        same = shared_audio(found, chosen, names, stretches="recordings" in question.shares) if opens_audio else []
        if same:
            notes.append(
                f"{len(same)} of the {len(found)} {split} utterances are of files that are in train or dev too, by name or by "
                f"content (the first: {same[0].id}){FLATTERS}"
            )
    return tuple(notes)


def label_notes(vocabulary: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a note about classes that nearly have the same name, and how to make them one."""
    note = alike_note(map(str, vocabulary.get("classes") or ()))
    return (f"{note}. Make them one with -o labels.merge='{{ONE: OTHER}}'",) if note else ()


def has_comparable_ids(folder: Path, corpus: Corpus) -> bool:
    """Return whether a run lists what it was trained on, and that was a demo where the corpus is one: there ids are made up."""
    run = RunFolder(folder)
    return run.trained_on.is_file() and ("DEMO" in run.read().identity("marks")["marks"]) == corpus.demo


def upstream_runs(name: str, role: str) -> list[Path]:
    """Return the runs that finetuned an upstream of a role, one after the other; a frozen one was not trained."""
    found: list[Path] = []
    seen: set[Path] = set()
    folder = Path(name).expanduser()
    while is_run(folder) and folder not in seen:
        seen.add(folder)
        section = RunFolder(folder).read().config().get(SECTIONS[role]) or {}
        found += [folder] * bool(section.get("trainable"))
        folder = Path(section.get("path") or section.get("name") or "").expanduser()
    return found


def head_runs(name: str) -> list[Path]:
    """Return the runs that trained a head, one after the other; of several tasks all that theirs started from."""
    found: list[Path] = []
    open_folders = [Path(name).expanduser()]
    while open_folders:
        folder = open_folders.pop(0)
        if not is_run(folder) or folder in found:
            continue
        found.append(folder)
        recipe = RunFolder(folder).read().config()
        heads = [section.get("init_head") for section in (recipe, *(recipe.get("tasks") or {}).values())]
        open_folders += [Path(head).expanduser() for head in heads if head]
    return found


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's."""
    run = RunFolder(folder)
    return folder != Path() and run.config.is_file() and run.identity.is_file()
