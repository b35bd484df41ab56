"""Parts of s3prl to compare with, each loaded from its own file, and the edit distance that it takes from a package."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest


def of_s3prl(file: str) -> ModuleType:
    """Return a module of s3prl; without the package skip the test, or fail where HEADWATER_REQUIRE_S3PRL is set."""
    package = importlib.util.find_spec("s3prl")
    if package is None or not package.submodule_search_locations:
        assert os.environ.get("HEADWATER_REQUIRE_S3PRL") != "1"
        pytest.skip("the package s3prl is not installed")
    path = Path(package.submodule_search_locations[0]) / file
    spec = importlib.util.spec_from_file_location(f"s3prl_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the fewest edits that turn one sequence into the other."""
    row = list(range(len(other) + 1))
    for place, sign in enumerate(one, start=1):
        before, row[0] = row[0], place
        for column, letter in enumerate(other, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (sign != letter))
    return row[-1]
