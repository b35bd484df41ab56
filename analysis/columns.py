"""Rows as text in columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence


def render(rows: Sequence[Mapping[str, str]], *, markdown: bool = False) -> str:
    """Return rows as a table: columns in order of their first appearance, numbers to the right.

    >>> print(render([{"metric": "ua", "test": "0.601"}, {"metric": "macro_f1", "test": "0.590"}]))
    metric     test
    ua        0.601
    macro_f1  0.590
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name, "") for row in rows] for name in names}
    right = {name: any(cells) and all(_is_number(cell) for cell in cells if cell) for name, cells in columns.items()}
    widths = {name: max(_width(cell) for cell in [name, *cells]) for name, cells in columns.items()}

    def line(cells: Mapping[str, str]) -> str:
        padded = [_padded(cells.get(name, ""), widths[name], right[name]) for name in names]
        return "| " + " | ".join(padded) + " |" if markdown else "  ".join(padded).rstrip()

    header = [line({name: name for name in names})]
    if markdown:
        rules = ("-" * (max(widths[name], 2) - 1) + (":" if right[name] else "-") for name in names)
        header.append("| " + " | ".join(rules) + " |")
    return "\n".join(header + [line(row) for row in rows])


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in {"-", "+"}


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space
