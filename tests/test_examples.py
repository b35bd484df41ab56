"""The examples are what CONTRIBUTING shows, and short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import headwater as library

ROOT = Path(library.__file__).parent
EXAMPLES = ["my_task/expert.py", "my_regression/expert.py", "my_upstream.py", "my_corpus.py"]


def test_the_task_has_at_most_fifty_lines() -> None:
    assert len((ROOT / "examples" / "my_task" / "expert.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize("name", EXAMPLES)
def test_contributing_shows_the_example_as_it_is(name: str) -> None:
    page = ROOT / "CONTRIBUTING.md"
    if not page.is_file():
        pytest.skip("not a clone")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert (ROOT / "examples" / name).read_text() in blocks
