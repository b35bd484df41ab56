"""Beam search for the most likely text, with an n-gram model of words where one is given."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import UserError
from ...core.files import expanded, hash_file, obstacle
from ...core.installation import install_command
from ...core.options import ABOVE_0, AT_LEAST_0, PATHS
from ..spelling import error_rates

LM_WEIGHTS, WORD_BONUSES = (0.25, 0.5, 1.0, 1.5), (0.0, -1.0, 1.0, 2.0)  # that dev chooses from: the weight first, at no bonus
CHOOSING_SIZE = 20  # texts that are kept while dev chooses: each choice reads all of dev
_SPECIAL = str.maketrans({"▁": "\ue000", "|": "\ue001"})  # the package takes these two for the end of a word
_BACK = str.maketrans({"\ue000": "▁", "\ue001": "|"})
_BINARY = b"mmap lm http://kheafield.com/code"  # how KenLM's own files begin
_GZIP = b"\x1f\x8b"
_END = "</s>"
_NEVER, _MOST_THRESHOLD = -1e9, 30.0  # log probabilities: what the package takes for 0 is e^-34.5
_NO_WORDS = ("<s>", "</s>", "<unk>")


@dataclass(frozen=True)
class BeamConfig:
    """The `asr.beam:` section."""

    size: Annotated[int, ABOVE_0] = 100  # texts that are kept from frame to frame
    threshold: Annotated[float, ABOVE_0] = (
        10.0  # log probability below the best at which a text, or below 1 a character, is dropped
    )
    lm: str | None = field(default=None, metadata=PATHS)  # an n-gram model of words: ARPA, ARPA with gzip, or KenLM's binary
    lexicon: str | None = field(default=None, metadata=PATHS)  # known words, the first of each line; null: those of the model
    lm_weight: Annotated[float, AT_LEAST_0] | None = None  # of the model's natural logarithms; null: dev chooses
    word_bonus: float | None = None  # added for each word; null: dev chooses


@dataclass(frozen=True)
class Search:
    """A beam search: the characters that it writes with, and the weights of its n-gram model."""

    characters: tuple[str, ...]
    config: BeamConfig
    lm_weight: float = 0.0
    word_bonus: float = 0.0

    def find(self, logs: NDArray) -> str:
        """Return the most likely text, all its alignments summed, from log probabilities: (frame, blank and characters)."""
        decoder, config = self.decoder(), self.config
        if not len(logs):
            return ""
        rows = logs if config.lm is None else with_end(logs, self.characters)
        best, *_ = decoder.decode_beams(rows, config.size, -config.threshold, -min(config.threshold, _MOST_THRESHOLD))
        return best[0].translate(_BACK).removesuffix(_END).rstrip()

    def decoder(self) -> Any:
        """Return the package's decoder; the one of now is kept in memory."""
        return _decoder(self.characters, self.config.lm, self.config.lexicon, self.lm_weight, self.word_bonus)


def with_end(logs: NDArray, characters: Sequence[str]) -> NDArray:
    """Return log probabilities with a space and the sentence's end written behind the last frame: (2 + frame, token).

    The package adds the end's probability once all is read, and then takes what stands behind a last space for an unknown word:
    with the end as a word, sums over alignments are exact.
    """
    own = [*characters] if " " in characters else [*characters, " "]
    rows = np.full((len(logs) + 2, 1 + len(own) + 1), _NEVER, np.float32)
    rows[: len(logs), : logs.shape[1]] = logs
    rows[len(logs), 1 + own.index(" ")] = rows[len(logs) + 1, -1] = 0.0
    return rows


@lru_cache(maxsize=1)  # a model of LibriSpeech's size takes gigabytes
def _decoder(characters: tuple[str, ...], lm: str | None, lexicon: str | None, lm_weight: float, word_bonus: float) -> Any:
    build = _package().build_ctcdecoder
    labels = ["", *(character.translate(_SPECIAL) for character in characters)]
    if lm is None:
        return build(labels)
    labels += [*([] if " " in characters else [" "]), _END]
    path = expanded(lm)
    words = known_words(path, lexicon)
    refuse_unspelt(words, characters, lexicon or lm)
    try:
        with _without_progress():
            return build(labels, str(path), [*(word.translate(_SPECIAL) for word in words), _END], lm_weight, word_bonus)
    except ValueError as problem:
        raise _damaged(lm, str(problem).splitlines()[-1].removeprefix(f"could not load language model {path}: ")) from None


def _package() -> Any:
    try:
        import ctc_beam_decoder
    except ImportError:
        raise UserError(
            f"Expected the package ctc-beam-decoder for asr.beam, found none. Run `{install_command('decode')}`, or read "
            "greedily: -o asr.beam=null"
        ) from None
    return ctc_beam_decoder


def check(config: BeamConfig, characters: Sequence[str]) -> None:
    """Refuse what cannot be searched with, before anything is trained: files, words, options without a model."""
    idle = [name for name in ("lexicon", "lm_weight", "word_bonus") if getattr(config, name) is not None]
    if config.lm is None and idle:
        raise UserError(
            f"Expected an n-gram model (-o asr.beam.lm=FILE) beside asr.beam.{idle[0]}, found none. Name it, or leave that out."
        )
    Search(tuple(characters), config).decoder()
    _decoder.cache_clear()  # training needs the memory


