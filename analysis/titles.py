"""Short names of result folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def titles_of(folders: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each folder: as many of its last parts as make it unique."""
    parts = {folder: folder.resolve().parts for folder in folders}
    named = (
        {folder: "/".join(of[-size:]) for folder, of in parts.items()} for size in range(1, max(map(len, parts.values())) + 1)
    )
    return next(names for names in named if len({*names.values()}) == len(folders))
