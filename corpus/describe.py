"""The texts of `headwater corpus check` and `headwater list corpora`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .audio import Broken
from .base import CORPORA, Corpus, Utterance
from .load import claimants, list_corpora
from .overlap import alike_note, shared_speakers

NO_SPEAKERS, NO_TEXTS = "speakers: not known", "texts: not known"
_SHOWN = 12  # speakers listed by name in a split; more are counted


def describe(
    corpus: Corpus, durations: Mapping[str, float], broken: Sequence[Broken], identical: Sequence[Sequence[str]] = ()
) -> str:
    """Return counts by split, class and speaker, hours, overlaps between splits, identical and broken files, and the notes."""
    fold = "" if corpus.fold is None else f", fold {corpus.fold}"
    lines = [f"{corpus.name}, protocol {corpus.protocol}{fold}"]
    for split, rows in corpus.splits.items():
        lines += ["", *_describe_split(split, rows, durations, corpus)]
    lines += ["", *overlaps] if (overlaps := _overlaps(corpus)) else []
    lines += ["", f"files of the same bytes: {len(identical)} groups", *_identical(corpus, identical)] if identical else []
    lines += ["", f"broken files: {len(broken)}", *(_broken(entry) for entry in broken)]
    lines += [f"note: {note}" for note in (*corpus.notes, *_alike(corpus))]
    return "\n".join(lines)


def _broken(entry: Broken) -> str:
    """Return a broken file's line; an utterance that is called as its file is named once."""
    return f"  {entry}" if entry.id == entry.audio else f"  {entry.id}  {entry}"


def _describe_split(split: str, rows: Sequence[Utterance], durations: Mapping[str, float], corpus: Corpus) -> list[str]:
    seconds = [durations[row.id] for row in rows if row.id in durations]
    spread = f", {min(seconds):.1f} to {max(seconds):.1f} s each" if seconds else ""
    lines = [f"{split}: {len(rows)} utterances, {sum(seconds) / 3600:.2f} h{spread}"]
    for key, order in corpus.label_order.items():
        counts = Counter(str(row.labels[key]) for row in rows if key in row.labels)
        lines.append(f"  {key}: {_listed(counts, [*order, *sorted(set(counts) - set(order))])}")
    speakers = Counter(row.speaker for row in rows if row.speaker)
    if speakers:
        more = f" and {len(speakers) - _SHOWN} more" if len(speakers) > _SHOWN else ""
        lines.append(f"  speakers: {len(speakers)}: {_listed(speakers, sorted(speakers)[:_SHOWN])}{more}")
    return lines


def _listed(counts: Mapping[str, int], order: Iterable[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in order if counts.get(name)) or "none"


def _overlaps(corpus: Corpus) -> list[str]:
    splits = list(corpus.splits.items())
    lines = []
    for position, (first, rows) in enumerate(splits):
        for second, others in splits[position + 1 :]:
            speakers = shared_speakers(rows, others)
            texts = {_plain(row) for row in rows if row.text} & {_plain(row) for row in others if row.text}
            share = sum(1 for row in others if row.text and _plain(row) in texts)
            of_these = f"{len(texts)} texts ({share} of the {len(others)} in {second})"
            both = (rows, others)
            of_people = f"{len(speakers)} speakers" if all(any(row.speaker for row in split) for split in both) else NO_SPEAKERS
            of_words = of_these if all(any(row.text for row in split) for split in both) else NO_TEXTS
            lines.append(f"{first} and {second} share {of_people}, {of_words}")
    return lines


def _identical(corpus: Corpus, groups: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each group of identical files, with the splits that each file is in."""
    places: dict[str, list[str]] = {}
    for split, rows in corpus.splits.items():
        for path in dict.fromkeys(row.audio for row in rows):
            places.setdefault(path, []).append(split)
    return ["  " + " = ".join(f"{path} ({', '.join(places[path])})" for path in group) for group in groups]


def _alike(corpus: Corpus) -> list[str]:
    """Return a note for each kind of label with classes that nearly have the same name."""
    rows = [row for split in corpus.splits.values() for row in split]
    found = {key: alike_note(sorted({str(row.labels[key]) for row in rows if key in row.labels})) for key in corpus.label_order}
    return [f"{key}: {note}" for key, note in found.items() if note]


def _plain(row: Utterance) -> str:
    """Return a text without case and punctuation: the same words are the same text."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in (row.text or "").lower()).split())


def table_of_corpora() -> str:
    """Return tasks x corpora, the protocols with their folds, and where the data go."""
    readers = list_corpora()
    tasks = sorted({task for reader in readers.values() for task in reader.tasks})
    width = max(len(name) for name in readers)
    lines = ["x: can serve the task, X: its usual corpus, demo: has a miniature (--demo)", ""]
    lines.append(" ".join([" " * width, *tasks, "demo"]))
    usual = {task: claimants(task) for task in tasks}
    for name, reader in readers.items():
        marks = ["X" if name in usual[task] else "x" if task in reader.tasks else "-" for task in tasks]
        cells = [f"{mark:{len(task)}}" for mark, task in zip(marks, tasks, strict=True)]
        lines.append(" ".join([f"{name:{width}}", *cells, "demo" if reader.make_demo else "-"]))
    for name, reader in readers.items():
        protocols = ", ".join(
            f"{protocol} ({folds} {'folds' if folds > 1 else 'split'})" for protocol, folds in reader.protocols.items()
        )
        place = "--data FILE" if reader.is_file else f"--data FOLDER, or $HEADWATER_DATA/{name}"
        lines += [
            "",
            f"{name}: {reader.description}",
            f"  protocols: {protocols}",
            f"  from: {reader.where}",
            f"  place: {place}",
        ]
    return "\n".join([*lines, *(f"\npassed over: {problem}" for problem in CORPORA.broken())])
