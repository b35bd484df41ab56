"""QUESST 2014: spoken queries, and documents to search for them (MediaEval, query by example)."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.quesst14 import make_demo
from ..folds import check_fold, compare_counts
from ..locate import find_inside, is_demo

PROTOCOLS = {"superb": 1, "all": 1}  # English alone, as SUPERB has it; all six languages
ENGLISH = "nnenglish"
SPLITS = {"dev": "dev", "test": "eval"}  # ours -> the release's
DOCUMENTS = "documents"
_EXPECTED = {"documents": 12492, "dev queries": 560, "eval queries": 555}
_SOURCE = "https://speech.fit.vutbr.cz/files/quesst14Database.tgz"


def read(root: str | Path, *, protocol: str = "superb", fold: int | None = None) -> Corpus:
    """Return the documents and the queries of both splits; a split's tables say which documents hold which query.

    With the protocol superb the queries and documents of other languages are not searched; the tables still have them,
    because the official scorer counts them.
    """
    check_fold("quesst14", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_lists, "QUESST 2014", "the folders Audio and scoring (with language_key_utterances.lst)")
    lists = {split: _read_list(folder, name) for split, name in {DOCUMENTS: "utterances", **SPLITS}.items()}
    splits = {
        split: tuple(row for row in rows if protocol == "all" or row.labels["language"] == ENGLISH)
        for split, rows in lists.items()
    }
    _refuse_missing(folder, splits)
    notes: tuple[str, ...] = ()
    if not is_demo(folder):
        counts = {name: len(rows) for name, rows in zip(_EXPECTED, lists.values(), strict=True)}
        notes = compare_counts("QUESST 2014", counts, _EXPECTED)
    names = {split: [row.id for row in rows] for split, rows in lists.items()}
    tables = {
        split: {
            "targets": _read_targets(folder, split, names),
            "all_queries": names[split],
            "all_documents": names[DOCUMENTS],
        }
        for split in SPLITS
    }
    return Corpus("quesst14", protocol, None, splits, notes=notes, split_tables=tables)


def _has_lists(folder: Path) -> bool:
    return (folder / "scoring" / "language_key_utterances.lst").is_file()


def _read_list(folder: Path, name: str) -> list[Utterance]:
    """Return the utterances of one list: the file below the release's folder, and its language."""
    path = folder / "scoring" / f"language_key_{name}.lst"
    found = []
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if len(words) != 2 or "/" not in words[0]:
            raise UserError(
                f"Expected `FOLDER/FILE LANGUAGE` in each line of {path}, found '{line}' in line {number}. "
                "Unpack the archive again."
            )
        place = folder / words[0].partition("/")[2]  # the first part is the release's own folder
        found.append(Utterance(place.stem, str(place), labels={"language": words[1]}))
    if not found:
        raise UserError(f"Expected files in {path}, found an empty list. Unpack the archive again.")
    return found


def _read_targets(folder: Path, split: str, names: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Return query -> the documents that hold it, of the split's ground truth."""
    name = f"quesst14_{SPLITS[split]}"
    path = folder / "scoring" / f"groundtruth_{name}" / f"{name}.rttm"
    documents, queries = {*names[DOCUMENTS]}, {*names[split]}
    found: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if words[0] != "LEXEME":
            continue
        if len(words) < 6 or words[1] not in documents or words[5] not in queries:
            raise UserError(
                f"Expected `LEXEME DOCUMENT 1 BEGIN SECONDS QUERY` with names of the lists in {path}, found '{line}' in line "
                f"{number}. Unpack the archive again."
            )
        if words[1] not in found.setdefault(words[5], []):
            found[words[5]].append(words[1])
    return {query: tuple(held) for query, held in found.items()}


def _lines(path: Path) -> list[str]:
    """Return the lines of a file of the release that are not empty."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as problem:
        found = getattr(problem, "strerror", None) or "text that is no UTF-8"
        raise UserError(f"Expected a list of QUESST 2014 at {path}, found: {found}. Unpack the archive again.") from None


def _refuse_missing(folder: Path, splits: dict[str, tuple[Utterance, ...]]) -> None:
    for split, rows in splits.items():
        if not rows:
            raise UserError(f"Expected {split} of language {ENGLISH} in {folder}, found none. Choose -o corpus.protocol=all")
    missing = [row.audio for rows in splits.values() for row in rows if not Path(row.audio).is_file()]
    if missing:
        raise UserError(
            f"Expected the files of the lists in {folder}, found {len(missing)} missing, the first: {missing[0]}. "
            "Unpack the archive again."
        )


register_corpus(
    Reader(
        name="quesst14",
        read=read,
        has_layout=_has_lists,
        tasks=("qbe",),
        default_for=("qbe",),
        protocols=PROTOCOLS,
        make_demo=make_demo,
        train=DOCUMENTS,
        description="six languages, 8 kHz: spoken queries, and documents to find them in; 12,492 documents, 560 + 555 queries",
        where=f"{_SOURCE} (for research): the folder quesst14Database with Audio, dev_queries, eval_queries and scoring",
    )
)
