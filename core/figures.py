"""Pictures and their numbers, written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import write_text, written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def marked_title(title: str, marks: Sequence[str]) -> str:
    """Return a title that begins with the run's marks (DEMO, UNTRAINED)."""
    return " · ".join([*marks, title])


def save_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], marks: Sequence[str]) -> None:
    """Write a table whole or not at all; fractions keep six digits, marks have a column of their own."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = [" ".join(marks)] if marks else []
    writer.writerow([*header, *["marks" for _ in last]])
    writer.writerows([*(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row), *last] for row in rows)
    write_text(path, text.getvalue())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture in the format of its suffix, whole or not at all; equal pictures are equal files."""
    form = path.suffix.removeprefix(".")
    metadata = {"CreationDate": None} if form == "pdf" else None
    with written_aside(path) as aside:
        figure.savefig(aside, format=form, dpi=150, metadata=metadata)


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure (inches) that needs no screen and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, wrap=True)
    return figure
