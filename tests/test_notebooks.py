"""The notebooks: what stands in them is possible and small, and the outputs are those of their code; CI executes them."""

from __future__ import annotations

import ast
import base64
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_notebooks
from site_pages import notebooks

import headwater

PATHS = sorted(run_notebooks.FOLDER.glob("*.ipynb"))
EACH = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
PLACES = re.compile(r"/(home|root|tmp|work|Users|var|opt)/|file://")
MOST_BYTES, MOST_OF_A_PICTURE = 300_000, 60_000


def outputs(path: Path) -> Iterator[dict[str, Any]]:
    """Yield all outputs of a notebook."""
    for cell in run_notebooks.read(path)["cells"]:
        yield from cell.get("outputs", ())


def test_there_are_three_notebooks_each_with_a_page() -> None:
    assert [path.stem for path in PATHS] == ["first_result", "own_data", "turbo_and_tasks"] == notebooks.names()


@EACH
def test_the_outputs_are_those_of_the_code(path: Path) -> None:
    notebook = run_notebooks.read(path)
    made_of = notebook["metadata"].get("headwater", {}).get("outputs_of")
    assert made_of == run_notebooks.hash_of(notebook), f"a cell of {path.name} was changed: make notebooks"


@EACH
def test_every_name_and_argument_of_ours_is_public(path: Path) -> None:
    used = set()
    for code in run_notebooks.code_of(run_notebooks.read(path)):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headwater"):
                public = importlib.import_module(str(node.module)).__all__
                assert {alias.name for alias in node.names} <= {*public}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "headwater":
                used.add(node.attr)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in headwater.__all__:
                known = inspect.signature(getattr(headwater, node.func.attr)).parameters
                assert {word.arg for word in node.keywords if word.arg} <= {*known}
    assert used
    assert used <= {*headwater.__all__}


@EACH
def test_what_is_kept_is_small_and_of_no_machine(path: Path) -> None:
    assert path.stat().st_size <= MOST_BYTES
    pictures = [output["data"]["image/png"] for output in outputs(path) if "image/png" in output.get("data", {})]
    assert pictures
    assert max(len(base64.b64decode(picture)) for picture in pictures) <= MOST_OF_A_PICTURE
    words = path.read_text(encoding="utf-8")
    for picture in pictures:
        words = words.replace(picture, "")
    assert not PLACES.search(words)


@EACH
def test_no_output_is_an_error_or_progress(path: Path) -> None:
    found = [*outputs(path)]
    assert found
    assert {output["output_type"] for output in found} <= {"execute_result", "display_data", "stream"}
    assert not [output for output in found if output.get("name") == "stderr" or "\r" in str(output.get("text"))]


def test_a_page_has_the_words_the_code_and_the_outputs() -> None:
    page = notebooks.page("first_result")
    assert page.startswith("# A first result, and which layers matter\n")
    assert "(../notebooks/first_result.ipynb)" in page
    assert "(own_data.md)" in page
    assert page.count("```python\n") == len(run_notebooks.code_of(run_notebooks.read(PATHS[0])))
    assert '<img class="cell-output"' in page
    assert "<table" in page


@pytest.mark.skipif(not os.environ.get("HEADWATER_NOTEBOOKS"), reason="minutes: HEADWATER_NOTEBOOKS=1, as .ci/run does")
@pytest.mark.timeout(1800)
@EACH
def test_a_notebook_runs_and_gives_the_kinds_of_outputs_that_it_keeps(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs .[notebooks]")
    found = run_notebooks.execute(path, tmp_path)
    nbformat.validate(nbformat.from_dict(found))
    assert run_notebooks.kinds_of(found) == run_notebooks.kinds_of(run_notebooks.read(path))
