"""The official folder layout of each corpus, from the files of its miniature: noise stands in for speech, only names matter."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np

from headwater.corpus.demo.synthesiser import SAMPLE_RATE

AUDIO = {".wav", ".flac", ".mp3"}
DISTINCT = ("train", "dev", "valid", "test", "eval", "_")  # how names of folders begin that are never alike


def layout(make_demo: Callable[..., None]) -> list[str]:
    """Return the layout that a miniature has, as a tree."""
    with tempfile.TemporaryDirectory() as place, patch("headwater.corpus.demo.acting.speak", noise):
        make_demo(Path(place) / "corpus", seed=0, scale=0.01)
        return tree(Path(place) / "corpus")


@cache
def noise(*_: object) -> np.ndarray:
    """Return something to write in place of a spoken sentence."""
    return np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE // 2).astype(np.float32)


def tree(folder: Path, indent: str = "") -> list[str]:
    """Return what a folder holds: of many folders that are alike the first one, of many such files the first two."""
    inside, kinds = sorted(folder.iterdir()), dict[object, list[Path]]()
    for path in inside:
        kinds.setdefault(kind(path, inside), []).append(path)
    lines = []
    for found in kinds.values():
        shown = found[: 1 if found[0].is_dir() else 2]
        for path in shown:
            lines.append(f"{indent}{path.name}{'/' * path.is_dir()}")
            lines += tree(path, indent + "  ") if path.is_dir() else []
        lines += [f"{indent}…"] * (len(found) > len(shown))
    return lines


def kind(path: Path, siblings: Sequence[Path]) -> object:
    """Return what a file or folder has in common with those that it stands for: a name but for numbers, or the content."""
    alike = [other for other in siblings if shape(other) == shape(path)]
    many = len(alike) > 2 and (path.is_dir() or path.suffix in AUDIO) and not path.name.startswith(DISTINCT)
    return shape(path) if many else re.sub(r"\d+", "0", path.name)


def shape(path: Path) -> object:
    """Return the kinds of files that lie in a folder, or the suffix of a file."""
    return frozenset(map(shape, path.iterdir())) if path.is_dir() else path.suffix
