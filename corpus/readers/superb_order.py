"""The dev utterances of s3prl's emotion experiment on IEMOCAP, drawn again."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

# session -> its dialogs (without "Ses0N") in the order of the disk of s3prl's author: os.listdir sorts nothing
_DIALOGS = {
    1: """
F_script02_2 F_impro07 F_script03_2 M_impro02 F_impro06 F_script01_3 M_script02_1 M_impro04 M_script01_1 F_impro01
F_script01_1 F_impro05 M_script01_2 M_script02_2 F_script02_1 M_script03_2 M_impro05 M_impro01 F_impro03 M_impro03
M_script01_3 F_script03_1 M_impro07 F_impro02 M_impro06 M_script03_1 F_impro04 F_script01_2
""",
    2: """
F_impro03 F_script03_2 M_script03_2 M_impro04 M_impro05 F_script02_1 F_script02_2 M_script02_2 M_impro08 M_impro07
F_script03_1 M_script01_3 F_impro06 F_impro01 F_impro04 F_script01_2 M_impro02 M_impro03 F_script01_3 F_impro05
F_script01_1 M_impro06 M_script02_1 F_impro08 F_impro02 M_script01_1 M_impro01 M_script01_2 M_script03_1 F_impro07
""",
    3: """
F_script02_1 M_impro04 M_script03_2 M_impro05b M_impro02 F_impro05 M_script02_2 M_impro08b F_impro07 M_script01_1
M_script02_1 M_impro05a M_impro07 M_script03_1 F_script03_1 M_impro01 F_script01_1 F_impro04 F_script02_2 F_script01_3
M_script01_3 M_impro06 F_impro01 F_impro03 M_script01_2 M_impro08a M_impro03 F_script03_2 F_script01_2 F_impro08
F_impro06 F_impro02
""",
    4: """
F_script03_1 F_impro01 M_script02_1 M_script02_2 F_script01_3 M_impro05 F_script02_1 F_impro07 F_impro02 F_impro03
M_impro02 F_script01_1 M_script01_1 F_script03_2 M_impro06 F_script02_2 M_impro01 M_impro04 F_impro05 F_script01_2
F_impro08 F_impro06 M_impro03 M_script01_3 M_script01_2 M_script03_1 M_script03_2 M_impro07 F_impro04 M_impro08
""",
    5: """
M_script01_3 F_impro04 M_script02_2 F_script01_3 F_script01_2 F_impro06 M_impro06 M_impro01 F_script03_1 F_impro07
F_script03_2 M_script01_1b F_impro05 M_script01_1 F_impro08 M_script03_1 M_impro05 F_impro01 F_impro02 M_impro03
F_script01_1 M_impro04 M_script02_1 F_impro03 F_script02_2 F_script02_1 M_script03_2 M_impro08 M_impro02 M_impro07
M_script01_2
""",
}
# of each fold: the first 16 digits of the sha256 of its dev ids, sorted, joined by newlines (the whole release)
DEV_HASHES = ("81f022a7013b2f04", "99fab34a5c23ff9f", "36509928efafbd58", "b7c5f2815b4fd47e", "5760897836dd6cc8")


def dialogs(session: int) -> list[str]:
    """Return a session's dialogs in s3prl's order."""
    return [f"Ses0{session}{name}" for name in _DIALOGS[session].split()]


def dev_ids(four_class_ids: Iterable[str], fold: int) -> list[str]:
    """Return the fifth of the training sessions' four-class utterances that s3prl selects on, in the order it evaluates them.

    s3prl lists the utterances dialog by dialog, session by session, and calls `random_split` after `manual_seed(0)`.
    """
    import torch

    train = [name for name in in_order(four_class_ids) if name[3:5] != f"{fold:02d}"]
    kept = int(0.8 * len(train))
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    return [train[position] for position in drawn[kept:]]


def dev_hash(ids: Collection[str]) -> str:
    """Return the digits by which a fold's dev list is compared with `DEV_HASHES`."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


def in_order(ids: Iterable[str]) -> list[str]:
    """Return utterances session by session and dialog by dialog, as s3prl lists them."""
    order = {dialog: place for place, dialog in enumerate(name for session in _DIALOGS for name in dialogs(session))}
    return sorted(ids, key=lambda name: (name[:5], order.get(name[:-5], len(order)), name))
