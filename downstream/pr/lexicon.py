"""Pronunciation lexicons: the phones of each word, from LibriSpeech's, CMUdict's and Kaldi's files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError
from ...core.files import expanded, obstacle

FORM = "lines such as `HELLO  HH AH0 L OW1`"
_VARIANT = re.compile(r"\(\d+\)$")  # HELLO(2): another pronunciation, in CMUdict
_COMMENT = re.compile(r"^;;;.*|\s#.*")  # of a line, and behind an entry
_NUMBER = re.compile(r"[\d.]+")


def read_lexicon(paths: Sequence[str | Path]) -> dict[str, str]:
    """Return word, in capitals -> phones with a space between them; the first pronunciation in the first file wins."""
    found: dict[str, str] = {}
    for path in map(expanded, paths):
        for number, line in enumerate(_lines(path), start=1):
            word, *phones = _COMMENT.sub("", line).split() or [""]
            if not word:
                continue
            if not phones or _NUMBER.fullmatch(phones[0]):
                raise UserError(
                    f"Expected a word and its phones, {FORM}, found '{line.strip()[:80]}' in line {number} of {path}. Mend it."
                )
            found.setdefault(_VARIANT.sub("", word).upper(), " ".join(phones))
        if not found:
            raise UserError(f"Expected {FORM} in {path}, found none. Name another lexicon: -o pr.lexicon=FILE")
    return found


def _lines(path: Path) -> list[str]:
    found = obstacle(path)
    if found:
        raise UserError(f"Expected a lexicon that can be read at {path}, found {found}. Check the path: -o pr.lexicon=FILE")
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return content.decode("latin-1").splitlines()  # CMUdict 0.7b
