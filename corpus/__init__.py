"""Corpora: utterances, readers of official layouts, audio and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.faces import public_name, public_names

if TYPE_CHECKING:
    from .audio import read_audio
    from .base import Corpus, Reader, Utterance, register_corpus
    from .batch import Batch, as_batch
    from .folds import check_fold, deal, in_drawn_order, split_by_speaker
    from .read import load_corpus

FACE = {
    "audio": "read_audio",
    "base": "Corpus Reader Utterance register_corpus",
    "batch": "Batch as_batch",
    "folds": "check_fold deal in_drawn_order split_by_speaker",
    "read": "load_corpus",
}
__all__ = public_names(FACE)


def __getattr__(name: str) -> Any:
    return public_name(__name__, FACE, name)
