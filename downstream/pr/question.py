"""Phone recognition as a question: which phones are said, and the share of them that is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import UserError
from ...corpus.base import Corpus, Utterance
from ..answer import Text
from ..base import Outcome, Question, Tables
from ..ctc import left_out
from ..labels import LabelsConfig, refuse_classes
from ..spelling import error_rates, unseen_tokens
from .lexicon import read_lexicon
from .phones import arpabet, missing_words, phones_of, words_of

COLUMN = "phones"  # of a table
_MOST_NAMED = 5  # missing words
_SOURCES = (
    "Name a column of phones with a space between them (-o labels.column=HEADER; one called 'phones' is found), or a lexicon of "
    "the transcripts' words (-o pr.lexicon=FILE: CMUdict's, or LibriSpeech's two -g2p.txt of "
    "https://huggingface.co/datasets/s3prl/g2p in the corpus' folder)"
)
_OWN = "Write them into a lexicon of your own and name both: -o pr.lexicon='[LEXICON, MINE]'"
_TESTED = "Name a column of phones: -o labels.column=HEADER"


def make_vocabulary(options: Any, labels: LabelsConfig, corpus: Corpus) -> dict[str, Any]:
    """Return the phones of a run, and where an utterance's come from: a column, or the lexicon's entries for its words."""
    refuse_classes("pr", labels, "phones", allowed=("column",))
    column, lexicon = source_of(options, labels, corpus)
    vocabulary: dict[str, Any] = {"phones": [], "column": column, "lexicon": lexicon, "stress": options.stress}
    require_phones(vocabulary, corpus, ("train", "dev"), _SOURCES, _OWN)
    found = sorted({phone for row in corpus.splits["train"] for phone in (phones_of(vocabulary, row) or "").split()})
    if options.phones == "found":
        return {**vocabulary, "phones": found}
    known = arpabet(options.stress)
    strange = [phone for phone in found if phone not in known]
    if strange:
        raise UserError(
            f"Expected phones of ARPAbet in {corpus.name} (pr.phones=arpabet), found '{strange[0]}'"
            f"{f' and {len(strange) - 1} more' * (len(strange) > 1)}. Take those that are there: -o pr.phones=found"
        )
    return {**vocabulary, "phones": known}


def source_of(options: Any, labels: LabelsConfig, corpus: Corpus) -> tuple[str | None, dict[str, str]]:
    """Return the column that holds a corpus' phones, or else the pronunciation of each of its words that a lexicon has."""
    rows = [row for split in corpus.splits.values() for row in split]
    files = options.lexicon or []
    if files and labels.column:
        raise UserError(
            f"Expected phones from a column or from a lexicon, found labels.column={labels.column} beside pr.lexicon. "
            "Leave one of them out."
        )
    column = labels.column or (COLUMN if not files and any(COLUMN in row.labels for row in rows) else None)
    files = ([files] if isinstance(files, str) else files) or corpus.tables.get("lexicon", [])
    if column is None and not files:
        there = ", ".join(sorted({key for row in rows for key in row.labels})) or "none"
        found = f"neither a column 'phones' (columns there: {there}) nor a lexicon"
        raise UserError(f"Expected phones of {corpus.name}, found {found}. {_SOURCES}.")
    if column is not None:
        return column, {}
    lexicon, words = read_lexicon(files), {word for row in rows for word in words_of(row) or ()}
    return None, {word: lexicon[word] for word in sorted(words & lexicon.keys())}


def require_phones(vocabulary: Mapping[str, Any], corpus: Corpus, splits: Sequence[str], advice: str, of_words: str) -> None:
    """Refuse a split in which no utterance has phones, and say why none has."""
    for split in splits:
        rows = corpus.splits.get(split, ())
        if any(phones_of(vocabulary, row) for row in rows):
            continue
        missing = missing_words(vocabulary["lexicon"], rows)
        found, next_move = "none", advice
        if vocabulary["column"] is not None:
            there = ", ".join(sorted({key for row in rows for key in row.labels})) or "none"
            found = f"none in column '{vocabulary['column']}' (columns there: {there})"
        elif missing:
            next_move = of_words
            found = f"none whose words are all in the lexicon (not in it: {listed(missing)})"
        elif rows and all(row.text is None for row in rows):
            found = "no transcripts to look up in the lexicon"
        raise UserError(f"Expected phones of utterances in split '{split}' of {corpus.name}, found {found}. {next_move}.")


