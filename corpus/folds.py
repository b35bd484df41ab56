"""How utterances become train, dev and test: by speaker where speakers are known, by a seeded draw where not."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..core.errors import UserError
from .base import Utterance

Splits = dict[str, tuple[Utterance, ...]]


def check_fold(corpus: str, protocols: Mapping[str, int], protocol: str, fold: int | None) -> int | None:
    """Return the fold, counted from 1; None where the protocol has one fixed split."""
    if protocol not in protocols:
        raise UserError(
            f"Expected a protocol of {corpus} ({', '.join(protocols)}), found '{protocol}'. "
            "Choose one with -o corpus.protocol=NAME."
        )
    folds = protocols[protocol]
    chosen = 1 if fold is None else fold
    if not 1 <= chosen <= folds:
        raise UserError(
            f"Expected a fold between 1 and {folds} ({corpus}, protocol {protocol}), found {fold}. Folds count from 1."
        )
    return chosen if folds > 1 else None


def in_drawn_order(names: Iterable[str], seed: int = 0) -> list[str]:
    """Return distinct names in an order drawn from the seed: the same on every machine, whatever order they came in.

    >>> in_drawn_order(["b", "a", "c"]) == in_drawn_order(["c", "b", "a"])
    True
    """
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def deal(names: Sequence[str], count: int) -> list[list[str]]:
    """Return the names dealt into so many groups of even size."""
    return [list(names[start::count]) for start in range(count)]


def split_by(utterances: Sequence[Utterance], keys: Sequence[str], *, dev: Collection[str], test: Collection[str]) -> Splits:
    """Return train, dev and test by each utterance's key (its speaker, its session, its id)."""
    names = ["test" if key in test else "dev" if key in dev else "train" for key in keys]
    rows = list(zip(names, utterances, strict=True))
    return {split: tuple(row for name, row in rows if name == split) for split in ("train", "dev", "test")}


def split_by_speaker(utterances: Sequence[Utterance], groups: Sequence[Collection[str]], fold: int) -> Splits:
    """Return fold k: test is the k-th group of speakers, dev the next one, train the others."""
    keys = [utterance.speaker or "" for utterance in utterances]
    return split_by(utterances, keys, dev=groups[fold % len(groups)], test=groups[fold - 1])


def random_folds(utterances: Sequence[Utterance], fold: int, count: int = 10, seed: int = 0) -> Splits:
    """Return fold k of folds drawn over utterances: speakers are in all splits, so results flatter."""
    groups = deal(in_drawn_order([utterance.id for utterance in utterances], seed), count)
    keys = [utterance.id for utterance in utterances]
    return split_by(utterances, keys, dev=set(groups[fold % count]), test=set(groups[fold - 1]))


def choose_dev(train: Sequence[Utterance], share: float = 0.1, seed: int = 0) -> tuple[Splits, str]:
    """Return train and dev parts of a training split, and a note: whole speakers where all are known, else utterances."""
    speakers = {utterance.speaker for utterance in train}
    if None not in speakers and len(speakers) >= 3:
        order = in_drawn_order((utterance.speaker or "" for utterance in train), seed)
        chosen = set(order[: max(1, round(share * len(order)))])
        parts = split_by(train, [utterance.speaker or "" for utterance in train], dev=chosen, test=())
        note = f"no dev rows: dev is {len(parts['dev'])} utterances of {len(chosen)} of the {len(order)} training speakers"
    else:
        order = in_drawn_order((utterance.id for utterance in train), seed)
        chosen = set(order[: max(1, round(share * len(order)))])
        parts = split_by(train, [utterance.id for utterance in train], dev=chosen, test=())
        why = "speakers are not known" if None in speakers else f"there are only {len(speakers)} training speakers"
        note = f"no dev rows: dev is {len(chosen)} training utterances drawn at random ({why})"
    return {"train": parts["train"], "dev": parts["dev"]}, note


def compare_counts(what: str, found: Mapping[str, int], expected: Mapping[str, int]) -> tuple[str, ...]:
    """Return a note that names the differences between what was counted and what is known of the release."""
    keys = [*expected, *(key for key in found if key not in expected)]
    differing = [
        f"{key} {found.get(key, 0)} instead of {expected.get(key, 0)}"
        for key in keys
        if found.get(key, 0) != expected.get(key, 0)
    ]
    return (f"{what} differs from the release: {', '.join(differing)}",) if differing else ()
