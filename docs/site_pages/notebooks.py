"""The notebooks as pages: their words, their code, and the outputs that they keep."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"


def names() -> list[str]:
    """Return the names of all notebooks."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def page(name: str) -> str:
    """Return a notebook as a page, with a link to the file below its title."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    lines: list[str] = []
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [linked(text), ""]
        else:
            lines += ["```python", text, "```", ""]
            for output in cell["outputs"]:
                lines += [*shown(output), ""]
    title, _, rest = "\n".join(lines).partition("\n")
    download = f"A notebook with the outputs that it keeps: [download it](../notebooks/{name}.ipynb)."
    return f"{title}\n\n{download}\n{rest}"


def linked(text: str) -> str:
    """Return a text whose links to notebooks lead to their pages."""
    return re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)


def shown(output: Mapping[str, Any]) -> Iterator[str]:
    """Yield an output as its richest kind."""
    data = {kind: "".join(content) for kind, content in output.get("data", {"text/plain": output.get("text", "")}).items()}
    if "image/png" in data:
        yield f'```{{raw}} html\n<img class="cell-output" alt="the figure" src="data:image/png;base64,{data["image/png"]}">\n```'
    elif "text/html" in data:
        yield f'```{{raw}} html\n<div class="cell-output">\n{data["text/html"]}\n</div>\n```'
    else:
        yield f"```text\n{data['text/plain'].rstrip()}\n```"