def listed(missing: Mapping[str, int]) -> str:
    """Return words, the most frequent first, as part of a sentence."""
    first = sorted(missing, key=lambda word: (-missing[word], word))[:_MOST_NAMED]
    return f"{len(missing)} word{'s' * (len(missing) > 1)}: {', '.join(first)}{' …' * (len(missing) > _MOST_NAMED)}"


def select(vocabulary: Mapping[str, Any], utterances: Sequence[Utterance]) -> list[Utterance]:
    """Return the utterances whose phones are known."""
    return [row for row in utterances if phones_of(vocabulary, row) is not None]


def target(vocabulary: Mapping[str, Any], utterance: Utterance) -> str:
    """Return the phones of an utterance: they get their numbers in the loss."""
    phones = phones_of(vocabulary, utterance)
    assert phones is not None, f"'{utterance.id}' has no phones: select() leaves such utterances out"
    return phones


def notes(vocabulary: Mapping[str, Any], splits: Mapping[str, Sequence[Utterance]]) -> tuple[str, ...]:
    """Return a note that counts the utterances without phones, with the words that are in no lexicon."""
    counts, left = left_out(splits, lambda row: phones_of(vocabulary, row) is not None)
    if not left:
        return ()
    missing = missing_words(vocabulary["lexicon"], left)
    if vocabulary["column"] is not None:
        return (f"left out, nothing in column '{vocabulary['column']}': {counts} (the first: {left[0].id})",)
    if not missing:
        return (f"left out, no transcript: {counts} (the first: {left[0].id})",)
    return (f"left out, since a word is not in the lexicon: {counts}. {listed(missing)}. {_OWN}",)


def answer(vocabulary: Mapping[str, Any]) -> Text:
    """Return phones with a space between them as the kind of answer."""
    return Text(tuple(vocabulary["phones"]), "phones", "pronunciation")


def score(_: Mapping[str, Any], outcome: Outcome, __: Tables) -> dict[str, float]:
    """Return the phone error rate of a whole split: phones are to a pronunciation what words are to a text."""
    return {"per": error_rates(outcome.references, outcome.predictions)["wer"]}


def details(vocabulary: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    """Return which phones of a split no prediction can have."""
    return unseen_tokens("phones", vocabulary["phones"], " ".join(outcome.references).split())


def adapt(vocabulary: Mapping[str, Any], labels: LabelsConfig, corpus: Corpus) -> tuple[dict[str, Any], str]:
    """Return the run's vocabulary with where another corpus' phones come from: its own column or lexicon, else the run's."""
    refuse_classes("pr", labels, "phones", allowed=("column",))
    rows = [row for split in corpus.splits.values() for row in split]
    column = labels.column or (COLUMN if any(COLUMN in row.labels for row in rows) else None)
    files = corpus.tables.get("lexicon", [])
    own = read_lexicon(files) if files and column is None else {}
    words = {word for row in rows for word in words_of(row) or ()}
    lexicon = {**vocabulary["lexicon"], **{word: own[word] for word in sorted(words & own.keys() - vocabulary["lexicon"].keys())}}
    adapted = {**vocabulary, "column": column, "lexicon": lexicon}
    require_phones(adapted, corpus, [*corpus.splits], _TESTED, _TESTED)
    return adapted, f"phones of column '{column}'" if column else "phones of the transcripts' words"


QUESTION = Question(
    name="pr",
    metrics={"per": "lower"},
    primary_metric="per",
    make_vocabulary=make_vocabulary,
    select=select,
    target=target,
    answer=answer,
    score=score,
    adapt=adapt,
    notes=notes,
    details=details,
    label=False,
)
