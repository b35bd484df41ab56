"""Pieces of a web page that stands alone: text escaped, pictures inside, no script and nothing from elsewhere."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.errors import UserError
from ...core.figures import DPI
from ...core.text import without_folders

# whatever a label holds: no script runs, nothing is fetched
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
EMPHASIS = re.compile(r"\*\*(.+?)\*\*|&lt;u&gt;(.+?)&lt;/u&gt;")  # the two kinds that our tables use
NUMBER = re.compile(
    r"(\*\*|<u>)?[-+−]?(\d[^:]*)?$|(X|undefined)$"
)  # empty cells, dashes and these words leave a column one of numbers
LONG = 48  # letters: a cell of more breaks into lines
CELLS = re.compile(r"(?<!\\)\|")


def text(value: object) -> str:
    """Return text as a page may hold it, whatever is in it; of a path on this machine only its end.

    >>> text('<b>"R&D"')
    '&lt;b&gt;&quot;R&amp;D&quot;'
    """
    readable = without_folders(str(value)).encode("utf-8", "replace").decode("utf-8")  # a file's name may be no UTF-8
    return html.escape(CONTROL.sub("\N{REPLACEMENT CHARACTER}", readable))


def element(name: str, *inside: str, **attributes: str) -> str:
    """Return an element around what is html already; attributes are escaped here (`class_` stands for class)."""
    named = "".join(f' {key.rstrip("_")}="{text(value)}"' for key, value in attributes.items())
    return f"<{name}{named}>{''.join(inside)}</{name}>"


def paragraph(words: object, class_: str = "") -> str:
    """Return a line of text."""
    return element("p", text(words), **({"class_": class_} if class_ else {}))


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as a table: columns in order of their first appearance, those of numbers alone to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    right = {name for name in names if all(NUMBER.match(str(row.get(name, "-"))) for row in rows)}
    head = element("thead", element("tr", *(cell("th", name, right=name in right) for name in names)))
    lines = (element("tr", *(cell("td", str(row.get(name, "")), right=name in right) for name in names)) for row in rows)
    return element("div", element("table", head, element("tbody", *lines)), class_="wide")


def cell(kind: str, words: str, *, right: bool) -> str:
    """Return a cell of a table; better and worse may be marked in it, as **bold** and <u>underlined</u>."""
    marked = EMPHASIS.sub(lambda found: element("b", found[1]) if found[1] else element("u", found[2]), text(words))
    look = "number" if right else "long" if len(words) > LONG else ""
    return element(kind, marked, **({"class_": look} if look else {}))


def markdown(source: str) -> str:
    """Return our own markdown (lines, lists and tables) as html."""
    blocks: list[str] = []
    lines = source.splitlines()
    while lines:
        size = next((place for place, line in enumerate(lines) if not line.startswith("|")), len(lines))
        if size:
            blocks.append(markdown_table(lines[:size]))
        elif lines[0].strip():
            blocks.append(paragraph(lines[0].lstrip("#- ")))
        lines = lines[max(size, 1) :]
    return "".join(blocks)


def markdown_table(lines: Sequence[str]) -> str:
    """Return the lines of a markdown table as a table; as they are, where a bar in a label tears a row apart."""
    rows = [[part.strip().replace("\\|", "|") for part in CELLS.split(line.strip())[1:-1]] for line in lines]
    head, body = rows[0], rows[2:]
    if len({len(row) for row in rows}) > 1 or len({*head}) < len(head):
        return element("pre", text("\n".join(lines)))
    return table([dict(zip(head, row, strict=True)) for row in body] or [dict.fromkeys(head, "")])


def picture(path: Path, words: str, *, half: bool = False) -> str:
    """Return a PNG or SVG, whose title is inside, with words for those who cannot see it; two halves share a printed line."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        return paragraph(f"{words}: left out, cannot be read ({problem.strerror})", "absent")
    if path.suffix == ".svg":  # its comments hold labels, which may be no XML, and its metadata the time
        content = re.sub(rb"<!--.*?-->|<metadata>.*?</metadata>", b"", content, flags=re.DOTALL)
    # as large as it was drawn: a PNG has more points than a page shows
    width = f' width="{96 * int.from_bytes(content[16:20], "big") // DPI}"' if path.suffix == ".png" else ""
    source = f"data:{KINDS[path.suffix]};base64,{base64.b64encode(content).decode()}"
    return element("figure", f'<img src="{source}" alt="{text(words)}"{width}>', **({"class_": "half"} if half else {}))


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole page with its own styles."""
    style = Path(__file__).with_name("report.css")
    if not style.is_file():
        raise UserError(f"Expected the styles of the report at '{style}', found none. Install Headwater again.")
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", text(title)),
        element("style", style.read_text(encoding="utf-8")),
    ]
    inside = "\n".join(["", *body, ""])
    return f'<!doctype html>\n<html lang="en">\n{element("head", *head)}\n{element("body", inside)}\n</html>\n'
