"""Pictures and their numbers, written whole or not at all."""

from __future__ import annotations

import csv
import functools
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .errors import UserError, first_line
from .files import clear_asides, write_text, written_aside
from .text import without_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150  # of a PNG
DPI_SHOWN = 90  # in a notebook, which keeps the picture: small
_LONGEST_NAME = 60  # characters: matplotlib measures each, for minutes where a class has thousands

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")


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
    clear_asides(path)
    write_text(path, text.getvalue())


def forgiving(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn | None]:
    """Let a function that draws say what it could not draw: a picture never costs the result that it shows."""

    @functools.wraps(draw)
    def wrapped(*arguments: Given.args, **options: Given.kwargs) -> Drawn | None:
        """Draw, and say so on stderr where that fails; a user's mistake and a full disk are raised."""
        try:
            return draw(*arguments, **options)
        except (UserError, OSError):
            raise
        except Exception as problem:  # matplotlib raises whatever it likes
            paths = [value for value in (*arguments, *options.values()) if isinstance(value, Path)]
            print(f"note      no picture {paths[-1] if paths else ''}: {first_line(problem)}", file=sys.stderr)
            return None

    return wrapped


def shortened(names: Sequence[str]) -> list[str]:
    """Return names as a picture has room for them.

    >>> shortened(["angry", "a" * 100])[1] == "a" * 59 + "…"
    True
    """
    return [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]


@forgiving
def save_figure(figure: Figure, path: Path) -> None:
    """Write a picture in the format of its suffix, whole or not at all; equal pictures are equal files."""
    tidied(figure)
    clear_asides(path)
    form = path.suffix.removeprefix(".")
    metadata = {"CreationDate": None} if form == "pdf" else None
    with written_aside(path) as aside:
        figure.savefig(aside, format=form, dpi=DPI, metadata=metadata)


def tidied(figure: Figure) -> Figure:
    """Return a figure without folders and formulas in its texts."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if "/" in text.get_text():
            text.set_text(without_folders(text.get_text()))
        if "$" not in text.get_text():  # a class may be called so: nobody writes formulas here
            continue
        if text.get_wrap():  # matplotlib measures a wrapped formula whatever `parse_math` says
            text.set_text(re.sub(r"(?<!\\)\$", r"\\$", text.get_text()))
        else:
            text.set_parse_math(False)
    return figure


@functools.cache
def picture_class() -> type[Figure]:
    """Return the kind of our figures: a notebook shows one without pyplot, and without a cell that prepares it."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that a notebook shows."""

        def _repr_png_(self) -> bytes:
            """Return what a notebook shows and keeps."""
            content = io.BytesIO()
            self.savefig(content, format="png", dpi=DPI_SHOWN)
            return content.getvalue()

    return Picture


def new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty figure (inches) that needs no screen and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = picture_class()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, wrap=True)
    return figure
