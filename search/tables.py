"""Queries and documents of one's own: tables, folders and files, and which document holds which query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core.errors import UserError
from ..core.files import expanded
from ..corpus.base import Corpus, Utterance
from ..corpus.folds import in_drawn_order
from ..corpus.tables import TABLES, column_of, likeliest, read_table
from ..inference.inputs import files_of

SEPARATOR = ";"  # between the terms of a document


def read_recordings(name: str) -> list[Utterance]:
    """Return the recordings that a table, a folder or a file stands for; of a table with its terms, speakers and splits."""
    path = expanded(name)
    if path.suffix.lower() not in TABLES:
        return [item if isinstance(item, Utterance) else Utterance(item, item) for item in files_of([name])]
    headers, rows = read_table(path)
    known = {key: column_of(key, headers) for key in ("speaker", "split", "text", "id")}
    audio = likeliest("audio", headers)
    terms = next((header for header in ("terms", "term") if header in headers), None)
    found = []
    for item, row in zip(files_of([name]), rows, strict=True):
        piece = item if isinstance(item, Utterance) else Utterance(item, item)
        cells = {key: str(row.values.get(header) or "").strip() for key, header in known.items() if header}
        held = _terms(str(row.values.get(terms) or "")) if terms else _words(cells["text"]) if cells.get("text") else ()
        stretch = f"#{piece.start:g}" if piece.start or piece.duration is not None else ""
        found.append(
            replace(
                piece,
                id=cells.get("id") or f"{row.values[audio or 'audio']}{stretch}",
                text=cells.get("text"),
                speaker=cells.get("speaker") or None,
                labels={"terms": held, "split": cells.get("split", ""), "has_terms": bool(terms or known["text"])},
            )
        )
    return found


def _terms(cell: str) -> tuple[str, ...]:
    return tuple(term for term in (" ".join(part.casefold().split()) for part in cell.split(SEPARATOR)) if term)


def _words(text: str) -> tuple[str, ...]:
    return (" ".join("".join(sign if sign.isalnum() or sign == "'" else " " for sign in text.casefold()).split()),)


def has_terms(recordings: Sequence[Utterance]) -> bool:
    """Return whether a table says what is spoken."""
    return any(row.labels.get("has_terms") for row in recordings)


def corpus_of(queries: Sequence[Utterance], documents: Sequence[Utterance]) -> Corpus:
    """Return two tables as a corpus to search: dev and test by the column split, else by terms."""
    silent = next((row for row in queries if not row.labels.get("terms")), None)
    if silent is not None:
        raise UserError(f"Expected a term for each query, found none for '{silent.id}'. Fill in the column 'term'.")
    _refuse_twins(queries, "query")
    _refuse_twins(documents, "document")
    splits, notes = _splits_of(queries)
    tables = {
        split: {"targets": {query.id: tuple(row.id for row in documents if _holds(row, query)) for query in rows}}
        for split, rows in splits.items()
    }
    return Corpus("tables", "", None, {"documents": tuple(documents), **splits}, notes=notes, split_tables=tables)


def _holds(document: Utterance, query: Utterance) -> bool:
    """Return whether a document's terms, or its text, have the first term of a query."""
    term, held = query.labels["terms"][0], document.labels.get("terms", ())
    return term in held or (len(held) == 1 and document.text is not None and f" {term} " in f" {held[0]} ")


def _refuse_twins(rows: Sequence[Utterance], what: str) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise UserError(f"Expected each {what} once, found '{row.id}' twice. Leave one out, or give each an id.")
        seen.add(row.id)


def _splits_of(queries: Sequence[Utterance]) -> tuple[dict[str, tuple[Utterance, ...]], tuple[str, ...]]:
    named = {str(row.labels.get("split") or "") for row in queries}
    if named <= {"dev", "test"}:
        return _parted(queries, [str(row.labels["split"]) for row in queries]), ()
    if named != {""}:
        strange = sorted(named - {"dev", "test"})[0]
        raise UserError(
            f"Expected dev or test in the column split of the queries, found '{strange}'. Mend it, or leave the column out."
        )
    order = in_drawn_order(row.labels["terms"][0] for row in queries)
    chosen = {*order[: len(order) // 2]}
    splits = _parted(queries, ["dev" if row.labels["terms"][0] in chosen else "test" for row in queries])
    if not chosen:
        return splits, ()
    return splits, (f"the queries have no column split: dev is {len(chosen)} of their {len(order)} terms, drawn at random",)


def _parted(queries: Sequence[Utterance], names: Sequence[str]) -> dict[str, tuple[Utterance, ...]]:
    """Return dev and test, where there are queries of them."""
    parts = {split: tuple(row for row, name in zip(queries, names, strict=True) if name == split) for split in ("dev", "test")}
    return {split: rows for split, rows in parts.items() if rows}


def target_matrix(queries: Sequence[str], documents: Sequence[str], targets: Mapping[str, Sequence[str]]) -> NDArray[np.bool_]:
    """Return which document (column) holds which query (row)."""
    place = {name: column for column, name in enumerate(documents)}
    matrix = np.zeros((len(queries), len(documents)), dtype=bool)
    for row, query in enumerate(queries):
        matrix[row, [place[name] for name in targets.get(query, ()) if name in place]] = True
    return matrix


def other_speakers(queries: Sequence[Utterance], documents: Sequence[Utterance]) -> NDArray[np.bool_]:
    """Return where query and document are not known to have one speaker: what somebody says twice is too easy to find."""
    speakers = np.array([row.speaker or "" for row in documents])
    return np.stack([(speakers != row.speaker) | (speakers == "") if row.speaker else speakers == speakers for row in queries])
