"""A manifest: anybody's own data as a csv, tsv or jsonl table with one row for each utterance."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...core.errors import UserError
from ...core.files import expanded
from ..base import Corpus, Reader, Utterance, register_corpus
from ..folds import Splits, check_fold, choose_dev, deal, in_drawn_order, random_folds, split_by_speaker
from ..tables import Row, column_of, columns_option, likeliest, read_table, resolve_columns

# auto: the table's own split column, else speaker5, else random5
PROTOCOLS = {"auto": 5, "split": 1, "speaker5": 5, "random5": 5, "all_test": 1}
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def read(
    root: str | Path,
    *,
    protocol: str = "auto",
    fold: int | None = None,
    columns: Mapping[str, str] | None = None,
    audio_root: str | None = None,
    label_required: bool = True,
    missing_label: Literal["refuse", "drop"] = "refuse",
    splits_required: bool = True,
) -> Corpus:
    """Return the table's utterances; its label column becomes the label `label`, other columns keep their names.

    `columns` maps what is needed (audio, label, speaker, …) to the table's headers. Paths are relative to
    `audio_root`, or to the table's folder. Without `splits_required` a table that makes no train and test is all one split.
    """
    number = check_fold("manifest", PROTOCOLS, protocol, fold)
    path = expanded(root)
    headers, rows = read_table(path)
    needed = ("audio", "label") if label_required else ("audio",)
    names = resolve_columns(headers, columns or {}, needed, path)
    rows, dropped = _labelled(rows, names, path) if label_required and missing_label == "drop" else (rows, ())
    ratings = {} if label_required else _ratings(headers, names, rows[0])
    names |= ratings
    base = expanded(audio_root) if audio_root else path.parent
    utterances = [_utterance(row, names, needed, base, path) for row in rows]
    if not label_required:
        utterances = [_rated(utterance, row, names, path) for utterance, row in zip(utterances, rows, strict=True)]
    _refuse_twins(utterances, rows, path)
    classes = sorted({str(utterance.labels["label"]) for utterance in utterances if "label" in utterance.labels}, key=_natural)
    lacks_classes = label_required and len(classes) < 2 and protocol != "all_test"
    if lacks_classes and splits_required:
        raise UserError(
            f"Expected at least two classes in column '{names['label']}' of {path}, found only '{classes[0]}'.{_HINT}"
        )
    chosen = _choose(protocol, names, utterances, splits_required)
    if chosen == "split":
        _refuse_other_folds(number, path)
        number = None
    splits, notes = _split(chosen, utterances, rows, names, number or 1, path, splits_required)
    notes += dropped
    if lacks_classes:
        notes += (f"only one class, '{classes[0]}': nothing can be trained on this table alone.{_HINT}",)
    if chosen == "all_test" != protocol:
        number, notes = None, (*notes, f"fewer than {_FEWEST_SPEAKERS} speakers make no folds: all rows are one split")
    if chosen == "random5" and "speaker" not in names:
        notes += (_no_speakers(headers, names),)
    notes += _unused_columns(headers, names)
    if any(key != header for key, header in ratings.items()):
        notes += (f"ratings: {', '.join(f'{key} is column {header}' for key, header in ratings.items())}",)
    order = {"label": tuple(classes)} if classes else {}
    return Corpus("manifest", chosen, number, splits, label_order=order, notes=notes)


_HINT = " Add rows of another class, or name another column: -o corpus.options.columns.label=HEADER"


def _labelled(rows: Sequence[Row], names: Mapping[str, str], path: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Return the rows that have a label, and a note that counts the others."""
    kept = [row for row in rows if _cell(row, names, "label") is not None]
    if not kept:
        raise UserError(f"Expected a label in column '{names['label']}' of {path}, found none in any row. Fill it in.")
    left = [row.number for row in rows if _cell(row, names, "label") is None]
    return kept, (f"{len(left)} of {len(rows)} rows left out: no label (the first: row {left[0]})",) if left else ()


_RATINGS = ("arousal", "valence", "dominance")
_OF_LABELS = (*_RATINGS, "device", "lang")  # known columns that stay labels, under these names
_OPTIONAL = ("text", "device", "lang")


