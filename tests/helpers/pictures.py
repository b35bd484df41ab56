"""Pictures that nobody looks at: most runs of the tests draw some, which takes longer than the run."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, BinaryIO

from matplotlib.figure import Figure

_DRAWN = Figure.savefig
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="
_EMPTY = {"png": base64.b64decode(_PIXEL), "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>', "pdf": b"%PDF-1.4\n%%EOF\n"}


def draw(really: bool) -> None:
    """Let figures be drawn where they are saved, or be laid out and saved empty."""
    Figure.savefig = _DRAWN if really else save_empty  # type: ignore[method-assign]


def save_empty(_: Figure, place: Path | BinaryIO, *, format: str, **__: Any) -> None:
    """Write an empty picture of a format."""
    if isinstance(place, Path):
        place.write_bytes(_EMPTY[format])
    else:
        place.write(_EMPTY[format])
