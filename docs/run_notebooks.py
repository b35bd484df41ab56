"""Execute the notebooks of docs/notebooks/ and keep their outputs: `make notebooks` (extra `.[notebooks]`).

Each runs in an empty folder of its own, with one thread and the cache of the user. What is kept is small: no stderr, no times, no
ids, no folder of this machine. A hash of the cells stands beside the outputs, so that a changed cell with old outputs is found.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "notebooks"
SECONDS = 900  # at most for a cell, on a busy machine
COLORS = 96  # of a picture
DROPPED = ("stderr",)  # progress, and where a miniature was made
KEPT = ("text/plain", "text/html", "image/png")
Notebook = dict[str, Any]


def read(path: Path) -> Notebook:
    """Return a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def code_of(notebook: Notebook) -> list[str]:
    """Return the code of each cell."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def hash_of(notebook: Notebook) -> str:
    """Return a hash of what the code of all cells does, however it is laid out."""
    return hashlib.sha256("\0".join(ast.dump(ast.parse(code)) for code in code_of(notebook)).encode()).hexdigest()[:16]


def execute(path: Path, folder: Path) -> Notebook:
    """Return a notebook as it is after its cells were run in a folder."""
    from nbclient import NotebookClient
    from nbformat import reads

    notebook = reads(path.read_text(encoding="utf-8"), as_version=4)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=SECONDS, startup_timeout=SECONDS, kernel_name="python3", resources=resources).execute()
    return cleaned(json.loads(json.dumps(notebook)), folder)


def cleaned(notebook: Notebook, folder: Path) -> Notebook:
    """Return a notebook with what is worth keeping: cells, their outputs, and the hash of the code that made them."""
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        kept = {"cell_type": cell["cell_type"], "id": f"cell-{number}", "metadata": {}, "source": "".join(cell["source"])}
        if cell["cell_type"] == "code":
            kept |= {"execution_count": None, "outputs": [*outputs_of(cell["outputs"], folder)]}
        cells.append(kept)
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    metadata |= {"language_info": {"name": "python"}, "headwater": {"outputs_of": hash_of(notebook)}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def outputs_of(outputs: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the outputs of a cell that are kept, without the folder in which it ran."""
    for output in outputs:
        if output.get("name") in DROPPED or output.get("data") == {"text/plain": ""}:  # a line of progress, gone at the end
            continue
        if output["output_type"] == "stream":
            yield {"name": output["name"], "output_type": "stream", "text": without(output["text"], folder)}
        else:
            data = {kind: without(output["data"][kind], folder) for kind in KEPT if kind in output["data"]}
            if "image/png" in data:
                data |= {"text/plain": "<Figure>", "image/png": smaller(data["image/png"])}
            yield {**({"execution_count": None} if output["output_type"] == "execute_result" else {})} | {
                "data": data,
                "metadata": {},
                "output_type": output["output_type"],
            }


def smaller(picture: str) -> str:
    """Return a PNG in base64 with few colours."""
    from PIL import Image

    content = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(content, format="png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def without(text: str | Sequence[str], folder: Path) -> str:
    """Return a text without the folder in which a notebook ran."""
    return "".join(text).replace(f"{folder}/", "").replace(str(folder), ".")


def kinds_of(notebook: Notebook) -> list[list[str]]:
    """Return the kinds of outputs of each cell: what two executions of the same code have in common, on any machine."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [sorted(kind for output in cell["outputs"] for kind in output.get("data", {"stream": ""})) for cell in cells]


def main() -> None:
    """Execute the notebooks named, or all, and write their outputs back."""
    for path in [*map(Path, sys.argv[1:])] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, Path(folder).resolve())
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(text) // 1000} kB")


if __name__ == "__main__":
    main()