def known_words(lm: Path, lexicon: str | None) -> list[str]:
    """Return the words of a lexicon, or else those of an n-gram model."""
    head = _readable(lm, "an n-gram model", "lm")
    if lexicon is not None:
        place = expanded(lexicon)
        _readable(place, "a lexicon", "lexicon")
        return list(dict.fromkeys(line.split()[0] for line in _lines(place) if line.split()))
    if head.startswith(_BINARY):
        raise UserError(
            f"Expected a lexicon beside KenLM's binary '{lm}', whose words cannot be read, found none. Name a file with a word "
            "in each line: -o asr.beam.lexicon=FILE"
        )
    return list(_unigrams(lm))


def _unigrams(path: Path) -> Iterator[str]:
    lines = (line.strip() for line in _lines(path))
    if next((line for line in lines if line), "") != "\\data\\":
        raise _damaged(path, "no line \\data\\ at its beginning")
    inside = False
    for line in lines:
        if inside and line.startswith("\\"):
            return
        inside = inside or line == "\\1-grams:"
        cells = line.split()
        if inside and len(cells) > 1 and cells[1].lower() not in _NO_WORDS:
            yield cells[1]
    raise _damaged(path, "no end of its words")


def _readable(path: Path, what: str, option: str) -> bytes:
    found = obstacle(path)
    if found:
        raise UserError(
            f"Expected {what} that can be read at '{path}', found {found}. Check the path (-o asr.beam.{option}=FILE), or read "
            "greedily: -o asr.beam=null"
        )
    with path.open("rb") as file:
        return file.read(len(_BINARY))


def _lines(path: Path) -> Iterator[str]:
    opened = gzip.open if path.open("rb").read(2) == _GZIP else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            yield from file
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as problem:
        raise _damaged(path, str(problem)) from None


def _damaged(path: str | Path, problem: str) -> UserError:
    return UserError(
        f"Expected an n-gram model in ARPA's format at '{path}', plain or with gzip, found one that cannot be read "
        f"({problem.rstrip('. ')}). Name another: -o asr.beam.lm=FILE"
    )


def refuse_unspelt(words: Iterable[str], characters: Sequence[str], path: str) -> None:
    """Refuse words of which not one is spelt with the characters of training: in small letters, say."""
    known, found = {*characters}, [*words]
    if any(known >= {*word} for word in found):
        return
    first = f"the first of {len(found)} is '{found[0]}'" if found else "it has no words"
    raise UserError(
        f"Expected words spelt with the characters of training ({''.join(characters).strip()}) in '{path}', found none "
        f"({first}). Write them as the transcripts are (-o asr.normalize), or name another: -o asr.beam.lm=FILE"
    )


@contextmanager
def _without_progress() -> Iterator[None]:
    """Keep the progress bar off the terminal that KenLM writes past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def choose(config: BeamConfig, characters: tuple[str, ...], references: Sequence[str], logs: Sequence[NDArray]) -> dict[str, Any]:
    """Return the weights of the n-gram model: those of the config, else those with the lowest word error rate on dev."""
    if config.lm is None:
        return {}
    narrow = Search(characters, replace(config, size=min(config.size, CHOOSING_SIZE)))
    weight, bonus = config.lm_weight, config.word_bonus

    def wer(weight: float, bonus: float) -> float:
        """Return the word error rate on dev."""
        search = replace(narrow, lm_weight=weight, word_bonus=bonus)
        return error_rates(references, [search.find(rows) for rows in logs])["wer"]

    if weight is None:
        weight = min(LM_WEIGHTS, key=lambda tried: wer(tried, bonus or 0.0))
    if bonus is None:
        bonus = min(WORD_BONUSES, key=lambda tried: wer(weight, tried))  # the first of several that are as good
    return {"lm_weight": weight, "word_bonus": bonus, "lm": hash_file(expanded(config.lm))[:16]}


def weights_of(config: BeamConfig, chosen: dict[str, Any] | None) -> dict[str, Any]:
    """Return the weights that a finished run searches with: typed ones, or those that dev chose for this very model."""
    if config.lm is None:
        return {}
    place = expanded(config.lm)
    _readable(place, "an n-gram model", "lm")
    lm = hash_file(place)[:16]
    known = chosen if chosen and chosen.get("lm") == lm else {}
    names = ("lm_weight", "word_bonus")
    found = {name: known.get(name) if getattr(config, name) is None else getattr(config, name) for name in names}
    missing = [f"asr.beam.{name}" for name in names if found[name] is None]
    if missing:
        raise UserError(
            f"Expected {' and '.join(missing)} for '{config.lm}', since this run has chosen none for it on dev, found none. "
            "Type them: -o asr.beam.lm_weight=0.5 asr.beam.word_bonus=0"
        )
    return {**found, "lm": lm}
