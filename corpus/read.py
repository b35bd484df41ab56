"""A corpus read by its name: the real one, or its spoken miniature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .base import Corpus
from .demo.make import demo_root
from .load import get_reader
from .locate import find_root, is_demo


def load_corpus(
    name: str,
    data: str | None = None,
    *,
    protocol: str = "",
    fold: int = 1,
    demo: bool = False,
    demo_scale: float = 1.0,
    options: Mapping[str, Any] | None = None,
) -> Corpus:
    """Return a corpus: `data` is its folder or table (else where the user keeps it), `options` are those of its reader.

    >>> load_corpus("iemocap", "IEMOCAP_full_release", fold=5).splits["test"][0].labels["emotion"]  # doctest: +SKIP
    'neu'
    """
    reader, root = get_reader(name), corpus_root(name, data, demo=demo, demo_scale=demo_scale)
    corpus = reader.read(root, protocol=protocol or reader.default_protocol, fold=fold, **(options or {}))
    return replace(corpus, demo=demo or is_demo(root))


def corpus_root(name: str, data: str | None = None, *, demo: bool = False, demo_scale: float = 1.0) -> Path:
    """Return the folder or table of a corpus, or of its miniature, which is made on the first call."""
    reader = get_reader(name)
    return Path(demo_root(reader, scale=demo_scale) if demo else find_root(reader, data))
