"""Rows as a table for a notebook: a pandas DataFrame, or the html that is shown of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .installation import install_command

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_ROWS = 20  # of a table that a notebook shows and keeps


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> DataFrame:
    """Return rows as a DataFrame of pandas, which Headwater itself does without."""
    try:
        import pandas
    except ImportError:
        raise UserError(
            f"Expected pandas for a table in Python, found none. Run: pip install pandas, or {install_command('notebooks')}"
        ) from None
    frame = pandas.DataFrame([*rows], columns=None if columns is None else [*columns])
    empty = [name for name in frame if frame[name].isna().all()]
    return frame.astype(dict.fromkeys(empty, float))  # NaN, which can be compared, in place of None


def html_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a small html table, the first ones of many.

    >>> html_table([{"metric": "ua", "test": 0.5}])
    '<table><tr><th>metric</th><th>test</th></tr><tr><td>ua</td><td>0.500</td></tr></table>'
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[*names], *([cell(row.get(name)) for name in names] for row in rows[:MOST_ROWS])]
    tags = ["th", *["td"] * (len(lines) - 1)]
    body = "".join(
        f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in line)}</tr>" for tag, line in zip(tags, lines, strict=True)
    )
    more = f"<p>… and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    return f"<table>{body}</table>{more}"


def html_text(text: str) -> str:
    """Return a text as it is, its long lines broken."""
    return f'<pre style="white-space: pre-wrap; line-height: 1.3">{escape(text)}</pre>'


def cell(value: Any) -> str:
    """Return a value as a table shows it: a fraction with three digits."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