def _ratings(headers: Sequence[str], names: Mapping[str, str], first: Row) -> dict[str, str]:
    """Return the columns that must be ratings though they have another name: an `act` of words is none."""
    free = [header for header in headers if header not in names.values()]
    found = {key: column_of(key, free) for key in _RATINGS if key not in names}
    return {key: header for key, header in found.items() if header is not None and _is_number(first.values.get(header))}


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _rated(utterance: Utterance, row: Row, names: Mapping[str, str], path: Path) -> Utterance:
    """Return the utterance with its ratings as numbers; an empty cell is no rating."""
    values = {key: _number(row, names, key, path, "a number") for key in _RATINGS}
    ratings = {key: value for key, value in values.items() if value is not None}
    return replace(utterance, labels={**utterance.labels, **ratings}) if ratings else utterance


def _unused_columns(headers: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return a note about unused columns that look useful: a text is none unless it is called so."""
    free = [header for header in headers if header not in names.values()]
    found = {key: column_of(key, free) for key in _OPTIONAL if key not in names}
    likely = {key: header for key, header in found.items() if header is not None}
    return (f"columns that are not used, but could be: -o {columns_option(likely)}",) if likely else ()


def _cell(row: Row, names: Mapping[str, str], key: str) -> str | None:
    value = row.values.get(names[key]) if key in names else None  # "" is a header, too: pandas' index has it
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _number(row: Row, names: Mapping[str, str], key: str, path: Path, what: str = "seconds") -> float | None:
    word = _cell(row, names, key)
    try:
        value = None if word is None else float(word)
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise UserError(
            f"Expected {what} in column '{names[key]}', found '{word}' in row {row.number} of {path}. Write such as 1.25."
        )
    return value


def _utterance(row: Row, names: Mapping[str, str], needed: Sequence[str], base: Path, path: Path) -> Utterance:
    for key in needed:
        if _cell(row, names, key) is None:
            drop = (
                ", or leave out all such rows: -o corpus.options.missing_label=drop" if key == "label" else ", or remove the row."
            )
            raise UserError(
                f"Expected a value in column '{names[key]}', found none in row {row.number} of {path}. Fill it in{drop}"
            )
    start, end = _number(row, names, "start", path) or 0.0, _number(row, names, "end", path)
    audio = _cell(row, names, "audio") or ""
    if start < 0 or (end is not None and end <= start):
        raise UserError(
            f"Expected 0 <= start < end, found start {start:g} and end {end} in row {row.number} of {path}. Mend the row."
        )
    labels: dict[str, Any] = {
        header: value
        for header, value in row.values.items()
        if header and header not in names.values() and value not in (None, "")
    }
    if _cell(row, names, "label") is not None:
        label = row.values[names["label"]]
        if isinstance(label, (dict, list)) or label != label:  # of json; NaN alone differs from itself
            raise UserError(
                f"Expected a word or a number in column '{names['label']}', found {str(label)[:40]} in row {row.number} "
                f"of {path}. Write what the utterance is."
            )
        labels["label"] = label.strip() if isinstance(label, str) else label
    labels |= {key: row.values[names[key]] for key in _OF_LABELS if _cell(row, names, key) is not None}
    return Utterance(
        id=_cell(row, names, "id")
        or (audio if not start and end is None else f"{audio}#{start:g}-{'' if end is None else f'{end:g}'}"),
        audio=str(base / expanded(audio)),
        start=start,
        duration=None if end is None else end - start,
        text=_cell(row, names, "text"),
        speaker=_cell(row, names, "speaker"),
        session=_cell(row, names, "session"),
        labels=labels,
    )


def _refuse_twins(utterances: Sequence[Utterance], rows: Sequence[Row], path: Path) -> None:
    seen: dict[str, int] = {}
    for utterance, row in zip(utterances, rows, strict=True):
        if utterance.id in seen:
            raise UserError(
                f"Expected every utterance once, found '{utterance.id}' in rows {seen[utterance.id]} and {row.number} of {path}. "
                "Remove one, or give each its own id."
            )
        seen[utterance.id] = row.number


def _choose(protocol: str, names: Mapping[str, str], utterances: Sequence[Utterance], required: bool) -> str:
    if protocol != "auto":
        return protocol
    if "split" in names:
        return "split"
    if not all(utterance.speaker for utterance in utterances):
        return "random5"
    return "speaker5" if required or len({utterance.speaker for utterance in utterances}) >= _FEWEST_SPEAKERS else "all_test"


_FEWEST_SPEAKERS = 5  # of five folds


def _refuse_other_folds(fold: int | None, path: Path) -> None:
    if fold not in (None, 1):
        raise UserError(
            f"Expected one fold, found fold {fold} of {path}, whose own column of splits decides. "
            "Leave out the fold, or choose -o corpus.protocol=speaker5."
        )


def _split(
    protocol: str,
    utterances: Sequence[Utterance],
    rows: Sequence[Row],
    names: Mapping[str, str],
    fold: int,
    path: Path,
    required: bool,
) -> tuple[Splits, tuple[str, ...]]:
    if protocol == "split":
        return _own_split(utterances, rows, names, path, required)
    if protocol == "all_test":
        return {"test": tuple(utterances)}, ()
    if protocol == "random5":
        return random_folds(utterances, fold, count=5), ()
    speakers = in_drawn_order(utterance.speaker or "" for utterance in utterances)
    if "" in speakers:
        missing = next(row.number for utterance, row in zip(utterances, rows, strict=True) if not utterance.speaker)
        raise UserError(
            f"Expected a speaker in every row for protocol speaker5, found none in row {missing} of {path}. "
            "Name the column (-o corpus.options.columns.speaker=HEADER), or choose -o corpus.protocol=random5."
        )
    if len(speakers) < _FEWEST_SPEAKERS:
        raise UserError(
            f"Expected at least 5 speakers for 5 folds, found {len(speakers)} in {path}. "
            "Add a column 'split', or choose -o corpus.protocol=random5."
        )
    return split_by_speaker(utterances, deal(speakers, 5), fold), ()


def _own_split(
    utterances: Sequence[Utterance], rows: Sequence[Row], names: Mapping[str, str], path: Path, required: bool
) -> tuple[Splits, tuple[str, ...]]:
    if "split" not in names:
        raise UserError(
            f"Expected a column of splits in {path} for protocol split, found none. "
            "Name it: -o corpus.options.columns.split=HEADER"
        )
    splits: dict[str, list[Utterance]] = {}
    for utterance, row in zip(utterances, rows, strict=True):
        word = str(row.values.get(names["split"]) or "").strip()
        if not word:
            raise UserError(
                f"Expected train, dev or test in column '{names['split']}', found nothing in row {row.number} of {path}."
            )
        name = _SPLIT_NAMES.get(word.lower()) or _own_name(word, row, path)
        splits.setdefault(name, []).append(utterance)
    tested = any(name.startswith("test") for name in splits)  # test1 and test2 are as good
    missing = ([] if "train" in splits else ["train"]) + ([] if tested else ["test"])
    if missing and required:
        counts = ", ".join(f"{name} ({len(found)})" for name, found in splits.items())
        raise UserError(
            f"Expected rows of split '{missing[0]}' in {path}, found {counts}. "
            "Add them, leave the column out for folds, or evaluate all rows with -o corpus.protocol=all_test."
        )
    frozen: Splits = {name: tuple(splits[name]) for name in sorted(splits, key=_place)}
    if "dev" in frozen or "train" in missing or len(frozen["train"]) < 2:
        return frozen, ()
    parts, note = choose_dev(frozen["train"])
    return {**parts, **{name: found for name, found in frozen.items() if name not in parts}}, (note,)


def _place(split: str) -> int:
    """Return where a split stands among others: train and dev first, then tests in the table's order."""
    return {"train": 0, "dev": 1}.get(split, 2)


def _own_name(word: str, row: Row, path: Path) -> str:
    """Return a split's name that is not one of ours, unless it was meant to be one."""
    if word.lower().startswith(("train", "dev", "val", "test")):  # test2, dev-other
        return word
    close = difflib.get_close_matches(word.lower(), _SPLIT_NAMES, n=1, cutoff=0.75)
    if close:
        found = f"found '{word}' in row {row.number} of {path}"
        raise UserError(f"Expected train, dev or test, {found}. Did you mean '{close[0]}'?")
    return word


def _no_speakers(headers: Sequence[str], names: Mapping[str, str]) -> str:
    likely = likeliest("speaker", [header for header in headers if header not in names.values()])
    hint = f": -o {columns_option({'speaker': likely})}?" if likely else ""
    return f"no column of speakers, so folds are drawn over rows, and results flatter where speakers return{hint}"


def _natural(word: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", word) if part]


register_corpus(
    Reader(
        name="manifest",
        read=read,
        tasks=("emotion", "avd", "dsd", "ks", "sid", "asr", "ic", "pr", "sf", "asv"),
        protocols=PROTOCOLS,
        select_by={"emotion": "ua"},
        description="your own data: a csv, tsv or jsonl table with audio and label (and speaker, split, text, start, end)",
        where="write one: a row for each utterance, with the columns audio and label at least",
        is_file=True,
    )
)
