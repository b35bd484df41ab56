"""Pieces of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table; a bar within a cell is a bar."""
    lines = [[*head], ["---"] * len(head), *([cell.replace("|", r"\|").replace("\n", " ") for cell in row] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def code(text: object) -> str:
    """Return a text as code; of an empty one, nothing."""
    return f"`{text}`" if str(text) else ""


def block(text: str) -> list[str]:
    """Return a text as it is."""
    return ["```text", text.rstrip(), "```"]


def linked(text: str) -> str:
    """Return a text whose addresses can be clicked."""
    return re.sub(r"(?<![<(])https?://[^\s,()]*[^\s,().:]", lambda found: f"<{found[0]}>", text)
